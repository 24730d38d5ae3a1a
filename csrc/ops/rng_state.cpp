#include "rng_state.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>

#include "layout.h"

namespace vae_ext {
namespace {

constexpr int64_t kCounterRange = int64_t{1} << 32;

// In the order of StandardKind.
constexpr std::array<std::string_view, 8> kStandards = {"normal",     "laplace", "logistic", "uniform",
                                                        "triangular", "gumbel",  "cauchy",   "exponential"};

}  // namespace

StandardKind parse_standard(std::string_view standard) {
  const auto found = std::find(kStandards.begin(), kStandards.end(), standard);
  TORCH_CHECK_VALUE(found != kStandards.end(), "standard is '", standard, "'; expected one of ",
                    c10::Join(", ", kStandards));
  return static_cast<StandardKind>(found - kStandards.begin());
}

std::string_view name_of(StandardKind standard) { return kStandards[static_cast<size_t>(standard)]; }

void check_noise(const NoiseDraw& draw, std::string_view beside, const at::Device& device, int64_t rows,
                 int64_t samples, int64_t event_size) {
  const at::Tensor& state = draw.rng_state;
  TORCH_CHECK_TYPE(state.scalar_type() == at::kLong, "rng_state is ", name_of(state.scalar_type()),
                   "; expected torch.int64");
  TORCH_CHECK_VALUE(state.dim() == 1 && state.size(0) == 2, "rng_state has shape ", state.sizes(),
                    "; expected [2], a seed and an offset (make_rng_state draws one)");
  check_device("rng_state", state, beside, device);
  TORCH_CHECK_VALUE(samples >= 1, "num_samples is ", samples, "; expected 1 or more");
  TORCH_CHECK_VALUE(draw.stream >= 0, "stream is ", draw.stream, "; expected 0 or more");
  TORCH_CHECK_VALUE(draw.first_row >= 0 && draw.first_row <= kCounterRange - rows, "first_row is ", draw.first_row,
                    "; with ", rows, " rows it must lie in [0, 2^32 - rows]: row numbers are 32-bit counters");
  const int64_t groups = event_size / 4 + (event_size % 4 != 0);
  TORCH_CHECK_VALUE(groups == 0 || samples <= kCounterRange / groups, "num_samples is ", samples, " for events of ",
                    event_size,
                    " elements; num_samples * ceil(elements / 4) must not exceed 2^32: it is a 32-bit counter");
}

}  // namespace vae_ext

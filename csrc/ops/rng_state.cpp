#include "rng_state.h"

#include <c10/util/Exception.h>

#include "layout.h"

namespace vae_ext {
namespace {

constexpr int64_t kCounterRange = int64_t{1} << 32;

}  // namespace

void check_noise(const NoiseDraw& draw, const at::Device& device, int64_t rows, int64_t samples, int64_t event_size) {
  const at::Tensor& state = draw.rng_state;
  TORCH_CHECK_TYPE(state.scalar_type() == at::kLong, "rng_state is ", name_of(state.scalar_type()),
                   "; expected torch.int64");
  TORCH_CHECK_VALUE(state.dim() == 1 && state.size(0) == 2, "rng_state has shape ", state.sizes(),
                    "; expected [2], a seed and an offset (make_rng_state draws one)");
  check_device("rng_state", state, "mean", device);
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

#include "rsample.h"

namespace vae_ext {
namespace {

using Wanted = std::array<bool, 2>;
using Kind = std::string_view;
using Samples = std::optional<int64_t>;
using SymSamples = std::optional<c10::SymInt>;

Layout layout_of(const Tensor& loc, const Tensor& scale, Kind kind, int64_t event_ndim) {
  return Layout(event_ndim, {{"loc", loc}, {std::string(kind), scale}});
}

Tensor forward(const Tensor& loc, const Tensor& scale, const Tensor& rng_state, Samples num_samples, int64_t first_row,
               int64_t stream, std::string_view standard, Kind kind, int64_t event_ndim) {
  return rsample(layout_of(loc, scale, kind, event_ndim), loc, scale,
                 {rng_state, first_row, stream, parse_standard(standard)}, num_samples, gaussian_kind(kind));
}

std::vector<Tensor> backward(const Tensor& grad, const Tensor& loc, const Tensor& scale, const Tensor& rng_state,
                             Samples num_samples, int64_t first_row, int64_t stream, std::string_view standard,
                             Kind kind, int64_t event_ndim, Wanted wanted) {
  return rsample_gradients(layout_of(loc, scale, kind, event_ndim), grad, loc, scale,
                           {rng_state, first_row, stream, parse_standard(standard)}, num_samples, gaussian_kind(kind),
                           wanted);
}

Tensor autograd(const Tensor& loc, const Tensor& scale, const Tensor& rng_state, SymSamples num_samples,
                c10::SymInt first_row, int64_t stream, std::string_view standard, Kind kind, int64_t event_ndim) {
  return recorded_rsample(loc, scale,
                          {rng_state, std::move(num_samples), std::move(first_row), stream, parse_standard(standard)},
                          gaussian_kind(kind), event_ndim);
}

TORCH_LIBRARY_FRAGMENT(vae_ext, m) {
  m.def(
      "location_scale_rsample(Tensor loc, Tensor scale, Tensor rng_state, SymInt? num_samples, SymInt first_row, "
      "int stream, str standard, str kind, int event_ndim) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "location_scale_rsample_backward(Tensor grad, Tensor loc, Tensor scale, Tensor rng_state, SymInt? num_samples, "
      "SymInt first_row, int stream, str standard, str kind, int event_ndim, bool[2] wanted) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
  register_operator(m, "location_scale_rsample", TORCH_FN(forward), TORCH_FN(backward), TORCH_FN(autograd));
}

}  // namespace
}  // namespace vae_ext

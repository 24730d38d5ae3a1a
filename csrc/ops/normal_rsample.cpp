#include "rsample.h"

namespace vae_ext {
namespace {

using Wanted = std::array<bool, 2>;
using Kind = std::string_view;
using Samples = std::optional<int64_t>;
using SymSamples = std::optional<c10::SymInt>;

Layout layout_of(const Tensor& mean, const Tensor& scale, Kind kind, int64_t event_ndim) {
  return Layout(event_ndim, {{"mean", mean}, {std::string(kind), scale}});
}

Tensor forward(const Tensor& mean, const Tensor& scale, const Tensor& rng_state, Samples num_samples, int64_t first_row,
               int64_t stream, Kind kind, int64_t event_ndim) {
  return rsample(layout_of(mean, scale, kind, event_ndim), mean, scale, {rng_state, first_row, stream}, num_samples,
                 kind);
}

std::vector<Tensor> backward(const Tensor& grad, const Tensor& mean, const Tensor& scale, const Tensor& rng_state,
                             Samples num_samples, int64_t first_row, int64_t stream, Kind kind, int64_t event_ndim,
                             Wanted wanted) {
  return rsample_gradients(layout_of(mean, scale, kind, event_ndim), grad, mean, scale, {rng_state, first_row, stream},
                           num_samples, kind, wanted);
}

Tensor autograd(const Tensor& mean, const Tensor& scale, const Tensor& rng_state, SymSamples num_samples,
                c10::SymInt first_row, int64_t stream, Kind kind, int64_t event_ndim) {
  return recorded_rsample(mean, scale, {rng_state, std::move(num_samples), std::move(first_row), stream}, kind,
                          event_ndim);
}

TORCH_LIBRARY_FRAGMENT(vae_ext, m) {
  m.def(
      "normal_rsample(Tensor mean, Tensor scale, Tensor rng_state, SymInt? num_samples, SymInt first_row, int stream, "
      "str kind, int event_ndim) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "normal_rsample_backward(Tensor grad, Tensor mean, Tensor scale, Tensor rng_state, SymInt? num_samples, "
      "SymInt first_row, int stream, str kind, int event_ndim, bool[2] wanted) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
  register_operator(m, "normal_rsample", TORCH_FN(forward), TORCH_FN(backward), TORCH_FN(autograd));
}

}  // namespace
}  // namespace vae_ext

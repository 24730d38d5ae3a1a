#include "location_scale_rsample.h"

namespace vae_ext {
namespace {

using Wanted = std::array<bool, 2>;
using Kind = std::string_view;
using Samples = std::optional<int64_t>;
using SymSamples = std::optional<c10::SymInt>;

// A scale is to its family what std is to the Gaussian, whose kernels and autograd node all families share.
Kind gaussian_kind(Kind kind) {
  if (kind == "scale") return "std";
  if (kind == "log_scale") return "log_std";
  TORCH_CHECK_VALUE(false, "kind is '", kind, "'; expected scale or log_scale");
}

Kind own_kind(Kind gaussian_kind) { return gaussian_kind == "std" ? "scale" : "log_scale"; }

Layout layout_of(const Tensor& loc, const Tensor& scale, Kind kind, int64_t event_ndim) {
  return Layout(event_ndim, {{"loc", loc}, {std::string(kind), scale}});
}

Tensor forward(const Tensor& loc, const Tensor& scale, const Tensor& rng_state, Samples num_samples, int64_t first_row,
               int64_t stream, Kind standard, Kind kind, int64_t event_ndim) {
  return rsample(layout_of(loc, scale, kind, event_ndim), loc, scale,
                 {rng_state, first_row, stream, parse_standard(standard)}, num_samples, gaussian_kind(kind));
}

std::vector<Tensor> backward(const Tensor& grad, const Tensor& loc, const Tensor& scale, const Tensor& rng_state,
                             Samples num_samples, int64_t first_row, int64_t stream, Kind standard, Kind kind,
                             int64_t event_ndim, Wanted wanted) {
  return rsample_gradients(layout_of(loc, scale, kind, event_ndim), grad, loc, scale,
                           {rng_state, first_row, stream, parse_standard(standard)}, num_samples, gaussian_kind(kind),
                           wanted);
}

Tensor autograd(const Tensor& loc, const Tensor& scale, const Tensor& rng_state, SymSamples num_samples,
                c10::SymInt first_row, int64_t stream, Kind standard, Kind kind, int64_t event_ndim) {
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
  implement(m, "location_scale_rsample", TORCH_FN(forward));
  implement(m, "location_scale_rsample_backward", TORCH_FN(backward));
  m.impl("location_scale_rsample", c10::DispatchKey::Autograd, TORCH_FN(autograd));
  m.impl("location_scale_rsample_backward", c10::DispatchKey::Autograd, torch::CppFunction::makeFallthrough());
}

}  // namespace

Tensor call_location_scale(const Tensor& loc, const Tensor& scale, const NoiseArguments& noise, Kind kind,
                           int64_t event_ndim) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, SymSamples, c10::SymInt, int64_t,
                                        Kind, Kind, int64_t)>("vae_ext::location_scale_rsample");
  return op.call(loc, scale, noise.rng_state, noise.num_samples, noise.first_row, noise.stream,
                 name_of(*noise.standard), own_kind(kind), event_ndim);
}

std::vector<Tensor> call_location_scale_backward(const Tensor& grad, const Tensor& loc, const Tensor& scale,
                                                 const NoiseArguments& noise, Kind kind, int64_t event_ndim,
                                                 Wanted wanted) {
  static const auto op =
      find_op<std::vector<Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&, SymSamples, c10::SymInt,
                                  int64_t, Kind, Kind, int64_t, Wanted)>("vae_ext::location_scale_rsample_backward");
  return op.call(grad, loc, scale, noise.rng_state, noise.num_samples, noise.first_row, noise.stream,
                 name_of(*noise.standard), own_kind(kind), event_ndim, wanted);
}

}  // namespace vae_ext

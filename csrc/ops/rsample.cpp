#include "rsample.h"

#include <ATen/ATen.h>

#include "huge_pages.h"
#include "value.h"

namespace vae_ext {
namespace {

using Wanted = std::array<bool, 2>;
using Kind = std::string_view;
using Samples = std::optional<int64_t>;
using SymSamples = std::optional<c10::SymInt>;

constexpr Kernel kBackward = kOnEachDevice<&cpu::Kernels::normal_rsample_backward, cuda::normal_rsample_backward>;

Kind family_kind(Kind gaussian_kind) { return gaussian_kind == "std" ? "scale" : "log_scale"; }

Tensor call_forward(const Tensor& mean, const Tensor& scale, const NoiseArguments& noise, Kind kind,
                    int64_t event_ndim) {
  static const auto normal =
      find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, SymSamples, c10::SymInt, int64_t, Kind, int64_t)>(
          "vae_ext::normal_rsample");
  static const auto family =
      find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, SymSamples, c10::SymInt, int64_t, std::string_view,
                     Kind, int64_t)>("vae_ext::location_scale_rsample");
  if (!noise.standard)
    return normal.call(mean, scale, noise.rng_state, noise.num_samples, noise.first_row, noise.stream, kind,
                       event_ndim);
  return family.call(mean, scale, noise.rng_state, noise.num_samples, noise.first_row, noise.stream,
                     name_of(*noise.standard), family_kind(kind), event_ndim);
}

std::vector<Tensor> call_backward(const Tensor& grad, const Tensor& mean, const Tensor& scale,
                                  const NoiseArguments& noise, Kind kind, int64_t event_ndim, Wanted wanted) {
  static const auto normal =
      find_op<std::vector<Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&, SymSamples, c10::SymInt,
                                  int64_t, Kind, int64_t, Wanted)>("vae_ext::normal_rsample_backward");
  static const auto family =
      find_op<std::vector<Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&, SymSamples, c10::SymInt,
                                  int64_t, std::string_view, Kind, int64_t, Wanted)>(
          "vae_ext::location_scale_rsample_backward");
  if (!noise.standard)
    return normal.call(grad, mean, scale, noise.rng_state, noise.num_samples, noise.first_row, noise.stream, kind,
                       event_ndim, wanted);
  return family.call(grad, mean, scale, noise.rng_state, noise.num_samples, noise.first_row, noise.stream,
                     name_of(*noise.standard), family_kind(kind), event_ndim, wanted);
}

// Of either operator: the noise says which.
class RsampleBackward : public torch::autograd::Function<RsampleBackward> {
 public:
  static constexpr size_t kInputs = 5;

  static Tensor forward(AutogradContext* ctx, const Tensor& mean, const Tensor& scale, const NoiseArguments& noise,
                        Kind kind, int64_t event_ndim) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    if (ctx) {
      ctx->save_for_backward({mean, scale, noise.rng_state});
      ctx->saved_data["kind"] = std::string(kind);
      ctx->saved_data["event_ndim"] = event_ndim;
      save_noise(ctx, noise);
    }
    return call_forward(mean, scale, noise, kind, event_ndim);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &mean = saved[0], &scale = saved[1], &grad = grads[0];
    const std::string kind = ctx->saved_data["kind"].toStringRef();
    const int64_t event_ndim = ctx->saved_data["event_ndim"].toInt();
    const NoiseArguments noise = saved_noise(ctx, saved[2]);
    const Wanted wanted = wanted_gradients<2>(ctx, saved);
    const std::vector<Tensor> gradients =
        needs_closed_form(grads) ? differentiable_rsample_backward(grad, mean, scale, noise, kind, event_ndim, wanted)
                                 : rsample_backward(grad, mean, scale, noise, kind, event_ndim, wanted);
    return in_places(gradients, wanted, kInputs);
  }
};

}  // namespace

Kind gaussian_kind(Kind kind) {
  if (kind == "scale") return "std";
  if (kind == "log_scale") return "log_std";
  TORCH_CHECK_VALUE(false, "kind is '", kind, "'; expected scale or log_scale");
}

void save_noise(AutogradContext* ctx, const NoiseArguments& noise) {
  if (noise.num_samples) ctx->saved_data["num_samples"] = *noise.num_samples;
  ctx->saved_data["first_row"] = noise.first_row;
  ctx->saved_data["stream"] = noise.stream;
  if (noise.standard) ctx->saved_data["standard"] = static_cast<int64_t>(*noise.standard);
}

NoiseArguments saved_noise(AutogradContext* ctx, const Tensor& rng_state) {
  const auto samples = ctx->saved_data.find("num_samples");
  SymSamples num_samples;
  if (samples != ctx->saved_data.end()) num_samples = samples->second.toSymInt();
  const auto standard = ctx->saved_data.find("standard");
  std::optional<StandardKind> kind;
  if (standard != ctx->saved_data.end()) kind = static_cast<StandardKind>(standard->second.toInt());
  return {rng_state, num_samples, ctx->saved_data["first_row"].toSymInt(), ctx->saved_data["stream"].toInt(), kind};
}

Spec with_noise(Spec spec, const Layout& layout, const NoiseDraw& draw, Samples num_samples) {
  check_noise(draw, layout.first(), layout.options().device(), c10::multiply_integers(layout.batch()),
              num_samples.value_or(1), layout.event_size());
  spec.noise = &draw;
  spec.samples = num_samples;
  return spec;
}

Tensor rsample(const Layout& layout, const Tensor& mean, const Tensor& scale, const NoiseDraw& draw,
               Samples num_samples, Kind kind) {
  const Spec spec = with_noise(Spec{parse_kind(kind)}, layout, draw, num_samples);
  const Tensor z = empty_samples(layout, num_samples);
  sample_rows(layout, spec, with_dense_events({mean, scale}, layout.event_ndim()), z);
  return z;
}

std::vector<Tensor> rsample_gradients(const Layout& layout, const Tensor& grad, const Tensor& mean, const Tensor& scale,
                                      const NoiseDraw& draw, Samples num_samples, Kind kind, Wanted wanted) {
  const Spec spec = with_noise(Spec{parse_kind(kind)}, layout, draw, num_samples);
  const std::vector<Tensor> inputs =
      with_dense_events({scale, sample_gradient(layout, grad, num_samples)}, layout.event_ndim());
  return only_wanted(gradients(kBackward, layout, spec, inputs, Tensor(), {mean, scale}, wanted), wanted);
}

Tensor recorded_rsample(const Tensor& mean, const Tensor& scale, const NoiseArguments& noise, Kind kind,
                        int64_t event_ndim) {
  return any_requires_grad({mean, scale}) ? RsampleBackward::apply(mean, scale, noise, kind, event_ndim)
                                          : RsampleBackward::forward(nullptr, mean, scale, noise, kind, event_ndim);
}

Tensor empty_samples(const Layout& layout, Samples num_samples) {
  return empty_of_huge_pages(layout.shape(num_samples, true), layout.options());
}

Tensor sample_gradient(const Layout& layout, const Tensor& grad, Samples num_samples) {
  const at::DimVector shape = layout.shape(num_samples, true);
  TORCH_CHECK_VALUE(grad.sizes() == at::IntArrayRef(shape), "the gradient of z has shape ", grad.sizes(), "; expected ",
                    at::IntArrayRef(shape));
  const at::ScalarType type = at::typeMetaToScalarType(layout.options().dtype());
  TORCH_CHECK_TYPE(grad.scalar_type() == type, "the gradient of z is ", name_of(grad.scalar_type()), "; expected ",
                   name_of(type));
  check_device("the gradient of z", grad, layout.first(), layout.options().device());
  return grad;
}

std::vector<Tensor> rsample_backward(const Tensor& grad, const Tensor& mean, const Tensor& scale,
                                     const NoiseArguments& noise, std::string_view kind, int64_t event_ndim,
                                     Wanted wanted) {
  // Where z has the shape of mean, its gradient is the mean's, as it stands.
  const bool as_it_stands = wanted[0] && mean.sym_sizes() == grad.sym_sizes();
  std::vector<Tensor> result;
  if (as_it_stands) result.push_back(grad);
  const Wanted rest{wanted[0] && !as_it_stands, wanted[1]};
  if (!rest[0] && !rest[1]) return result;
  for (const Tensor& gradient : call_backward(grad, mean, scale, noise, kind, event_ndim, rest))
    result.push_back(gradient);
  return result;
}

std::vector<Tensor> differentiable_rsample_backward(const Tensor& grad, const Tensor& mean, const Tensor& scale,
                                                    const NoiseArguments& noise, std::string_view kind,
                                                    int64_t event_ndim, Wanted wanted) {
  const Tensor epsilon = epsilon_like(grad, noise, event_ndim);
  return with_kind(parse_kind(kind), [&](auto k) {
    return only_wanted(closed_form<NormalRsampleGradient<k.kValue>>(
                           compute_type_of(grad), event_ndim, {scale, grad, epsilon}, Tensor(), {mean, scale}, wanted),
                       wanted);
  });
}

Tensor epsilon_like(const Tensor& z, const NoiseArguments& noise, int64_t event_ndim) {
  const c10::SymIntArrayRef shape = z.sym_sizes();
  const Tensor mean = at::zeros_symint(noise.num_samples ? shape.slice(1) : shape, z.options().dtype(at::kFloat));
  const Tensor scale = at::ones({}, mean.options());
  return call_forward(mean, scale, noise, "std", event_ndim);
}

}  // namespace vae_ext

#include <ATen/ATen.h>

#include "normal_kl.h"
#include "rsample.h"
#include "value.h"

namespace vae_ext {
namespace {

using Wanted = std::array<bool, 4>;
using Kind = std::string_view;
using Samples = std::optional<int64_t>;
using SymSamples = std::optional<c10::SymInt>;

constexpr SampledSum kSampledLogRatio{&cpu::Kernels::normal_log_ratio, kOnCuda<cuda::normal_rsample_log_ratio>,
                                      /*of_each_sample=*/true};
constexpr Kernel kBackward = kOnEachDevice<&cpu::Kernels::normal_log_ratio_backward, cuda::normal_log_ratio_backward>;

std::tuple<Tensor, Tensor> forward(const Tensor& mean, const Tensor& scale, const OptionalTensor& prior_mean,
                                   const OptionalTensor& prior_scale, const Tensor& rng_state, Samples num_samples,
                                   int64_t first_row, int64_t stream, Kind kind, int64_t event_ndim) {
  const KlArguments a{mean, scale, prior_mean, prior_scale, kind, event_ndim};
  const Layout layout = kl_layout(a);
  check_prior_batch(layout, a);
  const NoiseDraw draw{rng_state, first_row, stream};
  const Spec spec = with_noise(kl_spec(a), layout, draw, num_samples);
  const Tensor z = empty_samples(layout, num_samples);
  const Tensor r = sample_and_sum_rows(kSampledLogRatio, layout, spec, kl_inputs(a), z);
  return {z, r};
}

// z is an argument, not recomputed: r belongs to z as it was rounded to its dtype, and z is there anyway.
std::vector<Tensor> backward(const OptionalTensor& grad_z, const OptionalTensor& grad_r, const Tensor& z,
                             const Tensor& mean, const Tensor& scale, const OptionalTensor& prior_mean,
                             const OptionalTensor& prior_scale, const Tensor& rng_state, Samples num_samples,
                             int64_t first_row, int64_t stream, Kind kind, int64_t event_ndim, Wanted wanted) {
  const KlArguments a{mean, scale, prior_mean, prior_scale, kind, event_ndim};
  const Layout layout = kl_layout(a);
  const NoiseDraw draw{rng_state, first_row, stream};
  const Spec spec = with_noise(kl_spec(a), layout, draw, num_samples);
  const variable_list like = kl_inputs(a);
  const variable_list inputs = with_dense_events({like[1], like[2], like[3], sample_gradient(layout, z, num_samples),
                                                  grad_z ? sample_gradient(layout, *grad_z, num_samples) : Tensor()},
                                                 event_ndim);
  return only_wanted(gradients(kBackward, layout, spec, inputs,
                               grad_r ? row_gradient(layout, "grad_r", *grad_r, num_samples) : Tensor(), like, wanted),
                     wanted);
}

std::vector<Tensor> call_backward(const variable_list& grads, const Tensor& z, const variable_list& inputs,
                                  const NoiseArguments& noise, Kind kind, int64_t event_ndim, Wanted wanted) {
  static const auto op = find_op<std::vector<Tensor>(
      const OptionalTensor&, const OptionalTensor&, const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&,
      const OptionalTensor&, const Tensor&, SymSamples, c10::SymInt, int64_t, Kind, int64_t, Wanted)>(
      "vae_ext::normal_rsample_log_ratio_backward");
  return op.call(or_none(grads[0]), or_none(grads[1]), z, inputs[0], inputs[1], or_none(inputs[2]), or_none(inputs[3]),
                 noise.rng_state, noise.num_samples, noise.first_row, noise.stream, kind, event_ndim, wanted);
}

std::vector<Tensor> differentiable_backward(const variable_list& grads, const Tensor& z, const variable_list& inputs,
                                            const NoiseArguments& noise, Kind kind, int64_t event_ndim,
                                            const Wanted& wanted) {
  const variable_list operands{inputs[1], inputs[2], inputs[3], z, grads[0], epsilon_like(z, noise, event_ndim)};
  return with_kind(parse_kind(kind), [&](auto k) {
    constexpr ScaleKind kKind = k.kValue;
    const auto type = compute_type_of(z);
    return inputs[3].defined()
               ? closed_form<NormalLogRatioGradient<kKind, true>>(type, event_ndim, operands, grads[1], inputs, wanted)
               : closed_form<NormalLogRatioGradient<kKind, false>>(type, event_ndim, operands, grads[1], inputs,
                                                                   wanted);
  });
}

class NormalRsampleLogRatioBackward : public torch::autograd::Function<NormalRsampleLogRatioBackward> {
 public:
  static constexpr size_t kInputs = 7;

  static variable_list forward(AutogradContext* ctx, const Tensor& mean, const Tensor& scale,
                               const OptionalTensor& prior_mean, const OptionalTensor& prior_scale,
                               const NoiseArguments& noise, Kind kind, int64_t event_ndim) {
    static const auto op =
        find_op<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
                                           const Tensor&, SymSamples, c10::SymInt, int64_t, Kind, int64_t)>(
            "vae_ext::normal_rsample_log_ratio");
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [z, r] = op.call(mean, scale, prior_mean, prior_scale, noise.rng_state, noise.num_samples, noise.first_row,
                          noise.stream, kind, event_ndim);
    if (ctx) {
      ctx->save_for_backward({mean, scale, or_undefined(prior_mean), or_undefined(prior_scale), noise.rng_state, z});
      ctx->saved_data["kind"] = std::string(kind);
      ctx->saved_data["event_ndim"] = event_ndim;
      ctx->set_materialize_grads(false);
      save_noise(ctx, noise);
    }
    return {z, r};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list inputs = ctx->get_saved_variables();
    const NoiseArguments noise = saved_noise(ctx, inputs[4]);
    const Tensor z = inputs[5];
    inputs.resize(4);
    const std::string kind = ctx->saved_data["kind"].toStringRef();
    const int64_t event_ndim = ctx->saved_data["event_ndim"].toInt();
    const Wanted wanted = wanted_gradients<4>(ctx, inputs);
    if (!needs_closed_form(grads))
      return in_places(call_backward(grads, z, inputs, noise, kind, event_ndim, wanted), wanted, kInputs);
    variable_list result = differentiable_backward(grads, z, inputs, noise, kind, event_ndim, wanted);
    result.resize(kInputs);
    return result;
  }
};

std::tuple<Tensor, Tensor> autograd(const Tensor& mean, const Tensor& scale, const OptionalTensor& prior_mean,
                                    const OptionalTensor& prior_scale, const Tensor& rng_state, SymSamples num_samples,
                                    c10::SymInt first_row, int64_t stream, Kind kind, int64_t event_ndim) {
  const NoiseArguments noise{rng_state, std::move(num_samples), std::move(first_row), stream};
  const bool record = any_requires_grad({mean, scale, or_undefined(prior_mean), or_undefined(prior_scale)});
  const variable_list out =
      record ? NormalRsampleLogRatioBackward::apply(mean, scale, prior_mean, prior_scale, noise, kind, event_ndim)
             : NormalRsampleLogRatioBackward::forward(nullptr, mean, scale, prior_mean, prior_scale, noise, kind,
                                                      event_ndim);
  return {out[0], out[1]};
}

TORCH_LIBRARY_FRAGMENT(vae_ext, m) {
  m.def(
      "normal_rsample_log_ratio(Tensor mean, Tensor scale, Tensor? prior_mean, Tensor? prior_scale, Tensor rng_state, "
      "SymInt? num_samples, SymInt first_row, int stream, str kind, int event_ndim) -> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "normal_rsample_log_ratio_backward(Tensor? grad_z, Tensor? grad_r, Tensor z, Tensor mean, Tensor scale, "
      "Tensor? prior_mean, Tensor? prior_scale, Tensor rng_state, SymInt? num_samples, SymInt first_row, int stream, "
      "str kind, int event_ndim, bool[4] wanted) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
  register_operator(m, "normal_rsample_log_ratio", TORCH_FN(forward), TORCH_FN(backward), TORCH_FN(autograd));
}

}  // namespace
}  // namespace vae_ext

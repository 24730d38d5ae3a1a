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

constexpr SampledSum kSampledKl{&cpu::Kernels::normal_kl, kOnCuda<cuda::normal_rsample_kl>, /*of_each_sample=*/false};
constexpr Kernel kBackward = kOnEachDevice<&cpu::Kernels::normal_rsample_kl_backward, cuda::normal_rsample_kl_backward>;

std::tuple<Tensor, Tensor> forward(const Tensor& mean, const Tensor& scale, const OptionalTensor& prior_mean,
                                   const OptionalTensor& prior_scale, const Tensor& rng_state, Samples num_samples,
                                   int64_t first_row, int64_t stream, Kind kind, int64_t event_ndim) {
  const KlArguments a{mean, scale, prior_mean, prior_scale, kind, event_ndim};
  const Layout layout = kl_layout(a);
  check_prior_batch(layout, a);
  const NoiseDraw draw{rng_state, first_row, stream};
  const Spec spec = with_noise(kl_spec(a), layout, draw, num_samples);
  const Tensor z = empty_samples(layout, num_samples);
  const Tensor kl = sample_and_sum_rows(kSampledKl, layout, spec, kl_inputs(a), z);
  return {z, kl};
}

std::vector<Tensor> backward(const Tensor& grad_z, const Tensor& grad_kl, const Tensor& mean, const Tensor& scale,
                             const OptionalTensor& prior_mean, const OptionalTensor& prior_scale,
                             const Tensor& rng_state, Samples num_samples, int64_t first_row, int64_t stream, Kind kind,
                             int64_t event_ndim, Wanted wanted) {
  const KlArguments a{mean, scale, prior_mean, prior_scale, kind, event_ndim};
  const Layout layout = kl_layout(a);
  const Spec kl = kl_spec(a);
  const variable_list inputs = kl_inputs(a);
  const Tensor row_value = row_gradient(layout, "grad_kl", grad_kl);
  const NoiseDraw draw{rng_state, first_row, stream};
  const Spec both = with_noise(kl, layout, draw, num_samples);

  const std::array<bool, 2> posterior_wanted{wanted[0], wanted[1]};
  variable_list both_inputs = inputs;
  both_inputs.push_back(with_dense_events({sample_gradient(layout, grad_z, num_samples)}, event_ndim).front());
  std::vector<Tensor> results =
      gradients(kBackward, layout, both, both_inputs, row_value, {mean, scale}, posterior_wanted);
  // The prior's gradients come from the KL alone.
  const std::vector<Tensor> prior = gradients(kKlBackward, layout, kl, inputs, row_value, inputs,
                                              std::array<bool, 4>{false, false, wanted[2], wanted[3]});
  results.insert(results.end(), prior.begin() + 2, prior.end());
  return only_wanted(std::move(results), wanted);
}

std::tuple<Tensor, Tensor> call_forward(const variable_list& inputs, const NoiseArguments& noise, Kind kind,
                                        int64_t event_ndim) {
  static const auto op =
      find_op<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
                                         const Tensor&, SymSamples, c10::SymInt, int64_t, Kind, int64_t)>(
          "vae_ext::normal_rsample_kl");
  return op.call(inputs[0], inputs[1], or_none(inputs[2]), or_none(inputs[3]), noise.rng_state, noise.num_samples,
                 noise.first_row, noise.stream, kind, event_ndim);
}

std::vector<Tensor> call_backward(const variable_list& grads, const variable_list& inputs, const NoiseArguments& noise,
                                  Kind kind, int64_t event_ndim, Wanted wanted) {
  static const auto op = find_op<std::vector<Tensor>(
      const Tensor&, const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
      const Tensor&, SymSamples, c10::SymInt, int64_t, Kind, int64_t, Wanted)>("vae_ext::normal_rsample_kl_backward");
  return op.call(grads[0], grads[1], inputs[0], inputs[1], or_none(inputs[2]), or_none(inputs[3]), noise.rng_state,
                 noise.num_samples, noise.first_row, noise.stream, kind, event_ndim, wanted);
}

// The gradients through z alone, which reach no prior, one for each input.
std::vector<Tensor> through_z(const Tensor& grad, const variable_list& inputs, const NoiseArguments& noise, Kind kind,
                              int64_t event_ndim, const Wanted& wanted) {
  const std::array<bool, 2> posterior{wanted[0], wanted[1]};
  const auto call = needs_closed_form({grad}) ? &differentiable_rsample_backward : &rsample_backward;
  return in_places(call(grad, inputs[0], inputs[1], noise, kind, event_ndim, posterior), posterior, 4);
}

// The gradients through the KL alone, one for each input.
std::vector<Tensor> through_kl(const Tensor& grad, const variable_list& inputs, Kind kind, int64_t event_ndim,
                               const Wanted& wanted) {
  if (needs_closed_form({grad})) return differentiable_kl_backward(grad, inputs, kind, event_ndim, wanted);
  return in_places(call_kl_backward(grad, inputs, kind, event_ndim, wanted), wanted, 4);
}

std::vector<Tensor> added(std::vector<Tensor> a, const std::vector<Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (b[i].defined()) a[i] = a[i].defined() ? a[i] + b[i] : b[i];
  return a;
}

class NormalRsampleKlBackward : public torch::autograd::Function<NormalRsampleKlBackward> {
 public:
  static constexpr size_t kInputs = 7;

  static variable_list forward(AutogradContext* ctx, const Tensor& mean, const Tensor& scale,
                               const OptionalTensor& prior_mean, const OptionalTensor& prior_scale,
                               const NoiseArguments& noise, Kind kind, int64_t event_ndim) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const variable_list inputs{mean, scale, or_undefined(prior_mean), or_undefined(prior_scale)};
    if (ctx) {
      variable_list saved = inputs;
      saved.push_back(noise.rng_state);
      ctx->save_for_backward(std::move(saved));
      ctx->set_materialize_grads(false);
      ctx->saved_data["kind"] = std::string(kind);
      ctx->saved_data["event_ndim"] = event_ndim;
      save_noise(ctx, noise);
    }
    auto [z, kl] = call_forward(inputs, noise, kind, event_ndim);
    return {z, kl};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list inputs = ctx->get_saved_variables();
    const NoiseArguments noise = saved_noise(ctx, inputs[4]);
    inputs.pop_back();
    const std::string kind = ctx->saved_data["kind"].toStringRef();
    const int64_t event_ndim = ctx->saved_data["event_ndim"].toInt();
    const Wanted wanted = wanted_gradients<4>(ctx, inputs);
    const bool has_z = grads[0].defined(), has_kl = grads[1].defined();
    if (has_z && has_kl && !needs_closed_form(grads))
      return in_places(call_backward(grads, inputs, noise, kind, event_ndim, wanted), wanted, kInputs);
    std::vector<Tensor> from_z(4), from_kl(4);
    if (has_z) from_z = through_z(grads[0], inputs, noise, kind, event_ndim, wanted);
    if (has_kl) from_kl = through_kl(grads[1], inputs, kind, event_ndim, wanted);
    variable_list result = added(std::move(from_z), from_kl);
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
      record ? NormalRsampleKlBackward::apply(mean, scale, prior_mean, prior_scale, noise, kind, event_ndim)
             : NormalRsampleKlBackward::forward(nullptr, mean, scale, prior_mean, prior_scale, noise, kind, event_ndim);
  return {out[0], out[1]};
}

TORCH_LIBRARY_FRAGMENT(vae_ext, m) {
  m.def(
      "normal_rsample_kl(Tensor mean, Tensor scale, Tensor? prior_mean, Tensor? prior_scale, Tensor rng_state, "
      "SymInt? num_samples, SymInt first_row, int stream, str kind, int event_ndim) -> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "normal_rsample_kl_backward(Tensor grad_z, Tensor grad_kl, Tensor mean, Tensor scale, Tensor? prior_mean, "
      "Tensor? prior_scale, Tensor rng_state, SymInt? num_samples, SymInt first_row, int stream, str kind, "
      "int event_ndim, bool[4] wanted) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
  register_operator(m, "normal_rsample_kl", TORCH_FN(forward), TORCH_FN(backward), TORCH_FN(autograd));
}

}  // namespace
}  // namespace vae_ext

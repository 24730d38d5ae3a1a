#include "normal_kl.h"

#include "value.h"

namespace vae_ext {

Layout kl_layout(const KlArguments& a) {
  const std::string kind(a.kind);
  return Layout(a.event_ndim, {{"mean", a.mean},
                               {kind, a.scale},
                               {"prior_mean", or_undefined(a.prior_mean)},
                               {"prior_" + kind, or_undefined(a.prior_scale)}});
}

Spec kl_spec(const KlArguments& a) {
  Spec spec;
  spec.kind = parse_kind(a.kind);
  spec.prior_scale = a.prior_scale.has_value();
  spec.factor = 0.5;
  return spec;
}

variable_list kl_inputs(const KlArguments& a) {
  return with_dense_events({a.mean, a.scale, or_undefined(a.prior_mean), or_undefined(a.prior_scale)}, a.event_ndim);
}

void check_prior_batch(const Layout& layout, const KlArguments& a) {
  const Layout posterior(a.event_ndim, {{"mean", a.mean}, {std::string(a.kind), a.scale}});
  TORCH_CHECK_VALUE(layout.batch() == posterior.batch(), "the prior's batch dims make the batch ", layout.batch(),
                    " of ", posterior.batch(), "; expected a prior that broadcasts to the batch of mean and ", a.kind,
                    " (normal_rsample and normal_kl apart take any)");
}

std::vector<Tensor> differentiable_kl_backward(const Tensor& grad, const variable_list& inputs, std::string_view kind,
                                               int64_t event_ndim, c10::ArrayRef<bool> wanted) {
  return with_kind(parse_kind(kind), [&](auto k) {
    constexpr ScaleKind kKind = k.kValue;
    const auto type = grad.scalar_type();
    return inputs[3].defined()
               ? closed_form<NormalKlGradient<kKind, true>>(type, event_ndim, inputs, grad, inputs, wanted)
               : closed_form<NormalKlGradient<kKind, false>>(type, event_ndim, inputs, grad, inputs, wanted);
  });
}

namespace {

using Wanted = std::array<bool, 4>;
using Kind = std::string_view;

constexpr Kernel kForward = kOnEachDevice<&cpu::Kernels::normal_kl, cuda::normal_kl>;

Tensor forward(const Tensor& mean, const Tensor& scale, const OptionalTensor& prior_mean,
               const OptionalTensor& prior_scale, Kind kind, int64_t event_ndim) {
  const KlArguments a{mean, scale, prior_mean, prior_scale, kind, event_ndim};
  return sum_rows(kForward, kl_layout(a), kl_spec(a), kl_inputs(a));
}

std::vector<Tensor> backward(const Tensor& grad, const Tensor& mean, const Tensor& scale,
                             const OptionalTensor& prior_mean, const OptionalTensor& prior_scale, Kind kind,
                             int64_t event_ndim, Wanted wanted) {
  const KlArguments a{mean, scale, prior_mean, prior_scale, kind, event_ndim};
  const Layout layout = kl_layout(a);
  const variable_list inputs = kl_inputs(a);
  return only_wanted(
      gradients(kKlBackward, layout, kl_spec(a), inputs, row_gradient(layout, "grad", grad), inputs, wanted), wanted);
}

class NormalKlBackward : public torch::autograd::Function<NormalKlBackward> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& mean, const Tensor& scale, const OptionalTensor& prior_mean,
                        const OptionalTensor& prior_scale, Kind kind, int64_t event_ndim) {
    static const auto op =
        find_op<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, Kind, int64_t)>(
            "vae_ext::normal_kl");
    const at::AutoDispatchBelowADInplaceOrView guard;
    if (ctx) {
      ctx->save_for_backward({mean, scale, or_undefined(prior_mean), or_undefined(prior_scale)});
      ctx->saved_data["kind"] = std::string(kind);
      ctx->saved_data["event_ndim"] = event_ndim;
    }
    return op.call(mean, scale, prior_mean, prior_scale, kind, event_ndim);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const std::string kind = ctx->saved_data["kind"].toStringRef();
    const int64_t event_ndim = ctx->saved_data["event_ndim"].toInt();
    const Wanted wanted = wanted_gradients<4>(ctx, saved);
    if (!needs_closed_form(grads))
      return in_places(call_kl_backward(grads[0], saved, kind, event_ndim, wanted), wanted, 6);
    return in_places(only_wanted(differentiable_kl_backward(grads[0], saved, kind, event_ndim, wanted), wanted), wanted,
                     6);
  }
};

Tensor autograd(const Tensor& mean, const Tensor& scale, const OptionalTensor& prior_mean,
                const OptionalTensor& prior_scale, Kind kind, int64_t event_ndim) {
  return any_requires_grad({mean, scale, or_undefined(prior_mean), or_undefined(prior_scale)})
             ? NormalKlBackward::apply(mean, scale, prior_mean, prior_scale, kind, event_ndim)
             : NormalKlBackward::forward(nullptr, mean, scale, prior_mean, prior_scale, kind, event_ndim);
}

TORCH_LIBRARY_FRAGMENT(vae_ext, m) {
  m.def(
      "normal_kl(Tensor mean, Tensor scale, Tensor? prior_mean, Tensor? prior_scale, str kind, int event_ndim) "
      "-> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "normal_kl_backward(Tensor grad, Tensor mean, Tensor scale, Tensor? prior_mean, Tensor? prior_scale, str kind, "
      "int event_ndim, bool[4] wanted) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
  register_operator(m, "normal_kl", TORCH_FN(forward), TORCH_FN(backward), TORCH_FN(autograd));
}

}  // namespace

std::vector<Tensor> call_kl_backward(const Tensor& grad, const variable_list& inputs, std::string_view kind,
                                     int64_t event_ndim, std::array<bool, 4> wanted) {
  static const auto op =
      find_op<std::vector<Tensor>(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&,
                                  const OptionalTensor&, Kind, int64_t, Wanted)>("vae_ext::normal_kl_backward");
  return op.call(grad, inputs[0], inputs[1], or_none(inputs[2]), or_none(inputs[3]), kind, event_ndim, wanted);
}

}  // namespace vae_ext

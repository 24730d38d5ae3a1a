#include "autograd.h"
#include "gradients.h"
#include "value.h"

namespace vae_ext {
namespace {

using Wanted = std::array<bool, 3>;
using Kind = std::string_view;

constexpr Kernel kForward = kOnEachDevice<&cpu::Kernels::normal_log_prob, cuda::normal_log_prob>;
constexpr Kernel kBackward = kOnEachDevice<&cpu::Kernels::normal_log_prob_backward, cuda::normal_log_prob_backward>;

Layout layout_of(const Tensor& mean, const Tensor& scale, const Tensor& x, Kind kind, int64_t event_ndim) {
  return Layout(event_ndim, {{"mean", mean}, {std::string(kind), scale}, {"x", x, Role::data}});
}

Tensor forward(const Tensor& mean, const Tensor& scale, const Tensor& x, Kind kind, int64_t event_ndim) {
  Spec spec;
  spec.kind = parse_kind(kind);
  const Layout layout = layout_of(mean, scale, x, kind, event_ndim);
  spec.factor = -0.5;
  spec.constant = -0.5 * kLog2Pi * static_cast<double>(layout.event_size());
  return sum_rows(kForward, layout, spec, with_dense_events({mean, scale, x}, event_ndim));
}

std::vector<Tensor> backward(const Tensor& grad, const Tensor& mean, const Tensor& scale, const Tensor& x, Kind kind,
                             int64_t event_ndim, Wanted wanted) {
  Spec spec;
  spec.kind = parse_kind(kind);
  const Layout layout = layout_of(mean, scale, x, kind, event_ndim);
  return only_wanted(gradients(kBackward, layout, spec, with_dense_events({mean, scale, x}, event_ndim),
                               row_gradient(layout, "grad", grad), {mean, scale, x}, wanted),
                     wanted);
}

std::vector<Tensor> differentiable_backward(const Tensor& grad, const variable_list& inputs, Kind kind,
                                            int64_t event_ndim, const Wanted& wanted) {
  return with_kind(parse_kind(kind), [&](auto k) {
    return closed_form<NormalLogProbGradient<k.kValue>>(grad.scalar_type(), event_ndim, inputs, grad, inputs, wanted);
  });
}

class NormalLogProbBackward : public torch::autograd::Function<NormalLogProbBackward> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& mean, const Tensor& scale, const Tensor& x, Kind kind,
                        int64_t event_ndim) {
    static const auto op =
        find_op<Tensor(const Tensor&, const Tensor&, const Tensor&, Kind, int64_t)>("vae_ext::normal_log_prob");
    const at::AutoDispatchBelowADInplaceOrView guard;
    if (ctx) {
      ctx->save_for_backward({mean, scale, x});
      ctx->saved_data["kind"] = std::string(kind);
      ctx->saved_data["event_ndim"] = event_ndim;
    }
    return op.call(mean, scale, x, kind, event_ndim);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op =
        find_op<std::vector<Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Kind, int64_t, Wanted)>(
            "vae_ext::normal_log_prob_backward");
    const variable_list saved = ctx->get_saved_variables();
    const std::string kind = ctx->saved_data["kind"].toStringRef();
    const int64_t event_ndim = ctx->saved_data["event_ndim"].toInt();
    const Wanted wanted = wanted_gradients<3>(ctx, saved);
    if (!needs_closed_form(grads))
      return in_places(op.call(grads[0], saved[0], saved[1], saved[2], kind, event_ndim, wanted), wanted, 5);
    return in_places(only_wanted(differentiable_backward(grads[0], saved, kind, event_ndim, wanted), wanted), wanted,
                     5);
  }
};

Tensor autograd(const Tensor& mean, const Tensor& scale, const Tensor& x, Kind kind, int64_t event_ndim) {
  return any_requires_grad({mean, scale, x})
             ? NormalLogProbBackward::apply(mean, scale, x, kind, event_ndim)
             : NormalLogProbBackward::forward(nullptr, mean, scale, x, kind, event_ndim);
}

TORCH_LIBRARY_FRAGMENT(vae_ext, m) {
  m.def("normal_log_prob(Tensor mean, Tensor scale, Tensor x, str kind, int event_ndim) -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def(
      "normal_log_prob_backward(Tensor grad, Tensor mean, Tensor scale, Tensor x, str kind, int event_ndim, "
      "bool[3] wanted) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
  register_operator(m, "normal_log_prob", TORCH_FN(forward), TORCH_FN(backward), TORCH_FN(autograd));
}

}  // namespace
}  // namespace vae_ext

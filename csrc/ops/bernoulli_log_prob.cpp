#include "autograd.h"
#include "gradients.h"
#include "value.h"

namespace vae_ext {
namespace {

using Wanted = std::array<bool, 2>;

constexpr Kernel kForward = kOnEachDevice<&cpu::Kernels::bernoulli_log_prob, cuda::bernoulli_log_prob>;
constexpr Kernel kBackward =
    kOnEachDevice<&cpu::Kernels::bernoulli_log_prob_backward, cuda::bernoulli_log_prob_backward>;

Layout layout_of(const Tensor& logits, const Tensor& x, int64_t event_ndim) {
  return Layout(event_ndim, {{"logits", logits}, {"x", x, Role::data}});
}

Tensor forward(const Tensor& logits, const Tensor& x, int64_t event_ndim) {
  const Layout layout = layout_of(logits, x, event_ndim);
  return sum_rows(kForward, layout, Spec{}, with_dense_events({logits, x}, event_ndim));
}

std::vector<Tensor> backward(const Tensor& grad, const Tensor& logits, const Tensor& x, int64_t event_ndim,
                             Wanted wanted) {
  const Layout layout = layout_of(logits, x, event_ndim);
  return only_wanted(gradients(kBackward, layout, Spec{}, with_dense_events({logits, x}, event_ndim),
                               row_gradient(layout, "grad", grad), {logits, x}, wanted),
                     wanted);
}

class BernoulliLogProbBackward : public torch::autograd::Function<BernoulliLogProbBackward> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& logits, const Tensor& x, int64_t event_ndim) {
    static const auto op = find_op<Tensor(const Tensor&, const Tensor&, int64_t)>("vae_ext::bernoulli_log_prob");
    const at::AutoDispatchBelowADInplaceOrView guard;
    if (ctx) {
      ctx->save_for_backward({logits, x});
      ctx->saved_data["event_ndim"] = event_ndim;
    }
    return op.call(logits, x, event_ndim);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = find_op<std::vector<Tensor>(const Tensor&, const Tensor&, const Tensor&, int64_t, Wanted)>(
        "vae_ext::bernoulli_log_prob_backward");
    const variable_list saved = ctx->get_saved_variables();
    const int64_t event_ndim = ctx->saved_data["event_ndim"].toInt();
    const Wanted wanted = wanted_gradients<2>(ctx, saved);
    if (!needs_closed_form(grads))
      return in_places(op.call(grads[0], saved[0], saved[1], event_ndim, wanted), wanted, 3);
    return in_places(only_wanted(closed_form<BernoulliLogProbGradient>(grads[0].scalar_type(), event_ndim, saved,
                                                                       grads[0], saved, wanted),
                                 wanted),
                     wanted, 3);
  }
};

Tensor autograd(const Tensor& logits, const Tensor& x, int64_t event_ndim) {
  return any_requires_grad({logits, x}) ? BernoulliLogProbBackward::apply(logits, x, event_ndim)
                                        : BernoulliLogProbBackward::forward(nullptr, logits, x, event_ndim);
}

TORCH_LIBRARY_FRAGMENT(vae_ext, m) {
  m.def("bernoulli_log_prob(Tensor logits, Tensor x, int event_ndim) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("bernoulli_log_prob_backward(Tensor grad, Tensor logits, Tensor x, int event_ndim, bool[2] wanted) -> Tensor[]",
        {at::Tag::pt2_compliant_tag});
  register_operator(m, "bernoulli_log_prob", TORCH_FN(forward), TORCH_FN(backward), TORCH_FN(autograd));
}

}  // namespace
}  // namespace vae_ext

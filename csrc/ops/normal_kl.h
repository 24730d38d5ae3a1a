// What the operators with a KL or a prior share.
#pragma once

#include "autograd.h"
#include "gradients.h"

namespace vae_ext {

struct KlArguments {
  const Tensor& mean;
  const Tensor& scale;
  const OptionalTensor& prior_mean;
  const OptionalTensor& prior_scale;
  std::string_view kind;
  int64_t event_ndim;
};

constexpr Kernel kKlBackward = kOnEachDevice<&cpu::Kernels::normal_kl_backward, cuda::normal_kl_backward>;

Layout kl_layout(const KlArguments& arguments);
Spec kl_spec(const KlArguments& arguments);
// mean, scale, prior mean, prior scale, with dense events.
variable_list kl_inputs(const KlArguments& arguments);

// Where z is drawn too, its rows are those of mean and scale: a prior may not add batch dims to them.
void check_prior_batch(const Layout& layout, const KlArguments& arguments);

// vae_ext::normal_kl_backward for inputs = mean, scale, prior mean, prior scale; only the wanted gradients.
std::vector<Tensor> call_kl_backward(const Tensor& grad, const variable_list& inputs, std::string_view kind,
                                     int64_t event_ndim, std::array<bool, 4> wanted);

// The same as differentiable expressions, one for each input, undefined where not wanted.
std::vector<Tensor> differentiable_kl_backward(const Tensor& grad, const variable_list& inputs, std::string_view kind,
                                               int64_t event_ndim, c10::ArrayRef<bool> wanted);

}  // namespace vae_ext

// What the autograd kernels of the operators share.
#pragma once

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <array>

#include "layout.h"

namespace vae_ext {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

inline Tensor or_undefined(const OptionalTensor& tensor) { return tensor.value_or(Tensor()); }
inline OptionalTensor or_none(const Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; }

inline bool any_requires_grad(std::initializer_list<Tensor> tensors) {
  if (!at::GradMode::is_enabled()) return false;
  for (const Tensor& tensor : tensors)
    if (tensor.defined() && tensor.requires_grad()) return true;
  return false;
}

// Is the backward pass to be made of differentiable expressions, which can also be mapped over batched gradients?
inline bool needs_closed_form(const variable_list& grads) {
  if (at::GradMode::is_enabled()) return true;
  constexpr c10::DispatchKeySet kBatched({c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::Batched});
  for (const Tensor& grad : grads)
    if (grad.defined() && grad.key_set().has_any(kBatched)) return true;
  return false;
}

// Which of a node's first kCount inputs this backward pass wants a gradient for; only defined ones have an edge.
template <size_t kCount>
std::array<bool, kCount> wanted_gradients(const AutogradContext* ctx, const variable_list& inputs) {
  std::array<bool, kCount> wanted{};
  size_t edge = 0;
  for (size_t i = 0; i < kCount; ++i) wanted[i] = inputs[i].defined() && ctx->needs_input_grad(edge++);
  return wanted;
}

// The gradients an op returned, which are only those wanted, each in its input's place among all of the node's inputs.
template <size_t kCount>
variable_list in_places(const std::vector<Tensor>& gradients, const std::array<bool, kCount>& wanted, size_t inputs) {
  variable_list places(inputs);
  size_t next = 0;
  for (size_t i = 0; i < kCount; ++i)
    if (wanted[i]) places[i] = gradients[next++];
  return places;
}

// The reverse: from one gradient for each input to those that are wanted.
template <size_t kCount>
std::vector<Tensor> only_wanted(std::vector<Tensor> gradients, const std::array<bool, kCount>& wanted) {
  std::vector<Tensor> kept;
  for (size_t i = 0; i < kCount; ++i)
    if (wanted[i]) kept.push_back(std::move(gradients[i]));
  return kept;
}

template <class Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace vae_ext

// A value type for csrc/math that is a whole tensor: the formulas of the gradients, written once there, become
// differentiable ATen expressions here. That is how every operator is differentiable twice (and more).
#pragma once

#include <ATen/ATen.h>

#include "../math/bernoulli.h"
#include "../math/normal.h"
#include "layout.h"

namespace vae_ext {

struct Value {
  Tensor tensor;
  Value() = default;
  explicit Value(Tensor t) : tensor(std::move(t)) {}
  // 0-d, so that it does not widen what it meets, unless that is 0-d as well.
  explicit Value(double constant) : tensor(at::scalar_tensor(constant, at::kDouble)) {}
};

template <>
struct ScalarOf<Value> {
  using type = double;
};

inline Value operator+(const Value& a, const Value& b) { return Value(a.tensor + b.tensor); }
inline Value operator-(const Value& a, const Value& b) { return Value(a.tensor - b.tensor); }
inline Value operator*(const Value& a, const Value& b) { return Value(a.tensor * b.tensor); }
inline Value operator/(const Value& a, const Value& b) { return Value(a.tensor / b.tensor); }
inline Value operator-(const Value& a) { return Value(-a.tensor); }
inline Value fma(const Value& a, const Value& b, const Value& c) { return Value(a.tensor * b.tensor + c.tensor); }
inline Value exp(const Value& a) { return Value(at::exp(a.tensor)); }
inline Value expm1(const Value& a) { return Value(at::expm1(a.tensor)); }
inline Value sqrt(const Value& a) { return Value(at::sqrt(a.tensor)); }
inline Value sigmoid(const Value& a) { return Value(at::sigmoid(a.tensor)); }

// Formula::apply on whole tensors in the compute type, then each wanted output summed to the shape of its argument.
// An undefined input stands for zero; row_value has one value per row.
template <class Formula>
std::vector<Tensor> closed_form(at::ScalarType compute_type, int64_t event_ndim, at::TensorList inputs,
                                const Tensor& row_value, at::TensorList like, c10::ArrayRef<bool> wanted) {
  Value in[Formula::kInputs], out[Formula::kOutputs];
  for (size_t i = 0; i < inputs.size(); ++i)
    in[i] = inputs[i].defined() ? Value(inputs[i].to(compute_type)) : Value(0.0);
  Value row(0.0);
  if (row_value.defined()) {
    Tensor spread = row_value;
    for (int64_t d = 0; d < event_ndim; ++d) spread = spread.unsqueeze(-1);
    row = Value(spread);
  }
  Formula::apply(in, &row, out);
  // An output need not depend on every input, but it is summed over the rows and the event of all.
  std::vector<c10::SymInt> full = row.tensor.sym_sizes().vec();
  for (const Value& value : in) full = at::infer_size_symint(full, value.tensor.sym_sizes());
  std::vector<Tensor> results(like.size());
  for (size_t k = 0; k < like.size(); ++k) {
    if (!wanted[k]) continue;
    results[k] = at::sum_to(out[k].tensor.expand_symint(full), like[k].sym_sizes()).to(like[k].scalar_type());
  }
  return results;
}

}  // namespace vae_ext

#include "../math/elementary.h"

#include "kernels.h"

namespace vae_ext::cpu {
namespace {

template <class V>
VAE_EXT_INLINE V evaluate(Elementary function, V x) {
  switch (function) {
    case Elementary::exp:
      return exp(x);
    case Elementary::expm1:
      return expm1(x);
    case Elementary::expm1_minus_x:
      return expm1_minus_x(x);
    case Elementary::log:
      return log(x);
    case Elementary::log1p:
      return log1p(x);
    case Elementary::sigmoid:
      return sigmoid(x);
    case Elementary::sinpi:
      return sincospi(x).sin;
    case Elementary::cospi:
      return sincospi(x).cos;
  }
  return x;
}

void evaluate_scalars(Elementary function, const float* in, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = evaluate(function, in[i]);
}

void evaluate_vectors(Elementary function, const float* in, float* out, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, evaluate(function, load(in + i)));
  if (i == count) return;
  const int rest = static_cast<int>(count - i);
  store_partial(out + i, evaluate(function, load_partial(in + i, rest, 0.0f)), rest);
}

}  // namespace

template <>
void elementary<VAE_EXT_ISA>(Elementary function, bool scalar, const float* in, float* out, int64_t count) {
  scalar ? evaluate_scalars(function, in, out, count) : evaluate_vectors(function, in, out, count);
}

}  // namespace vae_ext::cpu

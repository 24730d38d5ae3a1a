// The Bernoulli log-likelihood of x under logits l, for one element, and its gradient.
#pragma once

#include "elementary.h"

namespace vae_ext {

// log p(x) = sum [x l - max(l, 0)] - log prod (1 + t),  t = e^-|l|.
// The product is kept minus one, q' + 1 = (q + 1)(1 + t), so that a t below the precision of 1 still counts; one
// logarithm then serves up to kMaxTerms elements (formula.h), since (1 + t) <= 2.
// in = logits, x.
struct BernoulliLogProb {
  static constexpr int kInputs = 2;
  // e^-|l| of the largest finite logit is zero, and so is everything else at x = 0.
  static VAE_EXT_INLINE constexpr double neutral(int i) {
    constexpr double kValues[kInputs] = {-3.0e38, 0.0};
    return kValues[i];
  }

  template <class V>
  struct Sum {
    V linear, product_minus_1;
  };
  template <class V>
  static VAE_EXT_INLINE Sum<V> zero() {
    return {constant<V>(0.0), constant<V>(0.0)};
  }
  template <class V>
  static VAE_EXT_INLINE void add(Sum<V>& sum, const V* in) {
    const V t = exp_decay(minus_absolute(in[0]));
    sum.linear = sum.linear + fma(in[1], in[0], -greater_of(constant<V>(0.0), in[0]));
    sum.product_minus_1 = fma(sum.product_minus_1, t, sum.product_minus_1 + t);
  }
  template <class V>
  static VAE_EXT_INLINE void merge(Sum<V>& sum, const Sum<V>& other) {
    sum.linear = sum.linear + other.linear;
    sum.product_minus_1 = fma(sum.product_minus_1, other.product_minus_1, sum.product_minus_1 + other.product_minus_1);
  }
  template <class V>
  static VAE_EXT_INLINE V value(const Sum<V>& sum) {
    return sum.linear - log1p(sum.product_minus_1);
  }
};

// in = logits, x; row = gradient of the log-likelihood; out = d logits, d x.
struct BernoulliLogProbGradient {
  static constexpr int kInputs = 2, kOutputs = 2;

  template <class V>
  static VAE_EXT_INLINE void apply(const V* in, const V* row, V* out) {
    out[0] = row[0] * (in[1] - sigmoid(in[0]));
    out[1] = row[0] * in[0];
  }
};

}  // namespace vae_ext

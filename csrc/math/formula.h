// What the loops of every device ask of a formula beyond the formula itself.
#pragma once

#include "vec.h"

namespace vae_ext {

// Terms that one Sum may take before its value is due: the product of a Bernoulli would overflow at 128.
constexpr int kMaxTerms = 64;

// A term that is simply added.
template <class Formula>
struct Plain : Formula {
  template <class V>
  struct Sum {
    V value;
  };
  template <class V>
  static VAE_EXT_INLINE Sum<V> zero() {
    return {constant<V>(0.0)};
  }
  template <class V>
  static VAE_EXT_INLINE void add(Sum<V>& sum, const V* in) {
    sum.value = sum.value + Formula::term(in);
  }
  template <class V>
  static VAE_EXT_INLINE void merge(Sum<V>& sum, const Sum<V>& other) {
    sum.value = sum.value + other.value;
  }
  template <class V>
  static VAE_EXT_INLINE V value(const Sum<V>& sum) {
    return sum.value;
  }
};

// One input as it is.
struct Identity {
  static constexpr int kInputs = 1, kOutputs = 1;
  static VAE_EXT_INLINE constexpr double neutral(int) { return 0.0; }

  template <class V>
  static VAE_EXT_INLINE V term(const V* in) {
    return in[0];
  }
  template <class V>
  static VAE_EXT_INLINE void apply(const V* in, const V*, V* out) {
    out[0] = in[0];
  }
};

// What a formula does for the samples after the first of a row: the same, unless it says otherwise.
template <class Formula>
constexpr bool kHasLater = requires { typename Formula::Later; };

// A formula whose epsilon, its last input, is of the standard distribution that the problem says. That of all others is
// normal, and they are spared the code and the registers.
template <class Formula>
struct OfAnyStandard : Formula {
  static constexpr bool kAnyStandard = true;
};
template <class Formula>
constexpr bool kAnyStandard = requires { Formula::kAnyStandard; };

}  // namespace vae_ext

// The standard distributions that epsilon of a location-scale family can have, each made of the four words of one
// counter. All but the normal take an element's own word w to the quantile at u = (w + 1/2) / 2^32, and so never fall
// as w rises. What they are computed from is the nearer tail, q = min(u, 1 - u), as fma(float32(v), 2^-32, 2^-33) with
// v = min(w, 2^32 - 1 - w): it is in [2^-33, 1/2], keeps its digits at either end, and lets none come out infinite.
#pragma once

#include "philox.h"
#include "standard_kind.h"

namespace vae_ext {

template <StandardKind>
struct Standard;

// A quantile that changes sign with the side: the upper half is given.
template <class V, class Side>
VAE_EXT_INLINE V symmetric(Side upper, V quantile) {
  return select(upper, quantile, -quantile);
}

// e^-|x| / 2.
template <>
struct Standard<StandardKind::laplace> {
  template <class V, class Side>
  static VAE_EXT_INLINE V quantile(Side upper, V q) {
    return symmetric(upper, -log_normal(q + q));
  }
};

// e^-x / (1 + e^-x)^2.
template <>
struct Standard<StandardKind::logistic> {
  template <class V, class Side>
  static VAE_EXT_INLINE V quantile(Side upper, V q) {
    // ln((1 - q) / q), without the loss near the median.
    return symmetric(upper, log1p((constant<V>(1.0f) - (q + q)) / q));
  }
};

// 1 on (0, 1).
template <>
struct Standard<StandardKind::uniform> {
  template <class V, class Side>
  static VAE_EXT_INLINE V quantile(Side upper, V q) {
    // 1 - q would round to 1.
    return select(upper, lesser_of(constant<V>(0.99999994f), constant<V>(1.0f) - q), q);
  }
};

// 1 - |x| on [-1, 1].
template <>
struct Standard<StandardKind::triangular> {
  template <class V, class Side>
  static VAE_EXT_INLINE V quantile(Side upper, V q) {
    return symmetric(upper, constant<V>(1.0f) - sqrt(q + q));
  }
};

// e^-(x + e^-x).
template <>
struct Standard<StandardKind::gumbel> {
  template <class V, class Side>
  static VAE_EXT_INLINE V quantile(Side upper, V q) {
    // -ln u is -ln(1 - q) on the upper side.
    const V minus_log_u = -select(upper, log1p(-q), log_normal(q));
    return -log_normal(minus_log_u);
  }
};

// 1 / (pi (1 + x^2)).
template <>
struct Standard<StandardKind::cauchy> {
  template <class V, class Side>
  static VAE_EXT_INLINE V quantile(Side upper, V q) {
    const SinCos<V> angle = sincospi(q);
    return symmetric(upper, angle.cos / angle.sin);
  }
};

// e^-x on (0, inf).
template <>
struct Standard<StandardKind::exponential> {
  template <class V, class Side>
  static VAE_EXT_INLINE V quantile(Side upper, V q) {
    // -ln(1 - u), in which 1 - u is q on the upper side.
    return -select(upper, log_normal(q), log1p(-q));
  }
};

// An element's epsilon, from its word.
template <StandardKind kStandard, class V, class W>
VAE_EXT_INLINE V variate_of(W word) {
  const auto signed_word = as_int(word), side = signed_word >> 31;  // all ones on the upper one
  const V q = fma(to_float(signed_word ^ side), constant<V>(2.32830644e-10f), constant<V>(1.16415322e-10f));
  return Standard<kStandard>::quantile(side < decltype(side)(0), q);
}

// The four numbers of one counter.
template <StandardKind kStandard, class V, class W>
VAE_EXT_INLINE void variates_of(const PhiloxWords<W>& words, V* out) {
  if constexpr (kStandard == StandardKind::normal) {
    normals_of(words, out);
  } else {
    out[0] = variate_of<kStandard, V>(words.word[0]);
    out[1] = variate_of<kStandard, V>(words.word[1]);
    out[2] = variate_of<kStandard, V>(words.word[2]);
    out[3] = variate_of<kStandard, V>(words.word[3]);
  }
}

// f of the standard distribution as a compile-time constant: standard.kValue.
template <StandardKind kStandard>
struct StandardConstant {
  static constexpr StandardKind kValue = kStandard;
};
template <class F>
VAE_EXT_INLINE auto with_standard(StandardKind standard, F f) {
  switch (standard) {
    case StandardKind::laplace:
      return f(StandardConstant<StandardKind::laplace>{});
    case StandardKind::logistic:
      return f(StandardConstant<StandardKind::logistic>{});
    case StandardKind::uniform:
      return f(StandardConstant<StandardKind::uniform>{});
    case StandardKind::triangular:
      return f(StandardConstant<StandardKind::triangular>{});
    case StandardKind::gumbel:
      return f(StandardConstant<StandardKind::gumbel>{});
    case StandardKind::cauchy:
      return f(StandardConstant<StandardKind::cauchy>{});
    case StandardKind::exponential:
      return f(StandardConstant<StandardKind::exponential>{});
    default:
      return f(StandardConstant<StandardKind::normal>{});
  }
}

}  // namespace vae_ext

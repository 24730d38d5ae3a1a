// The four ways to say how wide a Gaussian is. Each knows the standard deviation, its inverse, the log-variance, and
// how a gradient with respect to the log-variance or the standard deviation becomes one with respect to its parameter.
#pragma once

#include "elementary.h"
#include "scale_kind.h"

namespace vae_ext {

template <ScaleKind>
struct Scale;

template <>
struct Scale<ScaleKind::log_var> {
  template <class V>
  static VAE_EXT_INLINE V std(V s) {
    return exp(constant<V>(0.5) * s);
  }
  template <class V>
  static VAE_EXT_INLINE V inverse_std(V s) {
    return exp(constant<V>(-0.5) * s);
  }
  template <class V>
  static VAE_EXT_INLINE V log_var(V s) {
    return s;
  }
  // d log_var / d s * g
  template <class V>
  static VAE_EXT_INLINE V from_log_var(V g, V) {
    return g;
  }
  // d std / d s * g
  template <class V>
  static VAE_EXT_INLINE V from_std(V g, V s) {
    return constant<V>(0.5) * std(s) * g;
  }
  // r - 1 - ln r for the variance ratio r = var / prior var, and r - 1.
  template <class V>
  static VAE_EXT_INLINE V excess(V s, V prior) {
    return expm1_minus_x(s - prior);
  }
  template <class V>
  static VAE_EXT_INLINE V ratio_minus_1(V s, V prior) {
    return expm1(s - prior);
  }
  // The parameter's value at variance 1.
  static constexpr double kUnit = 0.0;
};

template <>
struct Scale<ScaleKind::log_std> {
  template <class V>
  static VAE_EXT_INLINE V std(V s) {
    return exp(s);
  }
  template <class V>
  static VAE_EXT_INLINE V inverse_std(V s) {
    return exp(-s);
  }
  template <class V>
  static VAE_EXT_INLINE V log_var(V s) {
    return s + s;
  }
  template <class V>
  static VAE_EXT_INLINE V from_log_var(V g, V) {
    return g + g;
  }
  template <class V>
  static VAE_EXT_INLINE V from_std(V g, V s) {
    return std(s) * g;
  }
  template <class V>
  static VAE_EXT_INLINE V excess(V s, V prior) {
    const V d = s - prior;
    return expm1_minus_x(d + d);
  }
  template <class V>
  static VAE_EXT_INLINE V ratio_minus_1(V s, V prior) {
    const V d = s - prior;
    return expm1(d + d);
  }
  static constexpr double kUnit = 0.0;
};

template <>
struct Scale<ScaleKind::std> {
  template <class V>
  static VAE_EXT_INLINE V std(V s) {
    return s;
  }
  template <class V>
  static VAE_EXT_INLINE V inverse_std(V s) {
    return constant<V>(1.0) / s;
  }
  template <class V>
  static VAE_EXT_INLINE V log_var(V s) {
    const V log_std = log(s);
    return log_std + log_std;
  }
  template <class V>
  static VAE_EXT_INLINE V from_log_var(V g, V s) {
    return (g + g) / s;
  }
  template <class V>
  static VAE_EXT_INLINE V from_std(V g, V) {
    return g;
  }
  // With q = std / prior std and t = q - 1: q^2 - 1 - 2 ln q = t^2 + 2 (t - ln q).
  template <class V>
  static VAE_EXT_INLINE V excess(V s, V prior) {
    const V t = (s - prior) / prior;
    const V rest = minus_log_quotient(t, s, prior);
    return fma(t, t, rest + rest);
  }
  template <class V>
  static VAE_EXT_INLINE V ratio_minus_1(V s, V prior) {
    const V t = (s - prior) / prior;
    return fma(t, t, t + t);
  }
  static constexpr double kUnit = 1.0;
};

template <>
struct Scale<ScaleKind::var> {
  template <class V>
  static VAE_EXT_INLINE V std(V s) {
    return sqrt(s);
  }
  template <class V>
  static VAE_EXT_INLINE V inverse_std(V s) {
    return constant<V>(1.0) / sqrt(s);
  }
  template <class V>
  static VAE_EXT_INLINE V log_var(V s) {
    return log(s);
  }
  template <class V>
  static VAE_EXT_INLINE V from_log_var(V g, V s) {
    return g / s;
  }
  template <class V>
  static VAE_EXT_INLINE V from_std(V g, V s) {
    return constant<V>(0.5) * g / sqrt(s);
  }
  template <class V>
  static VAE_EXT_INLINE V excess(V s, V prior) {
    return minus_log_quotient((s - prior) / prior, s, prior);
  }
  template <class V>
  static VAE_EXT_INLINE V ratio_minus_1(V s, V prior) {
    return (s - prior) / prior;
  }
  static constexpr double kUnit = 1.0;
};

// f of the kind as a compile-time constant: kind.kValue.
template <ScaleKind kKind>
struct KindConstant {
  static constexpr ScaleKind kValue = kKind;
};
template <class F>
VAE_EXT_HOST_INLINE auto with_kind(ScaleKind kind, F f) {
  switch (kind) {
    case ScaleKind::log_var:
      return f(KindConstant<ScaleKind::log_var>{});
    case ScaleKind::log_std:
      return f(KindConstant<ScaleKind::log_std>{});
    case ScaleKind::std:
      return f(KindConstant<ScaleKind::std>{});
    default:
      return f(KindConstant<ScaleKind::var>{});
  }
}

}  // namespace vae_ext

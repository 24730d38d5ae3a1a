// The Gaussian terms of the bound, for one element, and their gradients.
//
// A `term` is what one element adds to its datapoint's sum; the factor and the constant of the whole row stand in the
// comment and are applied by csrc/ops. An `apply` is elementwise: `in` are the element's operands, `row` the values
// that belong to its row, `out` what it writes. Operands are listed beside each struct in their order.
#pragma once

#include "scale.h"

namespace vae_ext {

constexpr double kLog2Pi = 1.8378770664093454836;

// log N(x; mean, var) = -1/2 sum [log var + ((x - mean) / std)^2] - D/2 log 2 pi.
// in = mean, scale, x.
template <ScaleKind kKind>
struct NormalLogProb {
  using S = Scale<kKind>;
  static constexpr int kInputs = 3;
  // Operands whose term is zero, to fill up the last vector of a row.
  static VAE_EXT_INLINE constexpr double neutral(int i) {
    constexpr double kValues[kInputs] = {0.0, S::kUnit, 0.0};
    return kValues[i];
  }

  template <class V>
  static VAE_EXT_INLINE V term(const V* in) {
    const V residual = (in[2] - in[0]) * S::inverse_std(in[1]);
    return fma(residual, residual, S::log_var(in[1]));
  }
};

// row = gradient of the log-likelihood; out = d mean, d scale, d x.
template <ScaleKind kKind>
struct NormalLogProbGradient {
  using S = Scale<kKind>;
  static constexpr int kInputs = 3, kOutputs = 3;

  template <class V>
  static VAE_EXT_INLINE void apply(const V* in, const V* row, V* out) {
    const V root = S::inverse_std(in[1]);
    const V residual = (in[2] - in[0]) * root;
    const V half = constant<V>(0.5) * row[0];
    out[0] = row[0] * residual * root;
    out[1] = S::from_log_var(half * fma(residual, residual, constant<V>(-1.0)), in[1]);
    out[2] = -out[0];
  }
};

// The prior of a KL or a log ratio: N(in[0], scale in[1]), or of variance 1 where no scale is given, of which then
// nothing is computed.
template <ScaleKind kKind, bool kPriorScale>
struct Prior {
  using S = Scale<kKind>;
  template <class V>
  static VAE_EXT_INLINE V scale(const V* in) {
    if constexpr (kPriorScale) return in[1];
    return constant<V>(S::kUnit);
  }
  template <class V>
  static VAE_EXT_INLINE V inverse_std(const V* in) {
    if constexpr (kPriorScale) return S::inverse_std(in[1]);
    return constant<V>(1.0);
  }
  template <class V>
  static VAE_EXT_INLINE V log_var(const V* in) {
    if constexpr (kPriorScale) return S::log_var(in[1]);
    return constant<V>(0.0);
  }
};

// KL(N(mean, var) || N(prior mean, prior var)) = 1/2 sum [r - 1 - log r + ((mean - prior mean) / prior std)^2] with
// r = var / prior var.
// in = mean, scale, prior mean, prior scale.
template <ScaleKind kKind, bool kPriorScale>
struct NormalKl {
  using S = Scale<kKind>;
  using P = Prior<kKind, kPriorScale>;
  static constexpr int kInputs = 4;
  static VAE_EXT_INLINE constexpr double neutral(int i) {
    constexpr double kValues[kInputs] = {0.0, S::kUnit, 0.0, S::kUnit};
    return kValues[i];
  }

  template <class V>
  static VAE_EXT_INLINE V term(const V* in) {
    const V distance = (in[0] - in[2]) * P::inverse_std(in + 2);
    return fma(distance, distance, S::excess(in[1], P::scale(in + 2)));
  }
};

// row = gradient of the KL; out = d mean, d scale, d prior mean, d prior scale.
template <ScaleKind kKind, bool kPriorScale>
struct NormalKlGradient {
  using S = Scale<kKind>;
  using P = Prior<kKind, kPriorScale>;
  static constexpr int kInputs = 4, kOutputs = 4;

  template <class V>
  static VAE_EXT_INLINE void apply(const V* in, const V* row, V* out) {
    const V root = P::inverse_std(in + 2);
    const V distance = (in[0] - in[2]) * root;
    const V half = constant<V>(0.5) * row[0];
    // r - 1 as one quantity, exact near the prior, where the gradient vanishes.
    const V ratio_minus_1 = S::ratio_minus_1(in[1], P::scale(in + 2));
    out[0] = row[0] * distance * root;
    out[1] = S::from_log_var(half * ratio_minus_1, in[1]);
    out[2] = -out[0];
    out[3] = S::from_log_var(-half * fma(distance, distance, ratio_minus_1), P::scale(in + 2));
  }
};

// z = mean + std * epsilon.
// in = mean, scale, epsilon.
template <ScaleKind kKind>
struct NormalRsample {
  static constexpr int kInputs = 3, kOutputs = 1;

  template <class V>
  static VAE_EXT_INLINE void apply(const V* in, const V*, V* out) {
    out[0] = fma(Scale<kKind>::std(in[1]), in[2], in[0]);
  }
};

// in = scale, gradient of z, epsilon; out = d mean, d scale.
template <ScaleKind kKind>
struct NormalRsampleGradient {
  static constexpr int kInputs = 3, kOutputs = 2;

  template <class V>
  static VAE_EXT_INLINE void apply(const V* in, const V*, V* out) {
    out[0] = in[1];
    out[1] = Scale<kKind>::from_std(in[1] * in[2], in[0]);
  }
};

// The gradients of z and of the KL in one pass.
// in = mean, scale, prior mean, prior scale, gradient of z, epsilon; row = gradient of the KL; out = d mean, d scale.
template <ScaleKind kKind, bool kPriorScale>
struct NormalRsampleKlGradient {
  static constexpr int kInputs = 6, kOutputs = 2;

  template <class V>
  static VAE_EXT_INLINE void apply(const V* in, const V* row, V* out) {
    V kl[4];
    NormalKlGradient<kKind, kPriorScale>::apply(in, row, kl);
    out[0] = in[4] + kl[0];
    out[1] = Scale<kKind>::from_std(in[4] * in[5], in[1]) + kl[1];
  }

  // The KL counts once, with the first sample.
  struct Later {
    static constexpr int kInputs = 6, kOutputs = 2;

    template <class V>
    static VAE_EXT_INLINE void apply(const V* in, const V* row, V* out) {
      const V sample[3] = {in[1], in[4], in[5]};
      NormalRsampleGradient<kKind>::apply(sample, row, out);
    }
  };
};

// log p(z) - log q(z given x) = 1/2 sum [log var - log prior var + ((z - mean) / std)^2
//                                        - ((z - prior mean) / prior std)^2].
// in = mean, scale, prior mean, prior scale, z.
template <ScaleKind kKind, bool kPriorScale>
struct NormalLogRatio {
  using S = Scale<kKind>;
  using P = Prior<kKind, kPriorScale>;
  static constexpr int kInputs = 5;
  static VAE_EXT_INLINE constexpr double neutral(int i) {
    constexpr double kValues[kInputs] = {0.0, S::kUnit, 0.0, S::kUnit, 0.0};
    return kValues[i];
  }

  template <class V>
  static VAE_EXT_INLINE V term(const V* in) {
    const V posterior = (in[4] - in[0]) * S::inverse_std(in[1]);
    const V prior = (in[4] - in[2]) * P::inverse_std(in + 2);
    const V log_ratio = S::log_var(in[1]) - P::log_var(in + 2);
    return fma(posterior, posterior, fma(-prior, prior, log_ratio));
  }
};

// The gradient of r through z = mean + std * epsilon with epsilon held: (z - mean) / std is then constant, and
// d log q / d log_var = -1/2.
// in = scale, prior mean, prior scale, z, gradient of z, epsilon; row = gradient of r;
// out = d mean, d scale, d prior mean, d prior scale.
template <ScaleKind kKind, bool kPriorScale>
struct NormalLogRatioGradient {
  using S = Scale<kKind>;
  using P = Prior<kKind, kPriorScale>;
  static constexpr int kInputs = 6, kOutputs = 4;

  template <class V>
  static VAE_EXT_INLINE void apply(const V* in, const V* row, V* out) {
    const V root = P::inverse_std(in + 1);
    const V prior = (in[3] - in[1]) * root;
    const V half = constant<V>(0.5) * row[0];
    out[2] = row[0] * prior * root;
    out[0] = in[4] - out[2];
    out[1] = S::from_log_var(half, in[0]) + S::from_std(out[0] * in[5], in[0]);
    out[3] = S::from_log_var(half * fma(prior, prior, constant<V>(-1.0)), P::scale(in + 1));
  }
};

}  // namespace vae_ext

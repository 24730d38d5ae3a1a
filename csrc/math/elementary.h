// Elementary functions in float32: range reduction and polynomials made of +, -, *, explicit fma, IEEE sqrt and
// division, and bit operations, so that a vector lane, a scalar and a CUDA thread give the same bits. The errors stated
// are the largest found over all float32 arguments (tests/test_elementary.py). Coefficients: tools/minimax.py.
//
// float64 promises accuracy, not bits, and uses the standard library.
#pragma once

#include "vec.h"

namespace vae_ext {

constexpr float kLog2E = 1.44269504f;
// ln 2 in two parts; the first has 15 trailing zero bits, so that n * kLn2High is exact for |n| < 2^15.
constexpr float kLn2High = 0.693359375f;
constexpr float kLn2Low = -2.12194440e-4f;
constexpr float kInfinity = __builtin_inff();
constexpr float kNaN = __builtin_nanf("");

template <class V>
VAE_EXT_INLINE V polynomial(V, float last) {
  return constant<V>(last);
}
// first + x * (second + x * ( ... )), by Horner's rule.
template <class V, class... Rest>
VAE_EXT_INLINE V polynomial(V x, float first, Rest... rest) {
  return fma(x, polynomial(x, rest...), constant<V>(first));
}

// (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2.
template <class V>
VAE_EXT_INLINE V exp_tail(V r) {
  return polynomial(r, 0.5f, 0.166666672f, 0.0416664667f, 0.00833337288f, 0.00139336137f, 0.00019849524f);
}
// (f - log(1 + f)) / f^2 for sqrt(1/2) <= 1 + f <= sqrt(2).
template <class V>
VAE_EXT_INLINE V log_tail(V f) {
  return polynomial(f, 0.49999997f, -0.333333343f, 0.250007838f, -0.200008959f, 0.16626279f, -0.142122254f,
                    0.131389305f, -0.12676324f, 0.0758516565f);
}

// x = n ln 2 + r, n integral, |r| <= ln(2) / 2.
template <class V>
struct ExpArgument {
  V n, r;
};
template <class V>
VAE_EXT_INLINE ExpArgument<V> reduce_exp(V x) {
  const V n = rint(x * constant<V>(kLog2E));
  return {n, fma(n, constant<V>(-kLn2Low), fma(n, constant<V>(-kLn2High), x))};
}

// e^x for x <= 0 or NaN: the part of exp that a sigmoid or a Bernoulli needs.
template <class V>
VAE_EXT_INLINE V exp_nonpositive(V x) {
  // Below -104 the result is zero; the clamp keeps 2^n in range.
  const ExpArgument<V> a = reduce_exp(greater_of(constant<V>(-104.0f), x));
  return scale2(fma(a.r * a.r, exp_tail(a.r), a.r) + constant<V>(1.0f), a.n);
}

// e^x for x <= 0 or NaN, for sums over many: a few operations less than exp, at a relative error below
// 2e-7 + |x| 2^-26, which is of no account beside the terms that make x large.
template <class V>
VAE_EXT_INLINE V exp_decay(V x) {
  const V bounded = greater_of(constant<V>(-104.0f), x);
  const V n = rint(bounded * constant<V>(kLog2E));
  const V f = fma(bounded, constant<V>(kLog2E), -n);
  // 2^f for |f| <= 1/2.
  const V p =
      polynomial(f, 1.0f, 0.693147182f, 0.240226477f, 0.0555032901f, 0.00961837359f, 0.00133998482f, 0.000153707049f);
  return scale2(p, n);
}

// e^x. Error below 1 ulp, denormal results included.
template <class V>
VAE_EXT_INLINE V exp(V x) {
  return exp_nonpositive(lesser_of(constant<V>(89.0f), x));
}

// e^x - 1. Error below 1.5 ulp.
template <class V>
VAE_EXT_INLINE V expm1(V x) {
  // Below -20 the result is -1; above 89 it overflows.
  const ExpArgument<V> a = reduce_exp(lesser_of(constant<V>(89.0f), greater_of(constant<V>(-20.0f), x)));
  const V r_plus_tail = fma(a.r * a.r, exp_tail(a.r), a.r);
  // Half of it first: 2^n overflows before e^x does.
  const V half = scale2(constant<V>(0.5f), a.n);
  const V sum = fma(half, r_plus_tail, half - constant<V>(0.5f));
  // Where n = 0 nothing is to be scaled, and a denormal would be rounded twice.
  const V small = select(x == constant<V>(0.0f), x, r_plus_tail);
  return select(a.n == constant<V>(0.0f), small, sum + sum);
}

// e^x - 1 - x: the excess of a variance ratio in the Gaussian KL. Error below 2.1 ulp for |x| < ln(2) / 2, where the
// subtraction would cancel, and below 10 ulp elsewhere (where the result is below 2^-124: 2^-147).
template <class V>
VAE_EXT_INLINE V expm1_minus_x(V x) {
  const V low = constant<V>(-100.0f);
  const ExpArgument<V> a = reduce_exp(lesser_of(constant<V>(89.0f), greater_of(low, x)));
  // With x = n ln 2 + r: 2^n (e^r - 1 - r) + (2^n - 1)(1 + r) - n ln 2, of which n = 0 leaves the first alone. Half of
  // it first: 2^n overflows before e^x does.
  const V half = scale2(constant<V>(0.5f), a.n);
  const V half_less = half - constant<V>(0.5f);
  const V shift = fma(a.n, constant<V>(-0.5f * 0.693147182f), fma(half_less, a.r, half_less));
  const V sum = fma(half * (a.r * a.r), exp_tail(a.r), shift);
  return select(x < low, constant<V>(-1.0f) - x, sum + sum);
}

// A positive normal x = 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2).
template <class V>
struct LogArgument {
  V e, f;
};
template <class V>
VAE_EXT_INLINE LogArgument<V> reduce_log(V x) {
  using Bits = decltype(float_bits(x));
  const Bits bits = float_bits(x);
  const auto exponent = as_int(bits - Bits(0x3F3504F4)) >> 23;
  return {to_float(exponent), bits_float(bits - (as_uint(exponent) << 23)) - constant<V>(1.0f)};
}
template <class V>
VAE_EXT_INLINE V log_of(LogArgument<V> a) {
  const V low = fma(a.e, constant<V>(kLn2Low), -(a.f * a.f * log_tail(a.f)));
  return fma(a.e, constant<V>(kLn2High), a.f + low);
}
template <class V>
VAE_EXT_INLINE V log_normal(V x) {
  return log_of(reduce_log(x));
}

// ln x. Error below 1 ulp; -inf at zero, NaN below it, denormal arguments included.
template <class V>
VAE_EXT_INLINE V log(V x) {
  const auto denormal = x < constant<V>(1.17549435e-38f);
  LogArgument<V> a = reduce_log(select(denormal, x * constant<V>(16777216.0f), x));
  a.e = select(denormal, a.e - constant<V>(24.0f), a.e);
  const V edge = select(x == constant<V>(0.0f), constant<V>(-kInfinity), constant<V>(kNaN));
  const V finite = select(x > constant<V>(0.0f), log_of(a), edge);
  return select(x == constant<V>(kInfinity), x, finite);
}

// ln(1 + x). Error below 1.6 ulp.
template <class V>
VAE_EXT_INLINE V log1p(V x) {
  const V u = constant<V>(1.0f) + x;
  LogArgument<V> a = reduce_log(u);
  // What rounding took from 1 + x goes back in, at the scale of f. Beyond 2^24 nothing was taken.
  const V lost = x - (u - constant<V>(1.0f));
  a.f = fma(lost, pow2(to_int(-lesser_of(constant<V>(64.0f), a.e))), a.f);
  const V edge = select(u == constant<V>(0.0f), constant<V>(-kInfinity), constant<V>(kNaN));
  const V finite = select(u > constant<V>(0.0f), log_of(a), edge);
  // Where 1 + x rounds to 1 and at infinity, x itself.
  return select(absolute(x) < constant<V>(2.98023224e-8f), x, select(x == constant<V>(kInfinity), x, finite));
}

// ln(a / b) for positive a and b, even where a / b would underflow; where it overflows, that of the largest number.
template <class V>
VAE_EXT_INLINE V log_quotient(V a, V b) {
  // Below 2^-127; scaled on both sides, since a product that is denormal is slow.
  const auto small = a * constant<V>(0x1p100) < b * constant<V>(0x1p-27);
  const V quotient = select(small, a * constant<V>(0x1p127), a) / b;
  const V log_scaled = log(lesser_of(constant<V>(3.40282347e38f), quotient));
  return select(small, log_scaled - constant<V>(127.0 * 0.693147180559945309), log_scaled);
}

// t - ln(a / b), where t is a / b - 1 and known better than by that subtraction: exact to a few ulp near 1, and
// infinite where t is.
template <class V>
VAE_EXT_INLINE V minus_log_quotient(V t, V a, V b) {
  const auto near = absolute(t) < constant<V>(0.28f);
  return select(near, t * t * log_tail(select(near, t, constant<V>(0.0f))), t - log_quotient(a, b));
}

// 1 / (1 + e^-x). Error below 2.5 ulp.
template <class V>
VAE_EXT_INLINE V sigmoid(V x) {
  const V t = exp_nonpositive(minus_absolute(x));
  return select(x < constant<V>(0.0f), t, constant<V>(1.0f)) / (constant<V>(1.0f) + t);
}

template <class V>
struct SinCos {
  V sin, cos;
};
// sin and cos of pi (quadrant / 2 + r) for |r| <= 1/4, where the quadrant, mod 4, is in the two high bits of `turn`.
template <class V, class Bits>
VAE_EXT_INLINE SinCos<V> sincospi_of(Bits turn, V r) {
  const V s = r * r;
  const V odd = polynomial(s, -8.74227766e-8f, -5.16771269f, 2.55016279f, -0.599205673f, 0.0810270533f);
  const V sin = fma(r, constant<V>(3.14159274f), r * odd);
  const V cos = polynomial(s, 1.0f, -4.93480206f, 4.05870771f, -1.33505690f, 0.231417716f);
  const Bits sign(0x80000000u), quarter(0x40000000u);
  const auto swapped = (turn & quarter) == quarter;
  return {bits_float(float_bits(select(swapped, cos, sin)) ^ (turn & sign)),
          bits_float(float_bits(select(swapped, sin, cos)) ^ ((turn + quarter) & sign))};
}

// sin(pi x) and cos(pi x). Errors below 1 ulp; NaN at infinity.
template <class V>
VAE_EXT_INLINE SinCos<V> sincospi(V x) {
  // To |y| <= 1, then y = n / 2 + r, both exactly.
  const V y = fma(rint(x * constant<V>(0.5f)), constant<V>(-2.0f), x);
  const V n = rint(y + y);
  SinCos<V> result = sincospi_of(as_uint(to_int(n)) << 30, fma(n, constant<V>(-0.5f), y));
  result.sin = select(x == constant<V>(0.0f), x, result.sin);
  return result;
}

// sin and cos of 2 pi w / 2^32 for a 32-bit word w.
template <class V, class Bits>
VAE_EXT_INLINE SinCos<V> sincos_of_word(Bits w) {
  const Bits turn = w + Bits(0x20000000u);
  const auto rest = as_int((turn & Bits(0x3FFFFFFFu)) - Bits(0x20000000u));
  return sincospi_of(turn, to_float(rest) * constant<V>(4.65661287e-10f));
}

// float64.

VAE_EXT_INLINE double exp(double x) { return ::exp(x); }
VAE_EXT_INLINE double exp_nonpositive(double x) { return ::exp(x); }
VAE_EXT_INLINE double exp_decay(double x) { return ::exp(x); }
VAE_EXT_INLINE double expm1(double x) { return ::expm1(x); }
VAE_EXT_INLINE double log(double x) { return ::log(x); }
VAE_EXT_INLINE double log1p(double x) { return ::log1p(x); }
VAE_EXT_INLINE double sigmoid(double x) {
  const double t = ::exp(-::fabs(x));
  return (x < 0 ? t : 1.0) / (1.0 + t);
}
VAE_EXT_INLINE double expm1_minus_x(double x) {
  if (!(::fabs(x) < 0.01)) return ::expm1(x) - x;
  return x * x * (1.0 / 2 + x * (1.0 / 6 + x * (1.0 / 24 + x * (1.0 / 120 + x * (1.0 / 720 + x * (1.0 / 5040))))));
}
VAE_EXT_INLINE double log_quotient(double a, double b) {
  const double quotient = a / b;
  if (quotient < 2.2250738585072014e-308) return ::log(a) - ::log(b);
  return ::log(lesser_of(1.7976931348623157e308, quotient));
}
VAE_EXT_INLINE double minus_log_quotient(double t, double a, double b) {
  if (!(::fabs(t) < 0.01)) return t - log_quotient(a, b);
  return t * t * (1.0 / 2 - t * (1.0 / 3 - t * (1.0 / 4 - t * (1.0 / 5 - t * (1.0 / 6 - t * (1.0 / 7 - t / 8))))));
}

#if !defined(__CUDACC__)
// A call for each lane, out of line: inlined, they would be most of what a kernel is compiled for.
template <double (*kFunction)(double)>
VAE_EXT_NOINLINE static Vec<double> call_each_lane(const Vec<double>& x) {
  return each_lane(kFunction, x);
}
VAE_EXT_NOINLINE static Vec<double> minus_log_quotient(const Vec<double>& t, const Vec<double>& a,
                                                       const Vec<double>& b) {
  double x[kLanes], y[kLanes], z[kLanes];
  store(x, t);
  store(y, a);
  store(z, b);
  for (int i = 0; i < kLanes; ++i) x[i] = minus_log_quotient(x[i], y[i], z[i]);
  return load(x);
}
VAE_EXT_INLINE Vec<double> exp(const Vec<double>& x) { return call_each_lane<::exp>(x); }
VAE_EXT_INLINE Vec<double> exp_nonpositive(const Vec<double>& x) { return call_each_lane<::exp>(x); }
VAE_EXT_INLINE Vec<double> exp_decay(const Vec<double>& x) { return call_each_lane<::exp>(x); }
VAE_EXT_INLINE Vec<double> expm1(const Vec<double>& x) { return call_each_lane<::expm1>(x); }
VAE_EXT_INLINE Vec<double> log(const Vec<double>& x) { return call_each_lane<::log>(x); }
VAE_EXT_INLINE Vec<double> log1p(const Vec<double>& x) { return call_each_lane<::log1p>(x); }
VAE_EXT_INLINE Vec<double> sigmoid(const Vec<double>& x) { return call_each_lane<sigmoid>(x); }
VAE_EXT_INLINE Vec<double> expm1_minus_x(const Vec<double>& x) { return call_each_lane<expm1_minus_x>(x); }
#endif

}  // namespace vae_ext

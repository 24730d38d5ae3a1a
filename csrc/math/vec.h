// The value types every formula of csrc/math is written for: a 16-lane vector on CPUs, and the plain scalar, which is
// also what a CUDA thread holds. All of them give the same float32 bits: each operation here is one correctly rounded
// IEEE operation (or exact) on every instruction set. This is the only file with intrinsics.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "inline.h"

#if !defined(__CUDACC__) && (defined(__AVX512F__) || defined(__AVX2__))
#include <immintrin.h>
#endif

namespace vae_ext {

// The scalar value type.

template <class To, class From>
VAE_EXT_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

VAE_EXT_INLINE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
VAE_EXT_INLINE double fma(double a, double b, double c) { return ::fma(a, b, c); }
VAE_EXT_INLINE float sqrt(float a) { return ::sqrtf(a); }
VAE_EXT_INLINE double sqrt(double a) { return ::sqrt(a); }
VAE_EXT_INLINE float rint(float a) { return ::rintf(a); }
VAE_EXT_INLINE float select(bool mask, float a, float b) { return mask ? a : b; }
VAE_EXT_INLINE double select(bool mask, double a, double b) { return mask ? a : b; }
VAE_EXT_INLINE int32_t select(bool mask, int32_t a, int32_t b) { return mask ? a : b; }
VAE_EXT_INLINE uint32_t select(bool mask, uint32_t a, uint32_t b) { return mask ? a : b; }
// Bits are unsigned: their arithmetic wraps.
VAE_EXT_INLINE uint32_t float_bits(float a) { return bit_cast<uint32_t>(a); }
VAE_EXT_INLINE float bits_float(uint32_t a) { return bit_cast<float>(a); }
// Of an integral value that fits; anything else gives some integer, never a trap.
#if defined(__CUDA_ARCH__)
VAE_EXT_INLINE int32_t to_int(float a) { return __float2int_rn(a); }
#else
VAE_EXT_INLINE int32_t to_int(float a) { return a > -2e9f && a < 2e9f ? static_cast<int32_t>(a) : 0; }
#endif
VAE_EXT_INLINE float to_float(int32_t a) { return static_cast<float>(a); }
VAE_EXT_INLINE float to_float(uint32_t a) { return static_cast<float>(a); }
VAE_EXT_INLINE int32_t as_int(uint32_t a) { return static_cast<int32_t>(a); }
VAE_EXT_INLINE uint32_t as_uint(int32_t a) { return static_cast<uint32_t>(a); }
VAE_EXT_INLINE float greater_of(float a, float b) { return a > b ? a : b; }
VAE_EXT_INLINE double greater_of(double a, double b) { return a > b ? a : b; }
VAE_EXT_INLINE float lesser_of(float a, float b) { return a < b ? a : b; }
VAE_EXT_INLINE double lesser_of(double a, double b) { return a < b ? a : b; }
VAE_EXT_INLINE uint32_t pair_words(uint32_t a) { return a; }
VAE_EXT_INLINE uint32_t unpair_words(uint32_t a) { return a; }
VAE_EXT_INLINE void mul_wide(uint32_t a, uint32_t b, uint32_t* high, uint32_t* low) {
  // A CUDA compiler makes this one instruction.
  const uint64_t product = static_cast<uint64_t>(a) * b;
  *high = static_cast<uint32_t>(product >> 32);
  *low = static_cast<uint32_t>(product);
}

// bfloat16 and IEEE binary16, as they are stored.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};
// Both round to nearest even and keep a NaN a quiet NaN.
VAE_EXT_INLINE float bfloat16_to_float(uint16_t b) { return bits_float(static_cast<uint32_t>(b) << 16); }
VAE_EXT_INLINE uint16_t float_to_bfloat16(float a) {
  const uint32_t bits = float_bits(a);
  const uint32_t rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
  return static_cast<uint16_t>((a == a ? rounded : 0x7FC00000u) >> 16);
}
#if defined(__CUDA_ARCH__)
VAE_EXT_INLINE float half_to_float(uint16_t h) {
  float a;
  asm("cvt.f32.f16 %0, %1;" : "=f"(a) : "h"(h));
  return a;
}
VAE_EXT_INLINE uint16_t float_to_half(float a) {
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(a));
  return h;
}
#else
// For machines without the instruction.
VAE_EXT_INLINE float half_to_float(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, magnitude = h & 0x7FFFu;
  if (magnitude >= 0x7C00u) {
    const uint32_t quiet = magnitude > 0x7C00u ? 0x00400000u : 0u;
    return bits_float(sign | 0x7F800000u | quiet | (magnitude & 0x3FFu) << 13);
  }
  // As float32 bits the value is 2^112 too small, denormals included: one exact multiplication.
  return bits_float(sign | float_bits(bits_float(magnitude << 13) * bits_float(0x77800000u)));
}
VAE_EXT_INLINE uint16_t float_to_half(float a) {
  const uint32_t sign = float_bits(a) >> 16 & 0x8000u, magnitude = float_bits(a) & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u | (magnitude >> 13 & 0x3FFu));
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude < 0x38800000u) {
    // Denormal in binary16: adding 1/2 leaves the rounded multiple of 2^-24 in the low bits.
    return static_cast<uint16_t>(sign | (float_bits(bits_float(magnitude) + 0.5f) - 0x3F000000u));
  }
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13));
}
#endif

// The 16-lane vector.

#if !defined(__CUDACC__)

// Part of the result, not of the machine: sums are laid out over lanes.
constexpr int kLanes = 16;

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif

template <class T>
struct Register {
  typedef T type __attribute__((vector_size(kRegisterBytes)));
  static constexpr int kWidth = kRegisterBytes / sizeof(T);
  static constexpr int kCount = kLanes / kWidth;
};

// kLanes values of T in as many registers as it takes. Comparisons give lanes of 0 or -1, as GCC's vectors do.
template <class T>
struct Vec {
  using Reg = typename Register<T>::type;
  static constexpr int kWidth = Register<T>::kWidth;
  static constexpr int kCount = Register<T>::kCount;
  Reg reg[kCount];

  Vec() = default;
  VAE_EXT_INLINE explicit Vec(T value) {
    for (Reg& r : reg) r = Reg{} + value;
  }
};

template <class T>
struct IntOf;
template <>
struct IntOf<float> {
  using type = int32_t;
};
template <>
struct IntOf<double> {
  using type = int64_t;
};
template <>
struct IntOf<int32_t> {
  using type = int32_t;
};
template <>
struct IntOf<uint32_t> {
  using type = int32_t;
};
template <class T>
using Mask = Vec<typename IntOf<T>::type>;

template <class T, class F>
VAE_EXT_INLINE Vec<T> each(F f, const Vec<T>& a) {
  Vec<T> r;
  for (int i = 0; i < Vec<T>::kCount; ++i) r.reg[i] = f(a.reg[i]);
  return r;
}
template <class T, class F>
VAE_EXT_INLINE Vec<T> each(F f, const Vec<T>& a, const Vec<T>& b) {
  Vec<T> r;
  for (int i = 0; i < Vec<T>::kCount; ++i) r.reg[i] = f(a.reg[i], b.reg[i]);
  return r;
}
template <class T, class F>
VAE_EXT_INLINE Mask<T> compare(F f, const Vec<T>& a, const Vec<T>& b) {
  Mask<T> r;
  for (int i = 0; i < Vec<T>::kCount; ++i) r.reg[i] = f(a.reg[i], b.reg[i]);
  return r;
}

#define VAE_EXT_LANEWISE(op)                                            \
  template <class T>                                                    \
  VAE_EXT_INLINE Vec<T> operator op(const Vec<T>& a, const Vec<T>& b) { \
    return each<T>([](auto x, auto y) { return x op y; }, a, b);        \
  }
VAE_EXT_LANEWISE(+)
VAE_EXT_LANEWISE(-)
VAE_EXT_LANEWISE(*)
VAE_EXT_LANEWISE(/)
VAE_EXT_LANEWISE(&)
VAE_EXT_LANEWISE(|)
VAE_EXT_LANEWISE(^)
#undef VAE_EXT_LANEWISE

template <class T>
VAE_EXT_INLINE Vec<T> operator-(const Vec<T>& a) {
  return each<T>([](auto x) { return -x; }, a);
}
template <class T>
VAE_EXT_INLINE Vec<T> operator<<(const Vec<T>& a, int bits) {
  return each<T>([bits](auto x) { return x << bits; }, a);
}
template <class T>
VAE_EXT_INLINE Vec<T> operator>>(const Vec<T>& a, int bits) {
  return each<T>([bits](auto x) { return x >> bits; }, a);
}
template <class T>
VAE_EXT_INLINE Mask<T> operator<(const Vec<T>& a, const Vec<T>& b) {
  return compare<T>([](auto x, auto y) { return x < y; }, a, b);
}
template <class T>
VAE_EXT_INLINE Mask<T> operator>(const Vec<T>& a, const Vec<T>& b) {
  return b < a;
}
template <class T>
VAE_EXT_INLINE Mask<T> operator==(const Vec<T>& a, const Vec<T>& b) {
  return compare<T>([](auto x, auto y) { return x == y; }, a, b);
}
template <class T>
VAE_EXT_INLINE Vec<T> select(const Mask<T>& mask, const Vec<T>& a, const Vec<T>& b) {
  Vec<T> r;
  for (int i = 0; i < Vec<T>::kCount; ++i) r.reg[i] = mask.reg[i] ? a.reg[i] : b.reg[i];
  return r;
}

// float -> int32 truncates, uint32 -> float rounds to nearest, integers widen or wrap.
template <class To, class From>
VAE_EXT_INLINE Vec<To> convert(const Vec<From>& a) {
  static_assert(sizeof(To) == sizeof(From), "registers correspond one to one");
  Vec<To> r;
  for (int i = 0; i < Vec<To>::kCount; ++i) r.reg[i] = __builtin_convertvector(a.reg[i], typename Vec<To>::Reg);
  return r;
}
template <class To, class From>
VAE_EXT_INLINE Vec<To> reinterpret(const Vec<From>& a) {
  Vec<To> r;
  for (int i = 0; i < Vec<To>::kCount; ++i) r.reg[i] = (typename Vec<To>::Reg)a.reg[i];
  return r;
}
VAE_EXT_INLINE Vec<uint32_t> float_bits(const Vec<float>& a) { return reinterpret<uint32_t>(a); }
VAE_EXT_INLINE Vec<float> bits_float(const Vec<uint32_t>& a) { return reinterpret<float>(a); }
VAE_EXT_INLINE Vec<int32_t> to_int(const Vec<float>& a) { return convert<int32_t>(a); }
VAE_EXT_INLINE Vec<float> to_float(const Vec<int32_t>& a) { return convert<float>(a); }
VAE_EXT_INLINE Vec<float> to_float(const Vec<uint32_t>& a) { return convert<float>(a); }
VAE_EXT_INLINE Vec<int32_t> as_int(const Vec<uint32_t>& a) { return reinterpret<int32_t>(a); }
VAE_EXT_INLINE Vec<uint32_t> as_uint(const Vec<int32_t>& a) { return reinterpret<uint32_t>(a); }

// b where they are not ordered, so that a NaN in b comes through: what x86's own max and min do.
template <class T>
VAE_EXT_INLINE Vec<T> greater_of(const Vec<T>& a, const Vec<T>& b) {
  return select(a > b, a, b);
}
template <class T>
VAE_EXT_INLINE Vec<T> lesser_of(const Vec<T>& a, const Vec<T>& b) {
  return select(a < b, a, b);
}

template <class T>
VAE_EXT_INLINE Vec<T> load(const T* p) {
  Vec<T> r;
  memcpy(&r, p, sizeof(r));
  return r;
}
template <class T>
VAE_EXT_INLINE void store(T* p, const Vec<T>& a) {
  memcpy(p, &a, sizeof(a));
}

// Fetches what lies a page on: processors do not fetch across pages by themselves, and an address past the end is of no
// consequence. One core then reads memory a third faster (benchmarks/README.md).
template <class T>
VAE_EXT_INLINE void prefetch_page_ahead(const T* p) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + 4096));
}

// Reads `count` <= kLanes values, never past them, and sets the other lanes to `fill`.
template <class T>
VAE_EXT_INLINE Vec<T> load_partial(const T* p, int count, T fill) {
  T lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i < count ? p[i] : fill;
  return load(lanes);
}
template <class T>
VAE_EXT_INLINE void store_partial(T* p, const Vec<T>& a, int count) {
  T lanes[kLanes];
  store(lanes, a);
  for (int i = 0; i < count; ++i) p[i] = lanes[i];
}

// kLanes values of two bytes: bfloat16 or binary16.
struct Halves {
  typedef uint16_t Reg __attribute__((vector_size(kRegisterBytes / 2)));
  Reg reg[Vec<float>::kCount];
};
VAE_EXT_INLINE Halves load_halves(const uint16_t* p) {
  Halves r;
  memcpy(&r, p, sizeof(r));
  return r;
}
VAE_EXT_INLINE void store_halves(uint16_t* p, const Halves& a) { memcpy(p, &a, sizeof(a)); }

// The first `count` lanes of a, the others set to `fill`.
VAE_EXT_INLINE Vec<float> fill_rest(const Vec<float>& a, int count, float fill) {
  int32_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return select(load(lanes) < Vec<int32_t>(count), a, Vec<float>(fill));
}

// To a cache line.
template <class T>
VAE_EXT_INLINE bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 64 == 0;
}
// A store of whole cache lines that does not read them first nor keep them, where the machine has one; then
// finish_past_cache() before another thread may look. p must be aligned.
template <class T>
VAE_EXT_INLINE void store_past_cache(T* p, const Vec<T>& a) {
#if defined(__AVX512F__)
  for (int i = 0; i < Vec<T>::kCount; ++i)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p + i * Vec<T>::kWidth), (__m512i)a.reg[i]);
#elif defined(__AVX2__)
  for (int i = 0; i < Vec<T>::kCount; ++i)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p + i * Vec<T>::kWidth), (__m256i)a.reg[i]);
#else
  store(p, a);
#endif
}
// Two Halves side by side, which are a cache line: a store of a whole one need not read it first.
VAE_EXT_INLINE void store_halves(uint16_t* p, const Halves& a, const Halves& b) {
#if defined(__AVX512F__)
  _mm512_storeu_si512(p, _mm512_inserti64x4(_mm512_castsi256_si512((__m256i)a.reg[0]), (__m256i)b.reg[0], 1));
#else
  store_halves(p, a);
  store_halves(p + kLanes, b);
#endif
}
VAE_EXT_INLINE void store_halves_past_cache(uint16_t* p, const Halves& a, const Halves& b) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p),
                      _mm512_inserti64x4(_mm512_castsi256_si512((__m256i)a.reg[0]), (__m256i)b.reg[0], 1));
#elif defined(__AVX2__)
  for (int i = 0; i < 2; ++i) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p + 8 * i), (__m128i)a.reg[i]);
    _mm_stream_si128(reinterpret_cast<__m128i*>(p + kLanes + 8 * i), (__m128i)b.reg[i]);
  }
#else
  store_halves(p, a, b);
#endif
}
VAE_EXT_INLINE void finish_past_cache() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// By halves: lane i + 8 onto lane i, then 4, 2, 1. The order is part of the result.
template <class T>
VAE_EXT_INLINE T horizontal_sum(const Vec<T>& a) {
  T lanes[kLanes];
  store(lanes, a);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] + lanes[i + half];
  return lanes[0];
}

template <class F>
VAE_EXT_INLINE Vec<double> each_lane(F f, const Vec<double>& a) {
  double lanes[kLanes];
  store(lanes, a);
  for (double& lane : lanes) lane = f(lane);
  return load(lanes);
}

// float64 promises accuracy, not bits: its fma may round twice.
VAE_EXT_INLINE Vec<double> fma(const Vec<double>& a, const Vec<double>& b, const Vec<double>& c) { return a * b + c; }
VAE_EXT_INLINE Vec<double> sqrt(const Vec<double>& a) {
  return each_lane([](double x) { return ::sqrt(x); }, a);
}

#if defined(__AVX512F__)

VAE_EXT_INLINE Vec<float> fma(const Vec<float>& a, const Vec<float>& b, const Vec<float>& c) {
  Vec<float> r;
  r.reg[0] = _mm512_fmadd_ps(a.reg[0], b.reg[0], c.reg[0]);
  return r;
}
VAE_EXT_INLINE Vec<float> sqrt(const Vec<float>& a) {
  return each<float>([](__m512 x) { return _mm512_sqrt_ps(x); }, a);
}
VAE_EXT_INLINE Vec<float> rint(const Vec<float>& a) {
  return each<float>([](__m512 x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); },
                     a);
}
// The same 16 words as two registers of 64-bit lanes, in whose low halves the even and the odd words lie (the high
// halves hold anything): the form in which the processor multiplies words in full.
struct WordPairs {
  __m512i half[2];
  WordPairs() = default;
  VAE_EXT_INLINE explicit WordPairs(uint32_t value) { half[0] = half[1] = _mm512_set1_epi32(static_cast<int>(value)); }
};
VAE_EXT_INLINE WordPairs pair_words(const Vec<uint32_t>& a) {
  WordPairs r;
  r.half[0] = (__m512i)a.reg[0];
  r.half[1] = _mm512_srli_epi64((__m512i)a.reg[0], 32);
  return r;
}
VAE_EXT_INLINE Vec<uint32_t> unpair_words(const WordPairs& a) {
  Vec<uint32_t> r;
  r.reg[0] = (Vec<uint32_t>::Reg)_mm512_mask_shuffle_epi32(a.half[0], 0xAAAA, a.half[1], _MM_PERM_CCAA);
  return r;
}
VAE_EXT_INLINE WordPairs operator^(const WordPairs& a, const WordPairs& b) {
  WordPairs r;
  for (int i = 0; i < 2; ++i) r.half[i] = _mm512_xor_si512(a.half[i], b.half[i]);
  return r;
}
VAE_EXT_INLINE void mul_wide(const WordPairs& a, uint32_t b, WordPairs* high, WordPairs* low) {
  for (int i = 0; i < 2; ++i) {
    low->half[i] = _mm512_mul_epu32(a.half[i], _mm512_set1_epi32(static_cast<int>(b)));
    high->half[i] = _mm512_srli_epi64(low->half[i], 32);
  }
}
VAE_EXT_INLINE __mmask16 first_lanes(int count) { return static_cast<__mmask16>((1u << count) - 1); }
VAE_EXT_INLINE Vec<float> greater_of(const Vec<float>& a, const Vec<float>& b) {
  return each<float>([](__m512 x, __m512 y) { return _mm512_max_ps(x, y); }, a, b);
}
VAE_EXT_INLINE Vec<float> lesser_of(const Vec<float>& a, const Vec<float>& b) {
  return each<float>([](__m512 x, __m512 y) { return _mm512_min_ps(x, y); }, a, b);
}
template <>
VAE_EXT_INLINE Vec<float> load_partial(const float* p, int count, float fill) {
  Vec<float> r;
  r.reg[0] = _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first_lanes(count), p);
  return r;
}
template <>
VAE_EXT_INLINE void store_partial(float* p, const Vec<float>& a, int count) {
  _mm512_mask_storeu_ps(p, first_lanes(count), a.reg[0]);
}
template <>
VAE_EXT_INLINE float horizontal_sum(const Vec<float>& a) {
  const __m512 v = a.reg[0];
  const __m256 by8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 by4 = _mm_add_ps(_mm256_castps256_ps128(by8), _mm256_extractf128_ps(by8, 1));
  const __m128 by2 = _mm_add_ps(by4, _mm_movehl_ps(by4, by4));
  return _mm_cvtss_f32(_mm_add_ss(by2, _mm_movehdup_ps(by2)));
}
// p * 2^n for an integral n in [-252, 254], rounded once.
VAE_EXT_INLINE Vec<float> scale2(const Vec<float>& p, const Vec<float>& n) {
  Vec<float> r;
  r.reg[0] = _mm512_scalef_ps(p.reg[0], n.reg[0]);
  return r;
}
// A bfloat16 is the high half of a float, and one permutation of 16-bit words puts 16 of them there, or takes them out.
// Two indices to a number, as literals: an array would be filled and read again wherever it is needed.
VAE_EXT_INLINE __m512i to_high_words() {
  return _mm512_setr_epi32(0x00000, 0x10000, 0x20000, 0x30000, 0x40000, 0x50000, 0x60000, 0x70000, 0x80000, 0x90000,
                           0xA0000, 0xB0000, 0xC0000, 0xD0000, 0xE0000, 0xF0000);
}
VAE_EXT_INLINE __m512i from_high_words() {
  return _mm512_setr_epi32(0x030001, 0x070005, 0x0B0009, 0x0F000D, 0x130011, 0x170015, 0x1B0019, 0x1F001D, 0, 0, 0, 0,
                           0, 0, 0, 0);
}
VAE_EXT_INLINE Vec<float> bfloat16_to_float(const Halves& a) {
  const __m512i words = _mm512_castsi256_si512((__m256i)a.reg[0]);
  Vec<float> r;
  r.reg[0] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, to_high_words(), words));
  return r;
}
VAE_EXT_INLINE Halves float_to_bfloat16(const Vec<float>& a) {
  const __m512i bits = _mm512_castps_si512(a.reg[0]), one = _mm512_set1_epi32(1);
  const __mmask16 ordered = _mm512_cmp_ps_mask(a.reg[0], a.reg[0], _CMP_ORD_Q);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_slli_epi32(one, 16));
  __m512i rounded = _mm512_mask_add_epi32(_mm512_set1_epi32(0x7FC00000), ordered, bits, _mm512_set1_epi32(0x7FFF));
  rounded = _mm512_mask_add_epi32(rounded, odd, rounded, one);
  Halves r;
  r.reg[0] = (Halves::Reg)_mm512_castsi512_si256(_mm512_permutexvar_epi16(from_high_words(), rounded));
  return r;
}
VAE_EXT_INLINE Vec<float> half_to_float(const Halves& a) {
  Vec<float> r;
  r.reg[0] = _mm512_cvtph_ps((__m256i)a.reg[0]);
  return r;
}
VAE_EXT_INLINE Halves float_to_half(const Vec<float>& a) {
  Halves r;
  r.reg[0] = (Halves::Reg)_mm512_cvtps_ph(a.reg[0], _MM_FROUND_TO_NEAREST_INT);
  return r;
}
// The first `count` values at p; the rest are zero.
VAE_EXT_INLINE Halves load_halves_partial(const uint16_t* p, int count) {
  Halves r;
  r.reg[0] = (Halves::Reg)_mm256_maskz_loadu_epi16(first_lanes(count), p);
  return r;
}
VAE_EXT_INLINE void store_halves_partial(uint16_t* p, const Halves& a, int count) {
  _mm256_mask_storeu_epi16(p, first_lanes(count), (__m256i)a.reg[0]);
}

#elif defined(__AVX2__)

VAE_EXT_INLINE Vec<float> fma(const Vec<float>& a, const Vec<float>& b, const Vec<float>& c) {
  Vec<float> r;
  for (int i = 0; i < 2; ++i) r.reg[i] = _mm256_fmadd_ps(a.reg[i], b.reg[i], c.reg[i]);
  return r;
}
VAE_EXT_INLINE Vec<float> sqrt(const Vec<float>& a) {
  return each<float>([](__m256 x) { return _mm256_sqrt_ps(x); }, a);
}
VAE_EXT_INLINE Vec<float> rint(const Vec<float>& a) {
  return each<float>([](__m256 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }, a);
}
struct WordPairs {
  __m256i half[4];
  WordPairs() = default;
  VAE_EXT_INLINE explicit WordPairs(uint32_t value) {
    for (__m256i& h : half) h = _mm256_set1_epi32(static_cast<int>(value));
  }
};
VAE_EXT_INLINE WordPairs pair_words(const Vec<uint32_t>& a) {
  WordPairs r;
  for (int i = 0; i < 2; ++i) {
    r.half[2 * i] = (__m256i)a.reg[i];
    r.half[2 * i + 1] = _mm256_srli_epi64((__m256i)a.reg[i], 32);
  }
  return r;
}
VAE_EXT_INLINE Vec<uint32_t> unpair_words(const WordPairs& a) {
  Vec<uint32_t> r;
  for (int i = 0; i < 2; ++i)
    r.reg[i] = (Vec<uint32_t>::Reg)_mm256_blend_epi32(a.half[2 * i], _mm256_slli_epi64(a.half[2 * i + 1], 32), 0xAA);
  return r;
}
VAE_EXT_INLINE WordPairs operator^(const WordPairs& a, const WordPairs& b) {
  WordPairs r;
  for (int i = 0; i < 4; ++i) r.half[i] = _mm256_xor_si256(a.half[i], b.half[i]);
  return r;
}
VAE_EXT_INLINE void mul_wide(const WordPairs& a, uint32_t b, WordPairs* high, WordPairs* low) {
  for (int i = 0; i < 4; ++i) {
    low->half[i] = _mm256_mul_epu32(a.half[i], _mm256_set1_epi32(static_cast<int>(b)));
    high->half[i] = _mm256_srli_epi64(low->half[i], 32);
  }
}
VAE_EXT_INLINE __m256i first_lanes(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VAE_EXT_INLINE Vec<float> greater_of(const Vec<float>& a, const Vec<float>& b) {
  return each<float>([](__m256 x, __m256 y) { return _mm256_max_ps(x, y); }, a, b);
}
VAE_EXT_INLINE Vec<float> lesser_of(const Vec<float>& a, const Vec<float>& b) {
  return each<float>([](__m256 x, __m256 y) { return _mm256_min_ps(x, y); }, a, b);
}
template <>
VAE_EXT_INLINE Vec<float> load_partial(const float* p, int count, float fill) {
  Vec<float> r;
  for (int i = 0; i < 2; ++i) {
    const __m256i mask = first_lanes(count - 8 * i);
    const __m256 lanes = _mm256_maskload_ps(p + (count > 8 * i ? 8 * i : 0), mask);
    r.reg[i] = _mm256_blendv_ps(_mm256_set1_ps(fill), lanes, _mm256_castsi256_ps(mask));
  }
  return r;
}
template <>
VAE_EXT_INLINE void store_partial(float* p, const Vec<float>& a, int count) {
  for (int i = 0; i < 2; ++i)
    _mm256_maskstore_ps(p + (count > 8 * i ? 8 * i : 0), first_lanes(count - 8 * i), a.reg[i]);
}
VAE_EXT_INLINE Vec<float> half_to_float(const Halves& a) {
  Vec<float> r;
  for (int i = 0; i < 2; ++i) r.reg[i] = _mm256_cvtph_ps((__m128i)a.reg[i]);
  return r;
}
VAE_EXT_INLINE Halves float_to_half(const Vec<float>& a) {
  Halves r;
  for (int i = 0; i < 2; ++i) r.reg[i] = (Halves::Reg)_mm256_cvtps_ph(a.reg[i], _MM_FROUND_TO_NEAREST_INT);
  return r;
}

#else

// Lane by lane: exact on any machine, fast only where the compiler finds the instruction. Where it does not, each lane
// is a call into the C library, and the loop stays out of line.
#if defined(__FP_FAST_FMAF)
#define VAE_EXT_LANE_LOOP VAE_EXT_INLINE
#else
#define VAE_EXT_LANE_LOOP VAE_EXT_NOINLINE static
#endif
template <class F>
VAE_EXT_INLINE Vec<float> each_lane(F f, const Vec<float>& a) {
  float lanes[kLanes];
  store(lanes, a);
  for (float& lane : lanes) lane = f(lane);
  return load(lanes);
}
VAE_EXT_LANE_LOOP Vec<float> fma(const Vec<float>& a, const Vec<float>& b, const Vec<float>& c) {
  float x[kLanes], y[kLanes], z[kLanes];
  store(x, a);
  store(y, b);
  store(z, c);
  for (int i = 0; i < kLanes; ++i) z[i] = ::fmaf(x[i], y[i], z[i]);
  return load(z);
}
VAE_EXT_LANE_LOOP Vec<float> sqrt(const Vec<float>& a) {
  return each_lane([](float x) { return ::sqrtf(x); }, a);
}
VAE_EXT_LANE_LOOP Vec<float> rint(const Vec<float>& a) {
  return each_lane([](float x) { return ::rintf(x); }, a);
}
using WordPairs = Vec<uint32_t>;
VAE_EXT_INLINE Vec<uint32_t> pair_words(const Vec<uint32_t>& a) { return a; }
VAE_EXT_INLINE Vec<uint32_t> unpair_words(const Vec<uint32_t>& a) { return a; }
VAE_EXT_LANE_LOOP void mul_wide(const Vec<uint32_t>& a, uint32_t b, Vec<uint32_t>* high, Vec<uint32_t>* low) {
  uint32_t lanes[kLanes], upper[kLanes];
  store(lanes, a);
  for (int i = 0; i < kLanes; ++i) mul_wide(lanes[i], b, &upper[i], &lanes[i]);
  *high = load(upper);
  *low = load(lanes);
}
VAE_EXT_LANE_LOOP Vec<float> half_to_float(const Halves& a) {
  uint16_t halves[kLanes];
  float lanes[kLanes];
  store_halves(halves, a);
  for (int i = 0; i < kLanes; ++i) lanes[i] = half_to_float(halves[i]);
  return load(lanes);
}
VAE_EXT_LANE_LOOP Halves float_to_half(const Vec<float>& a) {
  uint16_t halves[kLanes];
  float lanes[kLanes];
  store(lanes, a);
  for (int i = 0; i < kLanes; ++i) halves[i] = float_to_half(lanes[i]);
  return load_halves(halves);
}

#endif

#if !defined(__AVX512F__)
VAE_EXT_INLINE Vec<float> bfloat16_to_float(const Halves& a) {
  Vec<uint32_t> r;
  for (int i = 0; i < r.kCount; ++i) r.reg[i] = __builtin_convertvector(a.reg[i], Vec<uint32_t>::Reg);
  return bits_float(r << 16);
}
VAE_EXT_INLINE Halves float_to_bfloat16(const Vec<float>& a) {
  const Vec<uint32_t> bits = float_bits(a);
  const Vec<uint32_t> rounded = bits + Vec<uint32_t>(0x7FFF) + ((bits >> 16) & Vec<uint32_t>(1));
  const Vec<uint32_t> high = select(a == a, rounded, Vec<uint32_t>(0x7FC00000)) >> 16;
  Halves r;
  for (int i = 0; i < high.kCount; ++i) r.reg[i] = __builtin_convertvector(high.reg[i], Halves::Reg);
  return r;
}
// `count` < kLanes values in pieces whose length the compiler knows: a copy of any length would be a call.
VAE_EXT_INLINE void copy_halves(uint16_t* to, const uint16_t* from, int count) {
  for (int piece = kLanes / 2, done = 0; piece > 0; piece /= 2) {
    if (!(count & piece)) continue;
    memcpy(to + done, from + done, static_cast<size_t>(piece) * sizeof(uint16_t));
    done += piece;
  }
}
VAE_EXT_INLINE Halves load_halves_partial(const uint16_t* p, int count) {
  uint16_t halves[kLanes] = {};
  copy_halves(halves, p, count);
  return load_halves(halves);
}
VAE_EXT_INLINE void store_halves_partial(uint16_t* p, const Halves& a, int count) {
  uint16_t halves[kLanes];
  store_halves(halves, a);
  copy_halves(p, halves, count);
}
#endif

// Four vectors whose lanes are in `group_order` are written so that the four values of a group lie side by side and
// the groups follow in order: out[4 * group + k] = v_k. The order is the one in which the registers' own 4x4
// interleaves leave the groups, so that nothing moves across 128-bit lanes.
VAE_EXT_INLINE Vec<uint32_t> group_order() {
  constexpr int kWidth = Vec<float>::kWidth;
  uint32_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i / kWidth * kWidth + kWidth / 4 * (i % 4) + i % kWidth / 4;
  return load(lanes);
}
VAE_EXT_INLINE void store_groups(float* out, const Vec<float>& v0, const Vec<float>& v1, const Vec<float>& v2,
                                 const Vec<float>& v3) {
#if defined(__AVX512F__)
  const __m512 low01 = _mm512_unpacklo_ps(v0.reg[0], v1.reg[0]), high01 = _mm512_unpackhi_ps(v0.reg[0], v1.reg[0]);
  const __m512 low23 = _mm512_unpacklo_ps(v2.reg[0], v3.reg[0]), high23 = _mm512_unpackhi_ps(v2.reg[0], v3.reg[0]);
  const auto pair_low = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto pair_high = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  _mm512_storeu_ps(out, pair_low(low01, low23));
  _mm512_storeu_ps(out + 16, pair_high(low01, low23));
  _mm512_storeu_ps(out + 32, pair_low(high01, high23));
  _mm512_storeu_ps(out + 48, pair_high(high01, high23));
#elif defined(__AVX2__)
  const auto pair_low = [](__m256 a, __m256 b) {
    return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
  };
  const auto pair_high = [](__m256 a, __m256 b) {
    return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
  };
  for (int i = 0; i < 2; ++i) {
    const __m256 low01 = _mm256_unpacklo_ps(v0.reg[i], v1.reg[i]), high01 = _mm256_unpackhi_ps(v0.reg[i], v1.reg[i]);
    const __m256 low23 = _mm256_unpacklo_ps(v2.reg[i], v3.reg[i]), high23 = _mm256_unpackhi_ps(v2.reg[i], v3.reg[i]);
    _mm256_storeu_ps(out + 32 * i, pair_low(low01, low23));
    _mm256_storeu_ps(out + 32 * i + 8, pair_high(low01, low23));
    _mm256_storeu_ps(out + 32 * i + 16, pair_low(high01, high23));
    _mm256_storeu_ps(out + 32 * i + 24, pair_high(high01, high23));
  }
#else
  float lanes[4][kLanes];
  store(lanes[0], v0);
  store(lanes[1], v1);
  store(lanes[2], v2);
  store(lanes[3], v3);
  for (int i = 0; i < kLanes; ++i)
    for (int k = 0; k < 4; ++k) out[4 * i + k] = lanes[k][i];
#endif
}

#endif  // !__CUDACC__

// What is built from the above, for every value type.

template <class V>
struct ScalarOf {
  using type = V;
};
#if !defined(__CUDACC__)
template <class T>
struct ScalarOf<Vec<T>> {
  using type = T;
};
#endif
template <class V>
using Scalar = typename ScalarOf<V>::type;

// A constant in the value type V.
template <class V>
VAE_EXT_INLINE V constant(double value) {
  return V(static_cast<Scalar<V>>(value));
}

// 2^n for n in [-126, 127].
VAE_EXT_INLINE float pow2(int32_t n) { return bits_float((as_uint(n) + 127u) << 23); }
VAE_EXT_INLINE float scale2(float p, float n) {
  const int32_t whole = to_int(n), half = whole >> 1;
  return p * pow2(half) * pow2(whole - half);
}
#if !defined(__CUDACC__)
VAE_EXT_INLINE Vec<float> pow2(const Vec<int32_t>& n) { return bits_float((as_uint(n) + Vec<uint32_t>(127)) << 23); }
#if !defined(__AVX512F__)
VAE_EXT_INLINE Vec<float> scale2(const Vec<float>& p, const Vec<float>& n) {
  const Vec<int32_t> whole = to_int(n), half = whole >> 1;
  return p * pow2(half) * pow2(whole - half);
}
#endif
#endif

VAE_EXT_INLINE float absolute(float a) { return bits_float(float_bits(a) & 0x7FFFFFFFu); }
VAE_EXT_INLINE double absolute(double a) { return ::fabs(a); }
VAE_EXT_INLINE float minus_absolute(float a) { return bits_float(float_bits(a) | 0x80000000u); }
VAE_EXT_INLINE double minus_absolute(double a) { return -::fabs(a); }
#if !defined(__CUDACC__)
VAE_EXT_INLINE Vec<float> absolute(const Vec<float>& a) {
  return bits_float(float_bits(a) & Vec<uint32_t>(0x7FFFFFFF));
}
VAE_EXT_INLINE Vec<float> minus_absolute(const Vec<float>& a) {
  return bits_float(float_bits(a) | Vec<uint32_t>(0x80000000u));
}
VAE_EXT_INLINE Vec<double> absolute(const Vec<double>& a) {
  return reinterpret<double>(reinterpret<int64_t>(a) & Vec<int64_t>(0x7FFFFFFFFFFFFFFF));
}
VAE_EXT_INLINE Vec<double> minus_absolute(const Vec<double>& a) { return -absolute(a); }
#endif

}  // namespace vae_ext

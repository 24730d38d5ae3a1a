// Elements as they are stored, and the types a loop reads its operands in.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

#include "../math/vec.h"
#include "kernels.h"

namespace vae_ext::cpu {
// Unnamed, here and in the other headers of this folder: what is compiled for an instruction set stays in its object.
namespace {

template <class T>
constexpr DType kDTypeOf = std::is_same_v<T, bfloat16>  ? DType::bf16
                           : std::is_same_v<T, float16> ? DType::f16
                           : std::is_same_v<T, double>  ? DType::f64
                                                        : DType::f32;

VAE_EXT_INLINE Vec<float> widen(const bfloat16*, const Halves& a) { return bfloat16_to_float(a); }
VAE_EXT_INLINE Vec<float> widen(const float16*, const Halves& a) { return half_to_float(a); }
VAE_EXT_INLINE Halves narrow(const bfloat16*, const Vec<float>& a) { return float_to_bfloat16(a); }
VAE_EXT_INLINE Halves narrow(const float16*, const Vec<float>& a) { return float_to_half(a); }

template <class T>
VAE_EXT_INLINE const uint16_t* bits_at(const T* p) {
  return reinterpret_cast<const uint16_t*>(p);
}
template <class T>
VAE_EXT_INLINE uint16_t* bits_at(T* p) {
  return reinterpret_cast<uint16_t*>(p);
}

// A vector of what is stored as T, in the type C computed in: either C is T, or T of half precision and C float.
template <class C, class T>
VAE_EXT_INLINE Vec<C> load_as(const T* p) {
  if constexpr (std::is_same_v<C, T>)
    return load(p);
  else
    return widen(p, load_halves(bits_at(p)));
}
template <class C, class T>
VAE_EXT_INLINE Vec<C> load_partial_as(const T* p, int count, C fill) {
  if constexpr (std::is_same_v<C, T>)
    return load_partial(p, count, fill);
  else
    return fill_rest(widen(p, load_halves_partial(bits_at(p), count)), count, fill);
}
// The reverse, from two vectors of float.
template <class T>
VAE_EXT_INLINE void store_as(T* p, const Vec<float>& a, const Vec<float>& b, bool past_cache) {
  past_cache ? store_halves_past_cache(bits_at(p), narrow(p, a), narrow(p, b))
             : store_halves(bits_at(p), narrow(p, a), narrow(p, b));
}
template <class T>
VAE_EXT_INLINE void store_partial_as(T* p, const Vec<float>& a, int count) {
  if (count == kLanes) return store_halves(bits_at(p), narrow(p, a));
  store_halves_partial(bits_at(p), narrow(p, a), count);
}

// How a loop reads its operands: those in the set of bits kWide as C, the type it computes in, all others as T.
template <class C, class T = C, unsigned kWide = 0>
struct Access {
  using Compute = C;
  // Is there anything to convert?
  static constexpr bool kWidens = !std::is_same_v<C, T>;
  template <int i>
  using Read = std::conditional_t<(kWide >> i & 1) != 0, C, T>;
  // The same with operand i as C.
  template <int i>
  using With = Access<C, T, kWide | 1u << i>;
};

// f(0), f(1), ... of kCount numbers that are compile-time constants: i.value.
template <class F, int... kNumbers>
VAE_EXT_INLINE void for_each_of(std::integer_sequence<int, kNumbers...>, F f) {
  (f(std::integral_constant<int, kNumbers>{}), ...);
}
template <int kCount, class F>
VAE_EXT_INLINE void for_each(F f) {
  for_each_of(std::make_integer_sequence<int, kCount>{}, f);
}

// The operands, by number, that are read as float where the others are of half precision. Each kernel names the sets
// that are common, which it is compiled for: bfloat16 with all of them, float16, the rarer one on CPUs, with the first.
// With any other, all that is not float is staged.
template <int... kOperands>
struct Floats {
  static constexpr unsigned kBits = (0u | ... | (1u << kOperands));
};

// The operands that are not stored as T throughout.
template <class T>
inline unsigned not_stored_as(const Operand* operands, int count) {
  unsigned others = 0;
  for (int i = 0; i < count; ++i)
    if (operands[i].scalar || operands[i].dtype != kDTypeOf<T>) others |= 1u << i;
  return others;
}

// f of the Access to `floats` as float and to the other operands as T, if that is one of Sets; else false.
template <class T, class... Sets, class F>
inline bool with_half_access(unsigned floats, F f) {
  return ((floats == Sets::kBits && (f(Access<float, T, Sets::kBits>{}), true)) || ...);
}

// Where an fma is a call for each lane, it is no matter what is staged, and all of it is.
#if defined(__FP_FAST_FMAF)
constexpr bool kWidensInLoops = true;
#else
constexpr bool kWidensInLoops = false;
#endif

// f of the Access to the first `count` inputs of a problem.
template <class... Sets, class F>
inline void with_access(const Problem& p, int count, F f) {
  if (p.wide) return f(Access<double>{});
  if constexpr (kWidensInLoops && sizeof...(Sets) > 0) {
    using First = std::tuple_element_t<0, std::tuple<Sets...>>;
    if (with_half_access<bfloat16, Sets...>(not_stored_as<bfloat16>(p.in, count), f)) return;
    if (with_half_access<float16, First>(not_stored_as<float16>(p.in, count), f)) return;
  }
  f(Access<float>{});
}

}  // namespace
}  // namespace vae_ext::cpu

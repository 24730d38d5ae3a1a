// Groups of four elements of a row, in the type a kernel computes in, and the walk over rows.
#pragma once

#include <type_traits>

#include "../math/vec.h"
#include "device.h"
#include "kernels.h"

namespace vae_ext::cuda {

// Elements that stay together in every kernel: the normals of one Philox counter, and 16 bytes of float.
constexpr int kGroup = 4;
constexpr int kMaxThreads = 256;
// Some waves of blocks on the largest devices; the rows beyond them go round to the same threads.
constexpr int64_t kMaxBlocks = 16384;

VAE_EXT_INLINE float widen(float a) { return a; }
VAE_EXT_INLINE double widen(double a) { return a; }
VAE_EXT_INLINE float widen(bfloat16 a) { return bfloat16_to_float(a.bits); }
VAE_EXT_INLINE float widen(float16 a) { return half_to_float(a.bits); }
// 2^23 + a, less 2^23: additions, which are four times as fast as the conversion.
VAE_EXT_INLINE float widen(uint8_t a) { return bits_float(0x4B000000u | a) - 8388608.0f; }

template <class T, class C>
VAE_EXT_INLINE T narrow(C a) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return {float_to_bfloat16(static_cast<float>(a))};
  else if constexpr (std::is_same_v<T, float16>)
    return {float_to_half(static_cast<float>(a))};
  else
    return static_cast<T>(a);
}

// What a thread loads and stores at once.
constexpr int64_t kMaxAccess = 16;
VAE_EXT_INLINE constexpr int64_t pack_alignment(int64_t bytes) { return bytes < kMaxAccess ? bytes : kMaxAccess; }

// Elements side by side, as a thread loads and stores them.
template <class T, int kCount>
struct alignas(pack_alignment(kCount * sizeof(T))) Pack {
  T value[kCount];
};

template <int kCount, class T>
__device__ __forceinline__ Pack<T, kCount> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}
template <int kCount, class T, class C>
__device__ __forceinline__ void store_pack(T* to, const C* from) {
  Pack<T, kCount> pack;
  for (int k = 0; k < kCount; ++k) pack.value[k] = narrow<T>(from[k]);
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

// In bytes: nvcc splits a store of a Pack into its elements where the address is counted in these.
template <class T>
__device__ __forceinline__ T* element(const Operand& operand, int64_t at) {
  return reinterpret_cast<T*>(static_cast<char*>(operand.data) + at * static_cast<int64_t>(sizeof(T)));
}

// f of the address of element `at`, as a pointer to its own type, of an operand that is not of integers.
template <class F>
__device__ __forceinline__ void with_element(const Operand& operand, int64_t at, F f) {
  switch (operand.dtype) {
    case DType::f64:
      return f(element<double>(operand, at));
    case DType::bf16:
      return f(element<bfloat16>(operand, at));
    case DType::f16:
      return f(element<float16>(operand, at));
    default:
      return f(element<float>(operand, at));
  }
}

template <class C>
__device__ __forceinline__ C read(const Operand& operand, int64_t at) {
  if (!operand.data) return C(0);
  if (operand.dtype == DType::u8) return widen(static_cast<const uint8_t*>(operand.data)[at]);
  C value;
  with_element(operand, at, [&](const auto* from) { value = static_cast<C>(widen(*from)); });
  return value;
}
template <class C>
__device__ __forceinline__ void write(const Operand& operand, int64_t at, C value) {
  with_element(operand, at, [&](auto* to) { *to = narrow<std::remove_pointer_t<decltype(to)>>(value); });
}

// How a kernel gets at its rows. Groups: every operand in whole groups that are aligned, kAtOnce of them at a time, of
// type T, and the last input of type X. Elements: one by one, whatever their dtypes and addresses.
template <class T, class X = T, int kAtOnce = 1>
struct Groups {
  using Compute = decltype(widen(T()));
  static constexpr int kGroups = kAtOnce;
  // Held beside a formula's: halves as they lie in memory.
  static constexpr int kExtraNumbers = sizeof(T) < 4 ? 2 * kAtOnce : 0;
};
template <class C>
struct Elements {
  using Compute = C;
  static constexpr int kGroups = 1, kExtraNumbers = 0;
};

// Elements that a thread takes at a time.
template <class Access>
constexpr int kWidth = Access::kGroups * kGroup;

// kCount operands side by side, of the row whose offset in each is `row`.
template <class Access, int kCount>
class Inputs;

template <class T, class X, int kAtOnce, int kCount>
class Inputs<Groups<T, X, kAtOnce>, kCount> {
 public:
  using Access = Groups<T, X, kAtOnce>;
  using C = typename Access::Compute;

  __device__ __forceinline__ Inputs(const Operand* operands, const int64_t* row) : operands_(operands) {
    for (int i = 0; i < kCount; ++i) {
      const int64_t size = i < kLast ? sizeof(T) : sizeof(X);
      row_[i] = static_cast<const char*>(operands[i].data) + row[i] * size;
      if (operands[i].scalar) value_[i] = read<C>(operands[i], row[i]);
    }
  }

  // f(g, v) for each group g of elements [j, j + kWidth), with the first kCount inputs of its elements in v. All loads
  // come before the first use of one.
  template <int kInputs, class Fill, class F>
  __device__ __forceinline__ void for_each_group(int64_t j, int64_t, Fill, F f) const {
    Pack<T, kWidth<Access>> packs[kCount];
    for (int i = 0; i < kLast; ++i) packs[i] = load<T>(i, j);
    const Pack<X, kWidth<Access>> last = load<X>(kLast, j);
    for (int g = 0; g < kAtOnce; ++g) {
      C v[kGroup][kInputs];
      for (int i = 0; i < kLast; ++i) widen_group(packs[i], g, i, v);
      widen_group(last, g, kLast, v);
      f(g, v);
    }
  }

 private:
  static constexpr int kLast = kCount - 1;
  // Can one value that stands for the whole event be put into a Pack? In others it might not be exact.
  template <class Stored>
  static constexpr bool kHoldsValue = std::is_same_v<Stored, C>;

  template <class Stored>
  __device__ __forceinline__ Pack<Stored, kWidth<Access>> load(int i, int64_t j) const {
    Pack<Stored, kWidth<Access>> pack;
    if constexpr (kHoldsValue<Stored>)
      for (Stored& value : pack.value) value = value_[i];
    if (!operands_[i].scalar) pack = load_pack<kWidth<Access>>(reinterpret_cast<const Stored*>(row_[i]) + j);
    return pack;
  }

  template <class Stored, int kInputs>
  __device__ __forceinline__ void widen_group(const Pack<Stored, kWidth<Access>>& pack, int g, int i,
                                              C (&v)[kGroup][kInputs]) const {
    for (int k = 0; k < kGroup; ++k) v[k][i] = value_[i];
    if (!kHoldsValue<Stored> && operands_[i].scalar) return;
    for (int k = 0; k < kGroup; ++k) v[k][i] = widen(pack.value[g * kGroup + k]);
  }

  const Operand* operands_;
  const char* row_[kCount];
  C value_[kCount] = {};
};

template <class Compute, int kCount>
class Inputs<Elements<Compute>, kCount> {
 public:
  using C = Compute;

  __device__ __forceinline__ Inputs(const Operand* operands, const int64_t* row) : operands_(operands), row_(row) {}

  // Past the end of the row, fill(i).
  template <int kInputs, class Fill, class F>
  __device__ __forceinline__ void for_each_group(int64_t j, int64_t event, Fill fill, F f) const {
    C v[kGroup][kInputs];
    for (int k = 0; k < kGroup; ++k)
      for (int i = 0; i < kCount; ++i) {
        const int64_t at = operands_[i].scalar ? row_[i] : row_[i] + j + k;
        v[k][i] = j + k < event ? read<C>(operands_[i], at) : static_cast<C>(fill(i));
      }
    f(0, v);
  }

 private:
  const Operand* operands_;
  const int64_t* row_;
};

// Elements [j, j + kWidth) of a row of an output, which where rows are read in groups is of type T or C.
template <class T, class X, int kAtOnce, class C>
__device__ __forceinline__ void write_groups(Groups<T, X, kAtOnce>, const Operand& out, int64_t row, int64_t j, int64_t,
                                             const C* v) {
  if (std::is_same_v<T, C> || out.dtype == DType::f32) return store_pack<kAtOnce * kGroup>(element<C>(out, row + j), v);
  store_pack<kAtOnce * kGroup>(element<T>(out, row + j), v);
}
template <class C>
__device__ __forceinline__ void write_groups(Elements<C>, const Operand& out, int64_t row, int64_t j, int64_t event,
                                             const C* v) {
  for (int k = 0; k < kGroup; ++k)
    if (j + k < event) write(out, row + j + k, v[k]);
}

VAE_EXT_INLINE int64_t divide(int64_t a, int64_t b) {
  // In 32 bits wherever that will do: a division of 64 takes four times as long.
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

// f(dim, steps) for the way to row `index` of those over dims [first, last), the last of which is the fastest.
template <class F>
__device__ __forceinline__ void for_each_step(const Rows& rows, int first, int last, int64_t index, F f) {
  if (first == last) return;
#pragma unroll 1
  for (int d = last - 1; d > first; --d) {
    const int64_t rest = divide(index, rows.size[d]);
    f(d, index - rest * rows.size[d]);
    index = rest;
  }
  f(first, index);
}

// Where a row lies in each input, and its number and sample in the noise.
template <int kInputs>
struct RowOffsets {
  int64_t in[kInputs] = {}, row_value = 0;
  uint32_t row = 0, sample = 0;

  __device__ __forceinline__ void advance(const Problem& p, int first, int last, int64_t index) {
    for_each_step(p.rows, first, last, index, [&](int d, int64_t steps) {
      for (int i = 0; i < kInputs; ++i) in[i] += steps * p.in[i].stride[d];
      row_value += steps * p.row_value.stride[d];
      row += static_cast<uint32_t>(steps) * static_cast<uint32_t>(p.noise.row_stride[d]);
      sample += static_cast<uint32_t>(steps) * static_cast<uint32_t>(p.noise.sample_stride[d]);
    });
  }
};

// Where row `index` of those over dims [0, dims) lies in an output: to be asked when it is written, since the registers
// are the inputs' until then.
__device__ __forceinline__ int64_t output_offset(const Problem& p, const Operand& out, int dims, int64_t index) {
  int64_t offset = 0;
  for_each_step(p.rows, 0, dims, index, [&](int d, int64_t steps) { offset += steps * out.stride[d]; });
  return offset;
}

}  // namespace vae_ext::cuda

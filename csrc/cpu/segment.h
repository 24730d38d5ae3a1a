// Runs of up to kSegment elements of a row. An operand that is stored in a type the loop reads is read where it stands;
// any other goes through a buffer small enough for the first-level cache, in the type computed in.
#pragma once

#include "stored.h"

namespace vae_ext::cpu {
namespace {

template <class To, class From>
inline void convert(const From* from, int64_t n, To* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(from[i]);
}
template <class C>
VAE_EXT_INLINE Vec<float> to_float(const Vec<C>& a) {
  if constexpr (std::is_same_v<C, float>) return a;
  C from[kLanes];
  float to[kLanes];
  store(from, a);
  convert(from, kLanes, to);
  return load(to);
}

// By whole vectors: there are instructions for those.
template <class C, class T>
inline void widen_halves(const T* from, int64_t n, C* to) {
  float lanes[kLanes];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(lanes, load_as<float>(from + i));
    convert(lanes, kLanes, to + i);
  }
  if (i == n) return;
  store(lanes, load_partial_as(from + i, static_cast<int>(n - i), 0.0f));
  convert(lanes, n - i, to + i);
}
template <class C, class T>
inline void narrow_to_halves(const C* from, int64_t n, T* to, bool past_cache) {
  past_cache = past_cache && is_aligned(to);
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes)
    store_as(to + i, to_float(load(from + i)), to_float(load(from + i + kLanes)), past_cache);
  for (; i < n; i += kLanes) {
    const int count = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    store_partial_as(to + i, to_float(load_partial(from + i, count, C(0))), count);
  }
}

// Elements [at, at + n) of an operand, converted.
template <class C>
VAE_EXT_NOINLINE void read_segment(const Operand& operand, int64_t at, int64_t n, C* to) {
  switch (operand.dtype) {
    case DType::f32:
      return convert(static_cast<const float*>(operand.data) + at, n, to);
    case DType::f64:
      return convert(static_cast<const double*>(operand.data) + at, n, to);
    case DType::bf16:
      return widen_halves(static_cast<const bfloat16*>(operand.data) + at, n, to);
    case DType::f16:
      return widen_halves(static_cast<const float16*>(operand.data) + at, n, to);
    case DType::u8:
      return convert(static_cast<const uint8_t*>(operand.data) + at, n, to);
  }
}

template <class C>
VAE_EXT_NOINLINE void write_segment(const Operand& operand, int64_t at, int64_t n, const C* from, bool past_cache) {
  switch (operand.dtype) {
    case DType::f32:
      return convert(from, n, static_cast<float*>(operand.data) + at);
    case DType::f64:
      return convert(from, n, static_cast<double*>(operand.data) + at);
    case DType::bf16:
      return narrow_to_halves(from, n, static_cast<bfloat16*>(operand.data) + at, past_cache);
    case DType::f16:
      return narrow_to_halves(from, n, static_cast<float16*>(operand.data) + at, past_cache);
    case DType::u8:
      return;  // No operator writes integers.
  }
}

// Segments of kCount operands side by side, as `A`, an Access, reads them.
template <class A, int kCount>
class Inputs {
 public:
  using C = typename A::Compute;

  // What is one number everywhere is spread out once.
  Inputs(const Operand* operands, const Rows& rows) : operands_(operands) {
    for_each<kCount>([&](auto i) {
      using Read = typename A::template Read<i.value>;
      const Operand& operand = operands[i.value];
      const bool direct = operand.dtype == kDTypeOf<Read> && !operand.scalar;
      base_[i.value] = static_cast<const char*>(direct ? operand.data : buffer_[i.value]);
      size_[i.value] = direct ? sizeof(Read) : 0;
    });
    for (int i = 0; i < kCount; ++i) {
      bool constant = operands[i].scalar;
      for (int d = 0; d < rows.dims; ++d) constant = constant && operands[i].stride[d] == 0;
      if (constant) fill(i, 0, kSegment);
      staged_[i] = size_[i] == 0 && !constant;
      any_staged_ = any_staged_ || staged_[i];
    }
  }

  // Element j on of the row whose offset in each operand is `row`; in[i] is good until the next call.
  void view(const int64_t* row, int64_t j, int64_t n, const char** in) {
    for (int i = 0; i < kCount; ++i) in[i] = base_[i] + size_[i] * (row[i] + j);
    if (any_staged_) stage(row, j, n);
  }

  // Is every operand read where it stands, or constant? Then view() only computes addresses.
  bool ready() const { return !any_staged_; }
  // What one step along dim d adds to in[i] of view().
  int64_t step(int i, int d) const { return size_[i] * operands_[i].stride[d]; }
  bool is_constant(int i) const { return size_[i] == 0; }

 private:
  VAE_EXT_NOINLINE void stage(const int64_t* row, int64_t j, int64_t n) {
    for (int i = 0; i < kCount; ++i) {
      if (!staged_[i]) continue;
      if (operands_[i].scalar) {
        fill(i, row[i], n);
      } else {
        read_segment(operands_[i], row[i] + j, n, buffer_[i]);
      }
    }
  }

  void fill(int i, int64_t at, int64_t n) {
    C value{};
    read_segment(operands_[i], at, 1, &value);
    for (int64_t j = 0; j < n; ++j) buffer_[i][j] = value;
  }

  const Operand* operands_;
  const char* base_[kCount];
  // Of an element, or zero where it comes from the buffer.
  int64_t size_[kCount];
  bool staged_[kCount], any_staged_ = false;
  alignas(64) C buffer_[kCount][kSegment];
};

// Operand i at element j of a segment.
template <class A, int i>
VAE_EXT_INLINE const typename A::template Read<i>* element(const char* const* in, int64_t j) {
  return reinterpret_cast<const typename A::template Read<i>*>(in[i]) + j;
}
// The whole vectors of kCount operands, in order, of a segment of n elements. What has to be widened is read one vector
// ahead: these loops are bound by how many instructions wait for others in the processor's window, and conversions
// would make each chain of them longer.
template <class A, int kCount>
class Vectors {
 public:
  using V = Vec<typename A::Compute>;

  VAE_EXT_INLINE Vectors(const char* const* in, int64_t n) : in_(in), last_(n / kLanes * kLanes - kLanes) {
    if constexpr (A::kWidens)
      if (last_ >= 0) read(0, ahead_);
  }

  // Those at element j, the next multiple of kLanes at each call.
  VAE_EXT_INLINE void next(int64_t j, V* v) {
    if constexpr (A::kWidens) {
      for (int i = 0; i < kCount; ++i) v[i] = ahead_[i];
      read(j < last_ ? j + kLanes : last_, ahead_);
    } else {
      read(j, v);
    }
  }

 private:
  VAE_EXT_INLINE void read(int64_t j, V* v) const {
    for_each<kCount>([&](auto i) {
      const auto* at = element<A, i.value>(in_, j);
      v[i.value] = load_as<typename A::Compute>(at);
      prefetch_page_ahead(at);
    });
  }

  const char* const* in_;
  const int64_t last_;
  V ahead_[A::kWidens ? kCount : 1] = {};
};

// The last `count` elements of a row, the rest of a vector filled with fill(i).
template <class A, int kCount, class Fill>
VAE_EXT_INLINE void read_partial_vectors(const char* const* in, int64_t j, int count, Fill,
                                         Vec<typename A::Compute>* v) {
  for_each<kCount>([&](auto i) {
    constexpr auto kFill = static_cast<typename A::Compute>(Fill{}(i.value));
    v[i.value] = load_partial_as(element<A, i.value>(in, j), count, kFill);
  });
}

// Where a row lies in each of kCount operands, row after row.
template <int kCount>
class Walker {
 public:
  explicit Walker(const Rows& rows) : rows_(rows) {}

  void follow(int i, const int64_t* stride) {
    for (int d = 0; d < rows_.dims; ++d) stride_[d][i] = stride[d];
  }

  void seek(int64_t row) {
    if (row == row_) return;
    if (row == row_ + 1) return next();
    row_ = row;
    for (int i = 0; i < kCount; ++i) offset_[i] = 0;
    for (int d = rows_.dims - 1; d >= 0; --d) {
      index_[d] = row % rows_.size[d];
      row /= rows_.size[d];
      for (int i = 0; i < kCount; ++i) offset_[i] += index_[d] * stride_[d][i];
    }
  }

  const int64_t* offset() const { return offset_; }
  // How many rows follow along the innermost dim.
  int64_t ahead() const { return rows_.dims ? rows_.size[rows_.dims - 1] - 1 - index_[rows_.dims - 1] : 0; }

 private:
  void next() {
    ++row_;
    for (int d = rows_.dims - 1; d >= 0; --d) {
      ++index_[d];
      for (int i = 0; i < kCount; ++i) offset_[i] += stride_[d][i];
      if (index_[d] < rows_.size[d]) return;
      for (int i = 0; i < kCount; ++i) offset_[i] -= index_[d] * stride_[d][i];
      index_[d] = 0;
    }
  }

  const Rows& rows_;
  int64_t row_ = -2;  // Neither a row nor the one before the first.
  int64_t index_[kMaxDims] = {};
  int64_t offset_[kCount] = {};
  int64_t stride_[kMaxDims][kCount] = {};
};

}  // namespace
}  // namespace vae_ext::cpu

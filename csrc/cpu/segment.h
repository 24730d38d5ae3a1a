// Runs of up to kSegment elements of a row, in the type a kernel computes in. An operand of that type is read and
// written in place; any other goes through a buffer small enough for the first-level cache, so that kernels are
// compiled for float and double alone.
#pragma once

#include "../math/vec.h"
#include "kernels.h"

namespace vae_ext::cpu {
// Unnamed, here and in the other headers of this folder: what is compiled for an instruction set stays in its object.
namespace {

template <class C>
constexpr DType kDTypeOf = sizeof(C) == 4 ? DType::f32 : DType::f64;

template <class C, class From>
inline void widen(const From* from, int64_t n, C* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<C>(from[i]);
}
template <class C>
inline void widen_bfloat16(const uint16_t* from, int64_t n, C* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = bfloat16_to_float(from[i]);
}
template <class C>
VAE_EXT_INLINE void widen_half_vector(const uint16_t* from, C* to) {
  float lanes[kLanes];
  store(lanes, half_to_float(from));
  widen(lanes, kLanes, to);
}
template <class C>
inline void widen_half(const uint16_t* from, int64_t n, C* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) widen_half_vector(from + i, to + i);
  if (i == n) return;
  uint16_t rest[kLanes] = {};
  C widened[kLanes];
  memcpy(rest, from + i, static_cast<size_t>(n - i) * sizeof(uint16_t));
  widen_half_vector(rest, widened);
  memcpy(to + i, widened, static_cast<size_t>(n - i) * sizeof(C));
}

// Elements [at, at + n) of an operand, converted.
template <class C>
VAE_EXT_NOINLINE void read_segment(const Operand& operand, int64_t at, int64_t n, C* to) {
  switch (operand.dtype) {
    case DType::f32:
      return widen(static_cast<const float*>(operand.data) + at, n, to);
    case DType::f64:
      return widen(static_cast<const double*>(operand.data) + at, n, to);
    case DType::bf16:
      return widen_bfloat16(static_cast<const uint16_t*>(operand.data) + at, n, to);
    case DType::f16:
      return widen_half(static_cast<const uint16_t*>(operand.data) + at, n, to);
    case DType::u8:
      return widen(static_cast<const uint8_t*>(operand.data) + at, n, to);
  }
}

template <class C>
VAE_EXT_INLINE void write_half_vector(const C* from, uint16_t* to) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<float>(from[i]);
  float_to_half(to, load(lanes));
}
template <class C>
inline void write_half(const C* from, int64_t n, uint16_t* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) write_half_vector(from + i, to + i);
  if (i == n) return;
  C rest[kLanes] = {};
  uint16_t halves[kLanes];
  memcpy(rest, from + i, static_cast<size_t>(n - i) * sizeof(C));
  write_half_vector(rest, halves);
  memcpy(to + i, halves, static_cast<size_t>(n - i) * sizeof(uint16_t));
}

template <class C>
VAE_EXT_NOINLINE void write_segment(const Operand& operand, int64_t at, int64_t n, const C* from) {
  switch (operand.dtype) {
    case DType::f32:
      return widen(from, n, static_cast<float*>(operand.data) + at);
    case DType::f64:
      return widen(from, n, static_cast<double*>(operand.data) + at);
    case DType::bf16:
      for (int64_t i = 0; i < n; ++i)
        static_cast<uint16_t*>(operand.data)[at + i] = float_to_bfloat16(static_cast<float>(from[i]));
      return;
    case DType::f16:
      return write_half(from, n, static_cast<uint16_t*>(operand.data) + at);
    case DType::u8:
      return;  // No operator writes integers.
  }
}

// Segments of kCount operands side by side.
template <class C, int kCount>
class Inputs {
 public:
  // What is one number everywhere is spread out once.
  Inputs(const Operand* operands, const Rows& rows) : operands_(operands) {
    for (int i = 0; i < kCount; ++i) {
      const Operand& operand = operands[i];
      bool constant = operand.scalar;
      for (int d = 0; d < rows.dims; ++d) constant = constant && operand.stride[d] == 0;
      if (constant) fill(i, 0, kSegment);
      const bool direct = operand.dtype == kDTypeOf<C> && !operand.scalar;
      base_[i] = direct ? static_cast<const C*>(operand.data) : buffer_[i];
      step_[i] = direct ? 1 : 0;
      staged_[i] = !direct && !constant;
      any_staged_ = any_staged_ || staged_[i];
    }
  }

  // Element j on of the row whose offset in each operand is `row`; in[i] is good until the next call.
  void view(const int64_t* row, int64_t j, int64_t n, const C** in) {
    for (int i = 0; i < kCount; ++i) in[i] = base_[i] + step_[i] * (row[i] + j);
    if (any_staged_) stage(row, j, n);
  }

  // Is every operand read where it stands, or constant? Then view() only computes addresses.
  bool ready() const { return !any_staged_; }
  // What one step along dim d adds to in[i] of view().
  int64_t step(int i, int d) const { return step_[i] * operands_[i].stride[d]; }
  bool is_constant(int i) const { return step_[i] == 0; }

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
  const C* base_[kCount];
  int64_t step_[kCount];
  bool staged_[kCount], any_staged_ = false;
  alignas(64) C buffer_[kCount][kSegment];
};

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

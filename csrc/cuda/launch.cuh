// From a Problem to a launch: how its rows can be read, in what order, by how many blocks.
#pragma once

#include "group.cuh"

namespace vae_ext::cuda {

inline int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 8;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::u8:
      return 1;
    default:
      return 4;
  }
}

// Can the operand's rows be read in packs of so many elements?
inline bool is_aligned(const Operand& operand, const Rows& rows, int64_t count) {
  const int64_t size = size_of(operand.dtype), pack = pack_alignment(count * size);
  bool aligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(operand.data)) % pack == 0;
  for (int d = 0; d < rows.dims; ++d) aligned = aligned && operand.stride[d] * size % pack == 0;
  return aligned;
}

inline DType compute_dtype(const Problem& p) { return p.wide ? DType::f64 : DType::f32; }

// Can the problem's rows be read and its `outputs` elementwise ones be written in packs of so many elements?
inline bool in_packs(const Problem& p, int inputs, int outputs, int64_t count) {
  bool whole = p.rows.event % count == 0;
  for (int i = 0; i < inputs; ++i) whole = whole && (p.in[i].scalar || is_aligned(p.in[i], p.rows, count));
  for (int o = 0; o < outputs; ++o) whole = whole && (!p.out[o].wanted || is_aligned(p.out[o], p.rows, count));
  return whole;
}

// Are the outputs of one dtype with the parameters, or of that which is computed in?
inline bool outputs_follow(const Problem& p, int outputs, DType type) {
  bool follow = true;
  for (int o = 0; o < outputs; ++o)
    follow = follow && (!p.out[o].wanted || p.out[o].dtype == type || p.out[o].dtype == compute_dtype(p));
  return follow;
}

// The dtype that inputs [0, count) have in common, one value for the whole event apart, or u8 if they have none.
inline DType common_dtype(const Problem& p, int count) {
  DType common = compute_dtype(p);
  bool found = false;
  for (int i = 0; i < count; ++i) {
    if (p.in[i].scalar) continue;
    if (found && p.in[i].dtype != common) return DType::u8;
    common = p.in[i].dtype;
    found = true;
  }
  return common;
}

// f of the access in groups that the problem's rows allow: two at a time where one would not fill 16 bytes.
template <class T, class X, class F>
void with_groups(const Problem& p, int inputs, int outputs, F f) {
  if constexpr (kGroup * sizeof(T) < kMaxAccess) {
    if (in_packs(p, inputs, outputs, 2 * kGroup)) return f(Groups<T, X, 2>());
  }
  f(Groups<T, X>());
}

// f of the fastest access that there is for the problem. kData: is the last of the inputs x, which may be of another
// dtype than the parameters?
template <int kInputs, bool kData, class F>
void with_access(const Problem& p, int outputs, F f) {
  const DType type = common_dtype(p, kData ? kInputs - 1 : kInputs);
  const Operand& last = p.in[kInputs - 1];
  const DType data = !kData || last.scalar ? type : last.dtype;
  const bool whole = in_packs(p, kInputs, outputs, kGroup) && outputs_follow(p, outputs, type);
  if (p.wide) return whole && type == DType::f64 && data == type ? f(Groups<double>()) : f(Elements<double>());
  if (whole && data == type) {
    if (type == DType::f32) return with_groups<float, float>(p, kInputs, outputs, f);
    if (type == DType::bf16) return with_groups<bfloat16, bfloat16>(p, kInputs, outputs, f);
    if (type == DType::f16) return with_groups<float16, float16>(p, kInputs, outputs, f);
  }
  if constexpr (kData) {
    if (whole && data == DType::u8) {
      if (type == DType::f32) return with_groups<float, uint8_t>(p, kInputs, outputs, f);
      if (type == DType::bf16) return with_groups<bfloat16, uint8_t>(p, kInputs, outputs, f);
      if (type == DType::f16) return with_groups<float16, uint8_t>(p, kInputs, outputs, f);
    }
    if (whole && data == DType::f32) {
      if (type == DType::bf16) return with_groups<bfloat16, float>(p, kInputs, outputs, f);
      if (type == DType::f16) return with_groups<float16, float>(p, kInputs, outputs, f);
    }
  }
  f(Elements<float>());
}

inline int64_t count_rows(const Rows& rows, int first_dim, int last_dim) {
  int64_t count = 1;
  for (int d = first_dim; d < last_dim; ++d) count *= rows.size[d];
  return count;
}

// Elements from which on a row is worth sharing.
constexpr int64_t kLongRow = 256;

// The same problem with its rows in another order: those that read the same row of some input, because it is broadcast
// over dims where others are not, follow each other, so that neighbouring blocks find it in the cache.
inline Problem with_neighbours_sharing(const Problem& p, int inputs) {
  if (p.rows.event < kLongRow) return p;
  const int kept = p.rows.dims - p.rows.reduced_dims;
  int order[kMaxDims], count = 0;
  for (const bool pass : {false, true})
    for (int d = 0; d < kept; ++d) {
      bool shared = false;
      for (int i = 0; i < inputs; ++i) {
        bool varies = false;
        for (int e = 0; e < kept; ++e) varies = varies || p.in[i].stride[e] != 0;
        shared = shared || (varies && !p.in[i].scalar && p.in[i].stride[d] == 0);
      }
      if (shared == pass) order[count++] = d;
    }
  Problem q = p;
  const auto permute = [&](const int64_t* from, int64_t* to) {
    for (int d = 0; d < kept; ++d) to[d] = from[order[d]];
  };
  permute(p.rows.size, q.rows.size);
  for (int i = 0; i < kMaxInputs; ++i) permute(p.in[i].stride, q.in[i].stride);
  for (int o = 0; o < kMaxOutputs; ++o) permute(p.out[o].stride, q.out[o].stride);
  permute(p.row_value.stride, q.row_value.stride);
  permute(p.noise.row_stride, q.noise.row_stride);
  permute(p.noise.sample_stride, q.noise.sample_stride);
  return q;
}

// Blocks that are to run side by side, so that enough loads are under way to keep the memory busy. They bound the
// registers; how many a thread needs goes with the numbers that it holds for each element.
template <class Access>
constexpr int blocks_abreast(int numbers) {
  if (sizeof(typename Access::Compute) == 8) return numbers > 8 ? 1 : 2;
  const int held = numbers + Access::kExtraNumbers;
  return held > 11 ? 2 : held > 9 ? 3 : 4;
}

inline unsigned grid_for(int64_t blocks) { return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks); }

}  // namespace vae_ext::cuda

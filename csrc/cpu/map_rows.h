// Elementwise formulas over rows, and their sums over the replicas of a broadcast row: samplers and gradients.
#pragma once

#include "../math/formula.h"
#include "noise_block.h"

namespace vae_ext::cpu {
namespace {

template <class Formula, class C>
VAE_EXT_INLINE void apply_segment(const C* const* in, const C* row_value, C* const* out, int64_t n, bool stream) {
  using V = Vec<C>;
  const V row(row_value ? *row_value : C(0));
  for (int o = 0; o < Formula::kOutputs; ++o) stream = stream && is_aligned(out[o]);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    V v[Formula::kInputs], r[Formula::kOutputs];
    for (int i = 0; i < Formula::kInputs; ++i) {
      v[i] = load(in[i] + j);
      prefetch_page_ahead(in[i] + j);
    }
    Formula::apply(v, &row, r);
    for (int o = 0; o < Formula::kOutputs; ++o)
      if (out[o]) stream ? store_past_cache(out[o] + j, r[o]) : store(out[o] + j, r[o]);
  }
  if (j == n) return;
  const int rest = static_cast<int>(n - j);
  V v[Formula::kInputs], r[Formula::kOutputs];
  for (int i = 0; i < Formula::kInputs; ++i) v[i] = load_partial(in[i] + j, rest, C(1));
  Formula::apply(v, &row, r);
  for (int o = 0; o < Formula::kOutputs; ++o)
    if (out[o]) store_partial(out[o] + j, r[o], rest);
}

template <class C>
inline void add_to(C* sum, const C* term, int64_t n) {
  for (int64_t j = 0; j < n; ++j) sum[j] += term[j];
}

// A sum of many segments, in blocks of 32 so that rounding errors do not pile up.
template <class C>
class ReplicaSum {
 public:
  void reset() { count_ = 0; }
  C* term() { return term_; }
  void add(int64_t n) {
    if (count_ == 0) memset(sum_, 0, static_cast<size_t>(n) * sizeof(C));
    if (count_ % kBlock == 0) memset(block_, 0, static_cast<size_t>(n) * sizeof(C));
    add_to(block_, term_, n);
    if (++count_ % kBlock == 0) add_to(sum_, block_, n);
  }
  const C* total(int64_t n) {
    if (count_ % kBlock != 0) add_to(sum_, block_, n);
    return sum_;
  }

 private:
  static constexpr int64_t kBlock = 32;
  int64_t count_ = 0;
  alignas(64) C term_[kSegment];
  alignas(64) C block_[kSegment];
  alignas(64) C sum_[kSegment];
};

template <class Formula, class C, bool kNoise>
class RowMap {
 public:
  explicit RowMap(const Problem& p)
      : p_(p), inputs_(p.in, p.rows), walker_(p.rows), noise_(p.noise, p.rows.event), replicas_(1) {
    for (int i = 0; i < kOperands; ++i) walker_.follow(i, p.in[i].stride);
    for (int o = 0; o < Formula::kOutputs; ++o) walker_.follow(kOut + o, p.out[o].stride);
    walker_.follow(kRowValue, p.row_value.stride);
    walker_.follow(kRow, p.noise.row_stride);
    walker_.follow(kSample, p.noise.sample_stride);
    for (int d = p.rows.dims - p.rows.reduced_dims; d < p.rows.dims; ++d) replicas_ *= p.rows.size[d];
    if (p.rows.dims > 0) {
      const int last = p.rows.dims - 1;
      if (p.noise.row_stride[last] == 1 && p.noise.sample_stride[last] == 0) axis_ = NoiseBlock::Axis::row;
      if (p.noise.row_stride[last] == 0 && p.noise.sample_stride[last] == 1) axis_ = NoiseBlock::Axis::sample;
    }
  }

  void run(int64_t begin, int64_t end) {
    is_direct() ? run_direct(begin, end) : run_units(begin, end);
    if (p_.past_cache) finish_past_cache();
  }

 private:
  void run_units(int64_t begin, int64_t end) {
    const int64_t event = p_.rows.event, segments = (event + kSegment - 1) / kSegment;
    const int64_t chunks = (replicas_ + kReplicaChunk - 1) / kReplicaChunk;
    int64_t kept_rows = 1;
    for (int d = 0; d < p_.rows.dims - p_.rows.reduced_dims; ++d) kept_rows *= p_.rows.size[d];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t chunk_index = segments == 1 ? unit : unit / segments;
      const int64_t j = (unit - chunk_index * segments) * kSegment;
      const int64_t n = event - j < kSegment ? event - j : kSegment;
      if (replicas_ == 1) {
        walker_.seek(chunk_index);
        single(j, n);
      } else {
        const int64_t row = chunk_index / chunks, chunk = chunk_index - row * chunks;
        const int64_t first = chunk * kReplicaChunk;
        const int64_t count = replicas_ - first < kReplicaChunk ? replicas_ - first : kReplicaChunk;
        // With several chunks the output is a workspace [chunks, rows, event].
        const int64_t shift = chunk * kept_rows * event;
        summed(row * replicas_ + first, count, j, n, shift);
      }
    }
  }

  // Epsilon is the last input, and not one of the operands.
  static constexpr int kOperands = Formula::kInputs - (kNoise ? 1 : 0);
  static constexpr int kOut = kOperands, kRowValue = kOut + Formula::kOutputs, kRow = kRowValue + 1, kSample = kRow + 1;

  const C* row_value_at(const int64_t* at) const {
    return p_.row_value.data ? static_cast<const C*>(p_.row_value.data) + at[kRowValue] : nullptr;
  }

  static VAE_EXT_INLINE void apply(int64_t sample, const C* const* in, const C* row_value, C* const* out, int64_t n,
                                   bool stream) {
    if constexpr (LaterOf<Formula>::kDiffers) {
      if (sample > 0) return apply_segment<typename Formula::Later>(in, row_value, out, n, stream);
    }
    apply_segment<Formula>(in, row_value, out, n, stream);
  }

  // Of n elements from j on of a row, or of as many rows as make n elements.
  const C* epsilon(int64_t row, int64_t sample, int64_t j, int64_t n, int64_t ahead) {
    const int64_t of_row = n < p_.rows.event ? n : p_.rows.event;
    const float* values = noise_.at(static_cast<uint32_t>(row), static_cast<uint32_t>(sample), j, of_row, axis_, ahead);
    if constexpr (sizeof(C) == sizeof(float)) {
      return values;
    } else {
      widen(values, n, wide_epsilon_);
      return wide_epsilon_;
    }
  }

  void apply_at_walker(int64_t j, int64_t n, C* const* out, bool stream) {
    const int64_t* at = walker_.offset();
    const C* in[Formula::kInputs];
    inputs_.view(at, j, n, in);
    if constexpr (kNoise) in[kOperands] = epsilon(at[kRow], at[kSample], j, n, walker_.ahead());
    apply(at[kSample], in, row_value_at(at), out, n, stream);
  }

  // Rows of one segment each that are read and written where they stand: along the innermost dim only pointers move.
  bool is_direct() const {
    bool direct = replicas_ == 1 && p_.rows.dims > 0 && p_.rows.event <= kSegment && inputs_.ready();
    for (int o = 0; o < Formula::kOutputs; ++o)
      direct = direct && (!p_.out[o].wanted || p_.out[o].dtype == kDTypeOf<C>);
    return direct;
  }

  // Of direct rows, can a segment go on from one row into the next? Then short rows cost no more than long ones.
  bool is_dense() const {
    const int last = p_.rows.dims - 1;
    bool dense = !p_.row_value.data && p_.rows.event <= kSegment / 2;
    for (int i = 0; i < kOperands; ++i)
      dense = dense && (inputs_.is_constant(i) || p_.in[i].stride[last] == p_.rows.event);
    for (int o = 0; o < Formula::kOutputs; ++o)
      dense = dense && (!p_.out[o].wanted || p_.out[o].stride[last] == p_.rows.event);
    return dense && (!kNoise || (p_.rows.event % 4 == 0 && axis_ == NoiseBlock::Axis::row));
  }

  void run_direct(int64_t begin, int64_t end) {
    const int last = p_.rows.dims - 1;
    const int64_t event = p_.rows.event, block = is_dense() ? kSegment / event : 1;
    for (int64_t row = begin; row < end;) {
      walker_.seek(row);
      const int64_t left = end - row, ahead = walker_.ahead() + 1, rows = left < ahead ? left : ahead;
      const int64_t* at = walker_.offset();
      const C* in[Formula::kInputs];
      inputs_.view(at, 0, event, in);
      C* out[Formula::kOutputs];
      for (int o = 0; o < Formula::kOutputs; ++o)
        out[o] = p_.out[o].wanted ? static_cast<C*>(p_.out[o].data) + at[kOut + o] : nullptr;
      const C* row_value = row_value_at(at);
      int64_t number = at[kRow], sample = at[kSample];
      for (int64_t done = 0; done < rows;) {
        const int64_t count = rows - done < block ? rows - done : block;
        if constexpr (kNoise)
          in[kOperands] = epsilon(number, sample, 0, count * event, block > 1 ? count - 1 : rows - done - 1);
        apply(sample, in, row_value, out, count * event, p_.past_cache);
        for (int i = 0; i < kOperands; ++i) in[i] += count * inputs_.step(i, last);
        for (int o = 0; o < Formula::kOutputs; ++o)
          if (out[o]) out[o] += count * p_.out[o].stride[last];
        if (row_value) row_value += count * p_.row_value.stride[last];
        number += count * p_.noise.row_stride[last];
        sample += count * p_.noise.sample_stride[last];
        done += count;
      }
      row += rows;
    }
  }

  void single(int64_t j, int64_t n) {
    C* out[Formula::kOutputs];
    bool stream = p_.past_cache;
    for (int o = 0; o < Formula::kOutputs; ++o) {
      const Operand& operand = p_.out[o];
      const bool direct = operand.dtype == kDTypeOf<C>;
      out[o] = !operand.wanted ? nullptr
               : direct        ? static_cast<C*>(operand.data) + walker_.offset()[kOut + o] + j
                               : sums_[o].term();
      stream = stream && direct;
    }
    apply_at_walker(j, n, out, stream);
    for (int o = 0; o < Formula::kOutputs; ++o)
      if (out[o] == sums_[o].term()) write_segment(p_.out[o], walker_.offset()[kOut + o] + j, n, out[o]);
  }

  void summed(int64_t first, int64_t count, int64_t j, int64_t n, int64_t shift) {
    C* out[Formula::kOutputs];
    for (int o = 0; o < Formula::kOutputs; ++o) {
      out[o] = p_.out[o].wanted ? sums_[o].term() : nullptr;
      sums_[o].reset();
    }
    walker_.seek(first);
    int64_t target[Formula::kOutputs];
    for (int o = 0; o < Formula::kOutputs; ++o) target[o] = walker_.offset()[kOut + o] + shift + j;
    for (int64_t replica = 0; replica < count; ++replica) {
      walker_.seek(first + replica);
      apply_at_walker(j, n, out, false);
      for (int o = 0; o < Formula::kOutputs; ++o)
        if (out[o]) sums_[o].add(n);
    }
    for (int o = 0; o < Formula::kOutputs; ++o)
      if (out[o]) write_segment(p_.out[o], target[o], n, sums_[o].total(n));
  }

  const Problem& p_;
  Inputs<C, kOperands> inputs_;
  Walker<kSample + 1> walker_;
  NoiseBlock noise_;
  NoiseBlock::Axis axis_ = NoiseBlock::Axis::none;
  int64_t replicas_;
  ReplicaSum<C> sums_[Formula::kOutputs];
  C wide_epsilon_[kNoise && sizeof(C) != sizeof(float) ? kSegment : 1];
};

template <class Formula, bool kNoise = false>
void map_rows(const Problem& p, int64_t begin, int64_t end) {
  p.wide ? RowMap<Formula, double, kNoise>(p).run(begin, end) : RowMap<Formula, float, kNoise>(p).run(begin, end);
}

}  // namespace
}  // namespace vae_ext::cpu

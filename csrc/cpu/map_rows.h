// Elementwise formulas over rows, and their sums over the replicas of a broadcast row: samplers and gradients.
#pragma once

#include "../math/formula.h"
#include "noise_block.h"

namespace vae_ext::cpu {
namespace {

template <class Formula, class A>
VAE_EXT_INLINE void apply_segment(const char* const* in, const typename A::Compute* row_value,
                                  typename A::Compute* const* out, int64_t n, bool past_cache) {
  using C = typename A::Compute;
  using V = Vec<C>;
  const V row(row_value ? *row_value : C(0));
  for (int o = 0; o < Formula::kOutputs; ++o) past_cache = past_cache && is_aligned(out[o]);
  Vectors<A, Formula::kInputs> vectors(in, n);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    V v[Formula::kInputs], r[Formula::kOutputs];
    vectors.next(j, v);
    Formula::apply(v, &row, r);
    for (int o = 0; o < Formula::kOutputs; ++o)
      if (out[o]) past_cache ? store_past_cache(out[o] + j, r[o]) : store(out[o] + j, r[o]);
  }
  if (j == n) return;
  const int rest = static_cast<int>(n - j);
  V v[Formula::kInputs], r[Formula::kOutputs];
  read_partial_vectors<A, Formula::kInputs>(in, j, rest, [](int) { return 1.0; }, v);
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

template <class Formula, class Operands, bool kNoise>
class RowMap {
 public:
  using C = typename Operands::Compute;
  using NoiseBlock = cpu::NoiseBlock<kAnyStandard<Formula>>;

  explicit RowMap(const Problem& p)
      : p_(p), inputs_(p.in, p.rows), walker_(p.rows), noise_(p.noise, p.rows.event), replicas_(1) {
    for (int i = 0; i < kOperands; ++i) walker_.follow(i, p.in[i].stride);
    for (int o = 0; o < Formula::kOutputs; ++o) walker_.follow(kOut + o, p.out[o].stride);
    walker_.follow(kRowValue, p.row_value.stride);
    walker_.follow(kRow, p.noise.row_stride);
    walker_.follow(kSample, p.noise.sample_stride);
    for (int d = p.rows.dims - p.rows.reduced_dims; d < p.rows.dims; ++d) replicas_ *= p.rows.size[d];
    for (int o = 0; o < Formula::kOutputs; ++o) any_staged_ = any_staged_ || is_staged(o);
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
    const int64_t event = p_.rows.event, segments = divide_up(event, kSegment);
    const int64_t chunks = divide_up(replicas_, kReplicaChunk);
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

  // Epsilon is the last input, of type C, and not one of the operands.
  static constexpr int kOperands = Formula::kInputs - (kNoise ? 1 : 0);
  using Read = std::conditional_t<kNoise, typename Operands::template With<kOperands>, Operands>;
  static constexpr int kOut = kOperands, kRowValue = kOut + Formula::kOutputs, kRow = kRowValue + 1, kSample = kRow + 1;

  const C* row_value_at(const int64_t* at) const {
    return p_.row_value.data ? static_cast<const C*>(p_.row_value.data) + at[kRowValue] : nullptr;
  }

  static VAE_EXT_INLINE void apply(int64_t sample, const char* const* in, const C* row_value, C* const* out, int64_t n,
                                   bool past_cache) {
    if constexpr (kHasLater<Formula>) {
      if (sample > 0) return apply_segment<typename Formula::Later, Read>(in, row_value, out, n, past_cache);
    }
    apply_segment<Formula, Read>(in, row_value, out, n, past_cache);
  }

  // Of n elements from j on of a row, or of as many rows as make n elements.
  const char* epsilon(int64_t row, int64_t sample, int64_t j, int64_t n, int64_t ahead) {
    const int64_t of_row = n < p_.rows.event ? n : p_.rows.event;
    const float* values = noise_.at(static_cast<uint32_t>(row), static_cast<uint32_t>(sample), j, of_row, axis_, ahead);
    if constexpr (sizeof(C) == sizeof(float)) {
      return reinterpret_cast<const char*>(values);
    } else {
      convert(values, n, wide_epsilon_);
      return reinterpret_cast<const char*>(wide_epsilon_);
    }
  }

  void apply_at_walker(int64_t j, int64_t n, C* const* out, bool past_cache) {
    const int64_t* at = walker_.offset();
    const char* in[Formula::kInputs];
    inputs_.view(at, j, n, in);
    if constexpr (kNoise) in[kOperands] = epsilon(at[kRow], at[kSample], j, n, walker_.ahead());
    apply(at[kSample], in, row_value_at(at), out, n, past_cache);
  }

  // Rows of one segment each that are read where they stand: along the innermost dim only pointers move.
  bool is_direct() const { return replicas_ == 1 && p_.rows.dims > 0 && p_.rows.event <= kSegment && inputs_.ready(); }

  // Can a segment go on from one direct row into the next? Then short rows cost no more than long ones.
  bool is_dense() const {
    const int last = p_.rows.dims - 1;
    bool dense = !p_.row_value.data;
    for (int i = 0; i < kOperands; ++i)
      dense = dense && (inputs_.is_constant(i) || p_.in[i].stride[last] == p_.rows.event);
    return dense && (!kNoise || (p_.rows.event % 4 == 0 && axis_ == NoiseBlock::Axis::row));
  }

  // Do the rows of each output follow each other along the innermost dim?
  bool are_outputs_dense() const {
    bool dense = true;
    for (int o = 0; o < Formula::kOutputs; ++o)
      dense = dense && (!p_.out[o].wanted || p_.out[o].stride[p_.rows.dims - 1] == p_.rows.event);
    return dense;
  }

  bool is_staged(int o) const { return p_.out[o].wanted && p_.out[o].dtype != kDTypeOf<C>; }

  // Where output o is computed that is to be stored from element `at` on.
  C* target(int o, int64_t at) {
    if (!p_.out[o].wanted) return nullptr;
    return is_staged(o) ? sums_[o].term() : static_cast<C*>(p_.out[o].data) + at;
  }
  void store_staged(int o, int64_t at, int64_t n) {
    if (is_staged(o)) write_segment(p_.out[o], at, n, sums_[o].term(), p_.past_cache);
  }

  // Where a row lies in each operand, and its numbers in the noise.
  struct Place {
    const char* in[Formula::kInputs];
    int64_t out[Formula::kOutputs];
    const C* row_value;
    int64_t row, sample;
  };

  Place place_at_walker() {
    const int64_t* at = walker_.offset();
    Place place;
    inputs_.view(at, 0, p_.rows.event, place.in);
    for (int o = 0; o < Formula::kOutputs; ++o) place.out[o] = at[kOut + o];
    place.row_value = row_value_at(at);
    place.row = at[kRow];
    place.sample = at[kSample];
    return place;
  }

  // As many rows at a time as make a segment, so that outputs are converted in long runs.
  void run_direct(int64_t begin, int64_t end) {
    const int64_t most = are_outputs_dense() ? kSegment / p_.rows.event : 1;
    const bool dense = most > 1 && is_dense();
    for (int64_t row = begin; row < end;) {
      walker_.seek(row);
      const int64_t left = end - row, ahead = walker_.ahead() + 1, rows = left < ahead ? left : ahead;
      Place place = place_at_walker();
      for (int64_t done = 0; done < rows;) {
        const int64_t count = rows - done < most ? rows - done : most;
        map_block(place, count, dense ? count : 1, rows - done - 1);
        done += count;
      }
      row += rows;
    }
  }

  // `count` rows that follow each other along the innermost dim, `joined` of them at a time taken as one; `ahead` come
  // after the first. Goes to the place behind them.
  VAE_EXT_INLINE void map_block(Place& place, int64_t count, int64_t joined, int64_t ahead) {
    const int last = p_.rows.dims - 1;
    const int64_t n = joined * p_.rows.event;
    C* out[Formula::kOutputs];
    for (int o = 0; o < Formula::kOutputs; ++o) out[o] = target(o, place.out[o]);
    for (int64_t i = 0; i < count; i += joined) {
      if constexpr (kNoise)
        place.in[kOperands] = epsilon(place.row, place.sample, 0, n, joined > 1 ? joined - 1 : ahead - i);
      apply(place.sample, place.in, place.row_value, out, n, p_.past_cache && !any_staged_);
      for (int k = 0; k < kOperands; ++k) place.in[k] += joined * inputs_.step(k, last);
      for (int o = 0; o < Formula::kOutputs; ++o)
        if (out[o]) out[o] += n;
      if (place.row_value) place.row_value += joined * p_.row_value.stride[last];
      place.row += joined * p_.noise.row_stride[last];
      place.sample += joined * p_.noise.sample_stride[last];
    }
    for (int o = 0; o < Formula::kOutputs; ++o) {
      store_staged(o, place.out[o], count * p_.rows.event);
      place.out[o] += count * p_.out[o].stride[last];
    }
  }

  void single(int64_t j, int64_t n) {
    C* out[Formula::kOutputs];
    for (int o = 0; o < Formula::kOutputs; ++o) out[o] = target(o, walker_.offset()[kOut + o] + j);
    apply_at_walker(j, n, out, p_.past_cache && !any_staged_);
    for (int o = 0; o < Formula::kOutputs; ++o) store_staged(o, walker_.offset()[kOut + o] + j, n);
  }

  void summed(int64_t first, int64_t count, int64_t j, int64_t n, int64_t shift) {
    C* out[Formula::kOutputs];
    for (int o = 0; o < Formula::kOutputs; ++o) {
      out[o] = p_.out[o].wanted ? sums_[o].term() : nullptr;
      sums_[o].reset();
    }
    walker_.seek(first);
    int64_t to[Formula::kOutputs];
    for (int o = 0; o < Formula::kOutputs; ++o) to[o] = walker_.offset()[kOut + o] + shift + j;
    for (int64_t replica = 0; replica < count; ++replica) {
      walker_.seek(first + replica);
      apply_at_walker(j, n, out, false);
      for (int o = 0; o < Formula::kOutputs; ++o)
        if (out[o]) sums_[o].add(n);
    }
    for (int o = 0; o < Formula::kOutputs; ++o)
      if (out[o]) write_segment(p_.out[o], to[o], n, sums_[o].total(n), false);
  }

  const Problem& p_;
  Inputs<Operands, kOperands> inputs_;
  Walker<kSample + 1> walker_;
  NoiseBlock noise_;
  NoiseBlock::Axis axis_ = NoiseBlock::Axis::none;
  int64_t replicas_;
  // Is any output of a type other than C?
  bool any_staged_ = false;
  ReplicaSum<C> sums_[Formula::kOutputs];
  C wide_epsilon_[kNoise && sizeof(C) != sizeof(float) ? kSegment : 1];
};

// Sets: see Floats.
template <class Formula, bool kNoise, class... Sets>
void map_rows(const Problem& p, int64_t begin, int64_t end) {
  constexpr int kOperands = Formula::kInputs - (kNoise ? 1 : 0);
  static_assert(kOperands <= kMaxInputs && Formula::kOutputs <= kMaxOutputs, "a Problem has room for them");
  with_access<Sets...>(p, kOperands,
                       [&](auto access) { RowMap<Formula, decltype(access), kNoise>(p).run(begin, end); });
}

}  // namespace
}  // namespace vae_ext::cpu

// Sums of a term over each row, in a tree that depends on the row's length alone:
//   lane j mod 16 of accumulator (j div 16) mod 4, at most 16 terms in order          (a segment of 1024)
//   the accumulators by pairs, the last part of a vector joining the second pair       (a segment of 1024)
//   segments in order, lane by lane                                                    (a span of 16384)
//   the 16 lanes by halves, then spans in order, in double
#pragma once

#include "segment.h"

namespace vae_ext::cpu {
namespace {

// A term that is simply added.
template <class Formula>
struct Plain : Formula {
  template <class V>
  struct Sum {
    V value;
  };
  template <class V>
  static VAE_EXT_INLINE Sum<V> zero() {
    return {constant<V>(0.0)};
  }
  template <class V>
  static VAE_EXT_INLINE void add(Sum<V>& sum, const V* in) {
    sum.value = sum.value + Formula::term(in);
  }
  template <class V>
  static VAE_EXT_INLINE void merge(Sum<V>& sum, const Sum<V>& other) {
    sum.value = sum.value + other.value;
  }
  template <class V>
  static VAE_EXT_INLINE V value(const Sum<V>& sum) {
    return sum.value;
  }
};

template <class Term, class C>
VAE_EXT_INLINE Vec<C> sum_segment(const C* const* in, int64_t n) {
  using V = Vec<C>;
  constexpr int kSums = 4;
  auto sum0 = Term::template zero<V>(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  const auto add = [&](auto& sum, int64_t j) {
    V v[Term::kInputs];
    for (int i = 0; i < Term::kInputs; ++i) v[i] = load(in[i] + j);
    Term::add(sum, v);
  };
  int64_t j = 0;
  for (; j + kSums * kLanes <= n; j += kSums * kLanes) {
    add(sum0, j);
    add(sum1, j + kLanes);
    add(sum2, j + 2 * kLanes);
    add(sum3, j + 3 * kLanes);
  }
  const int64_t whole = (n - j) / kLanes;
  if (whole > 0) add(sum0, j);
  if (whole > 1) add(sum1, j + kLanes);
  if (whole > 2) add(sum2, j + 2 * kLanes);
  j += whole * kLanes;
  Term::merge(sum0, sum1);
  Term::merge(sum2, sum3);
  if (j < n) {
    V v[Term::kInputs];
    for (int i = 0; i < Term::kInputs; ++i)
      v[i] = load_partial(in[i] + j, static_cast<int>(n - j), static_cast<C>(Term::neutral(i)));
    Term::add(sum2, v);
  }
  Term::merge(sum0, sum2);
  return Term::value(sum0);
}

template <class Term, class C>
void sum_rows_as(const Problem& p, int64_t begin, int64_t end) {
  const int64_t event = p.rows.event;
  const int64_t spans = event > kSpan ? (event + kSpan - 1) / kSpan : 1;
  Inputs<C, Term::kInputs> inputs(p.in, p.rows);
  constexpr int kOut = Term::kInputs;
  Walker<kOut + 1> walker(p.rows);
  for (int i = 0; i < Term::kInputs; ++i) walker.follow(i, p.in[i].stride);
  walker.follow(kOut, p.out[0].stride);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t row = spans == 1 ? unit : unit / spans;
    const int64_t first = (unit - row * spans) * kSpan;
    const int64_t last = event - first < kSpan ? event : first + kSpan;
    walker.seek(row);
    Vec<C> total(C(0));
    for (int64_t j = first; j < last; j += kSegment) {
      const int64_t n = last - j < kSegment ? last - j : kSegment;
      const C* in[Term::kInputs];
      inputs.view(walker.offset(), j, n, in);
      total = total + sum_segment<Term>(in, n);
    }
    const C sum = horizontal_sum(total);
    if (spans > 1) {
      static_cast<double*>(p.out[0].data)[unit] = sum;
    } else {
      static_cast<C*>(p.out[0].data)[walker.offset()[kOut]] =
          fma(static_cast<C>(p.factor), sum, static_cast<C>(p.constant));
    }
  }
}

template <class Term>
void sum_rows(const Problem& p, int64_t begin, int64_t end) {
  p.wide ? sum_rows_as<Term, double>(p, begin, end) : sum_rows_as<Term, float>(p, begin, end);
}

}  // namespace
}  // namespace vae_ext::cpu

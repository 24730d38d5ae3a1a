// Sums of a term over each row, in a tree that depends on the row's length alone:
//   lane j mod 16 of accumulator (j div 16) mod 4, at most 16 terms in order          (a segment of 1024)
//   the accumulators by pairs, the last part of a vector joining the second pair       (a segment of 1024)
//   segments in order, lane by lane                                                    (a span of 16384)
//   the 16 lanes by halves, then spans in order, in double
#pragma once

#include "../math/formula.h"
#include "segment.h"

namespace vae_ext::cpu {
namespace {

static_assert(kSegment / kLanes <= kMaxTerms, "a lane sums its part of a segment before it takes the value");

template <class Term, class A>
VAE_EXT_INLINE Vec<typename A::Compute> sum_segment(const char* const* in, int64_t n) {
  using V = Vec<typename A::Compute>;
  constexpr int kSums = 4;
  auto sum0 = Term::template zero<V>(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  Vectors<A, Term::kInputs> vectors(in, n);
  const auto add = [&](auto& sum, int64_t j) {
    V v[Term::kInputs];
    vectors.next(j, v);
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
    read_partial_vectors<A, Term::kInputs>(in, j, static_cast<int>(n - j), [](int i) { return Term::neutral(i); }, v);
    Term::add(sum2, v);
  }
  Term::merge(sum0, sum2);
  return Term::value(sum0);
}

template <class Term, class A>
class RowSums {
 public:
  using C = typename A::Compute;

  explicit RowSums(const Problem& p) : p_(p), inputs_(p.in, p.rows), walker_(p.rows) {
    for (int i = 0; i < kOut; ++i) walker_.follow(i, p.in[i].stride);
    walker_.follow(kOut, p.out[0].stride);
  }

  void run(int64_t begin, int64_t end) {
    const bool direct = p_.rows.dims > 0 && p_.rows.event <= kSegment && inputs_.ready();
    direct ? run_direct(begin, end) : run_units(begin, end);
  }

 private:
  static constexpr int kOut = Term::kInputs;

  C finished(C sum) const { return fma(static_cast<C>(p_.factor), sum, static_cast<C>(p_.constant)); }

  // Rows of one segment each that are read where they stand: along the innermost dim only pointers move.
  void run_direct(int64_t begin, int64_t end) {
    const int last = p_.rows.dims - 1;
    for (int64_t row = begin; row < end;) {
      walker_.seek(row);
      const int64_t left = end - row, ahead = walker_.ahead() + 1, rows = left < ahead ? left : ahead;
      const char* in[kOut];
      inputs_.view(walker_.offset(), 0, p_.rows.event, in);
      C* out = static_cast<C*>(p_.out[0].data) + walker_.offset()[kOut];
      for (int64_t i = 0; i < rows; ++i) {
        *out = finished(horizontal_sum(sum_segment<Term, A>(in, p_.rows.event)));
        for (int k = 0; k < kOut; ++k) in[k] += inputs_.step(k, last);
        out += p_.out[0].stride[last];
      }
      row += rows;
    }
  }

  void run_units(int64_t begin, int64_t end) {
    const int64_t event = p_.rows.event, spans = event > kSpan ? divide_up(event, kSpan) : 1;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t row = spans == 1 ? unit : unit / spans;
      const int64_t first = (unit - row * spans) * kSpan;
      const int64_t last = event - first < kSpan ? event : first + kSpan;
      walker_.seek(row);
      const C sum = horizontal_sum(span_sum(first, last));
      if (spans > 1) {
        static_cast<double*>(p_.out[0].data)[unit] = sum;
      } else {
        static_cast<C*>(p_.out[0].data)[walker_.offset()[kOut]] = finished(sum);
      }
    }
  }

  Vec<C> span_sum(int64_t first, int64_t last) {
    Vec<C> total(C(0));
    for (int64_t j = first; j < last; j += kSegment) {
      const int64_t n = last - j < kSegment ? last - j : kSegment;
      const char* in[kOut];
      inputs_.view(walker_.offset(), j, n, in);
      total = total + sum_segment<Term, A>(in, n);
    }
    return total;
  }

  const Problem& p_;
  Inputs<A, kOut> inputs_;
  Walker<kOut + 1> walker_;
};

// Sets: see Floats.
template <class Term, class... Sets>
void sum_rows(const Problem& p, int64_t begin, int64_t end) {
  static_assert(Term::kInputs <= kMaxInputs, "a Problem has room for them");
  with_access<Sets...>(p, Term::kInputs, [&](auto access) { RowSums<Term, decltype(access)>(p).run(begin, end); });
}

}  // namespace
}  // namespace vae_ext::cpu

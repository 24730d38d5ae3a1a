// Sums of a term over each row, in a tree that depends on the row's length alone:
//   group j / 4 of a span goes to lane (j / 4) mod lanes, and element j mod 4 to that accumulator of the lane
//   up to 64 terms of a lane: each accumulator in order, then by pairs                  (a segment of 64 * lanes)
//   segments in order                                                                   (a span of 16384)
//   lanes by halves inside a warp, warps in order, then spans in double                 (sum_spans)
// How a group is loaded does not enter into it, nor its dtype, nor where other rows lie.
#pragma once

#include "../math/formula.h"
#include "launch.cuh"

namespace vae_ext::cuda {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xFFFFFFFFu;

// How the rows of a problem are summed: units are spans of rows, `lanes` threads to each, a power of two.
struct SumPlan {
  int64_t units, spans;
  int lanes, lane_bits, threads;
};

// Enough lanes for a row's loads to be under way together, no more than it keeps busy.
inline SumPlan plan_sums(const Rows& rows) {
  const int64_t event = rows.event, spans = event <= kSpan ? 1 : divide_up(event, kSpan);
  const int bits = event <= 64 ? 3 : event <= 128 ? 4 : event <= 3072 ? 5 : event <= 6144 ? 6 : event <= 12288 ? 7 : 8;
  return {count_rows(rows, 0, rows.dims) * spans, spans, 1 << bits, bits, bits == 8 ? kMaxThreads : kMaxThreads / 2};
}

// One lane's part of elements [0, length). view(j, v) gives the group from j on, and says whether it counts.
//
// The value of a lane's terms is taken before lanes are added up: a warp takes the logarithm of a Bernoulli for all its
// lanes in the time that it takes for one, and no product of factors passes kMaxTerms.
template <class Term, class C, class View>
__device__ __forceinline__ C lane_sum(int length, int lane, int lanes, View view) {
  C total(0);
#pragma unroll 1
  for (int segment = 0; segment < length; segment += kMaxTerms * lanes) {
    const int rest = length - segment, end = segment + (rest < kMaxTerms * lanes ? rest : kMaxTerms * lanes);
    typename Term::template Sum<C> sum[kGroup];
    for (int k = 0; k < kGroup; ++k) sum[k] = Term::template zero<C>();
    for (int j = segment + kGroup * lane; j < end; j += kGroup * lanes) {
      C v[kGroup][Term::kInputs];
      if (!view(j, v)) continue;
      for (int k = 0; k < kGroup; ++k) Term::add(sum[k], v[k]);
    }
    Term::merge(sum[0], sum[1]);
    Term::merge(sum[2], sum[3]);
    Term::merge(sum[0], sum[2]);
    total = total + Term::value(sum[0]);
  }
  return total;
}

// The sum of all lanes of a row, in each of them. Every thread of the block takes part.
template <class C>
__device__ __forceinline__ C add_lanes(C sum, int lanes) {
#pragma unroll 1
  for (int half = (lanes < kWarp ? lanes : kWarp) >> 1; half > 0; half >>= 1)
    sum = sum + __shfl_xor_sync(kAllLanes, sum, half);
  if (lanes <= kWarp) return sum;
  VAE_EXT_SHARED(C, warp_sum, kMaxThreads / kWarp);
  const unsigned thread = threadIdx.x, first = (thread & -lanes) / kWarp, count = lanes / kWarp;
  __syncthreads();  // The sums of the rows before have been read.
  if (thread % kWarp == 0) warp_sum[thread / kWarp] = sum;
  __syncthreads();
  C total = warp_sum[first];
#pragma unroll 1
  for (unsigned warp = 1; warp < count; ++warp) total = total + warp_sum[first + warp];
  return total;
}

// Of one span of a row: the result itself if there is no other.
template <class C>
__device__ __forceinline__ void write_sum(const Problem& p, const Operand& out, const SumPlan& plan, int64_t row,
                                          int64_t span, C sum) {
  const int64_t at = output_offset(p, out, p.rows.dims, row);
  if (plan.spans > 1) {
    static_cast<double*>(out.data)[at * plan.spans + span] = sum;
  } else {
    write(out, at, fma(static_cast<C>(p.factor), sum, static_cast<C>(p.constant)));
  }
}

// f(exists, row, span, lane) for the units that a block takes side by side, and again until there are no more. Past the
// last unit a thread still takes part, with exists = false.
template <class F>
__device__ __forceinline__ void for_each_span(const SumPlan& plan, F f) {
  const int thread = static_cast<int>(threadIdx.x), abreast = plan.threads >> plan.lane_bits;
#pragma unroll 1
  for (int64_t first = int64_t{blockIdx.x} * abreast; first < plan.units; first += int64_t{gridDim.x} * abreast) {
    const int64_t unit = first + (thread >> plan.lane_bits), row = plan.spans == 1 ? unit : divide(unit, plan.spans);
    f(unit < plan.units, row, unit - row * plan.spans, thread & (plan.lanes - 1));
  }
}

VAE_EXT_INLINE int span_length(int64_t event, int64_t span) {
  const int64_t rest = event - span * kSpan;
  return static_cast<int>(rest < kSpan ? rest : kSpan);
}

template <class Term, class Access>
__global__ void __launch_bounds__(kMaxThreads, sizeof(typename Access::Compute) == 4 ? 4 : 2)
    sum_rows_kernel(const __grid_constant__ Problem p, const __grid_constant__ SumPlan plan) {
  using C = typename Access::Compute;
  for_each_span(plan, [&](bool exists, int64_t row, int64_t span, int lane) {
    C sum(0);
    RowOffsets<Term::kInputs> at;
    const int length = span_length(p.rows.event, span);
    if (exists) at.advance(p, 0, p.rows.dims, row);
    if (exists && kGroup * lane < length) {
      const Inputs<Access, Term::kInputs> inputs(p.in, at.in);
      sum = lane_sum<Term, C>(length, lane, plan.lanes, [&](int j, auto& v) {
        inputs.view(span * kSpan + j, p.rows.event, [](int i) { return Term::neutral(i); }, v);
        return true;
      });
    }
    sum = add_lanes(sum, plan.lanes);
    if (exists && lane == 0) write_sum(p, p.out[0], plan, row, span, sum);
  });
}

// Launches one of the kernels that sum rows; no rows are no launch.
template <class Kernel>
void launch_sums(Kernel* kernel, const Problem& p, Stream stream) {
  const SumPlan plan = plan_sums(p.rows);
  if (plan.units == 0) return;
  launch(kernel, grid_for(divide_up(plan.units << plan.lane_bits, plan.threads)), plan.threads, stream, p, plan);
}

template <class Term, bool kData = false>
void sum_rows(const Problem& problem, Stream stream) {
  const Problem p = with_neighbours_sharing(problem, Term::kInputs);
  with_access<Term::kInputs, kData>(
      p, 0, [&](auto access) { launch_sums(&sum_rows_kernel<Term, decltype(access)>, p, stream); });
}

}  // namespace vae_ext::cuda

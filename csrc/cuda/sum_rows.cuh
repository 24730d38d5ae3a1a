// Sums of a term over each row, in a tree that depends on the row's length alone:
//   group j / 4 of a span goes to lane (j / 4) mod lanes, and element j mod 4 to that accumulator of the lane
//   up to 64 terms of a lane: each accumulator in order, then by pairs                  (a segment of 64 * lanes)
//   segments in order                                                                   (a span of 16384)
//   lanes by halves inside a warp, warps in order, then spans in double                 (sum_spans)
// A thread has one lane, or two neighbouring ones where it takes two groups at a time; neither that, nor how a group is
// loaded, nor its dtype, nor where other rows lie enters into the tree.
#pragma once

#include "../math/formula.h"
#include "launch.cuh"

namespace vae_ext::cuda {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xFFFFFFFFu;

// How the rows of a problem are summed: units are spans of rows, a team of threads to each, a power of two.
struct SumPlan {
  int64_t units, spans;
  int team, team_bits, threads;
};

// Enough lanes for a row's loads to be under way together, no more than it keeps busy; kGroups of them to a thread.
template <int kGroups>
SumPlan plan_sums(const Rows& rows) {
  const int64_t event = rows.event, spans = event <= kSpan ? 1 : divide_up(event, kSpan);
  const int lane_bits = event <= 64      ? 3
                        : event <= 128   ? 4
                        : event <= 3072  ? 5
                        : event <= 6144  ? 6
                        : event <= 12288 ? 7
                                         : 8;
  const int bits = lane_bits - (kGroups - 1);
  return {count_rows(rows, 0, rows.dims) * spans, spans, 1 << bits, bits, bits == 8 ? kMaxThreads : kMaxThreads / 2};
}

// The sum of each of a thread's lanes.
template <class C, int kGroups>
struct LaneSums {
  static_assert(kGroups == 1 || kGroups == 2);
  C lane[kGroups] = {};
};

// Of elements [0, length). for_each_group(j, f) is to call f(g, v) for the groups from element j on that count.
//
// The value of a lane's terms is taken before lanes are added up: a warp takes the logarithm of a Bernoulli for all its
// lanes in the time that it takes for one, and no product of factors passes kMaxTerms.
template <class Term, class C, int kGroups, class ForEachGroup>
__device__ __forceinline__ LaneSums<C, kGroups> sum_lanes(int length, int thread, int team,
                                                          ForEachGroup for_each_group) {
  constexpr int kThreadWidth = kGroups * kGroup;
  const int segment_length = kMaxTerms * kGroups * team;
  LaneSums<C, kGroups> sums;
#pragma unroll 1
  for (int segment = 0; segment < length; segment += segment_length) {
    const int rest = length - segment, end = segment + (rest < segment_length ? rest : segment_length);
    typename Term::template Sum<C> sum[kGroups][kGroup];
    for (int g = 0; g < kGroups; ++g)
      for (int k = 0; k < kGroup; ++k) sum[g][k] = Term::template zero<C>();
    for (int j = segment + kThreadWidth * thread; j < end; j += kThreadWidth * team)
      for_each_group(j, [&](int g, const C(&v)[kGroup][Term::kInputs]) {
        for (int k = 0; k < kGroup; ++k) Term::add(sum[g][k], v[k]);
      });
    for (int g = 0; g < kGroups; ++g) {
      Term::merge(sum[g][0], sum[g][1]);
      Term::merge(sum[g][2], sum[g][3]);
      Term::merge(sum[g][0], sum[g][2]);
      sums.lane[g] = sums.lane[g] + Term::value(sum[g][0]);
    }
  }
  return sums;
}

// The sum of all lanes of a row, in each thread of its team. Every thread of the block takes part.
template <class C, int kGroups>
__device__ __forceinline__ C add_lanes(LaneSums<C, kGroups> sums, int team) {
  constexpr int kWarpOfLanes = kWarp / kGroups;  // In threads.
#pragma unroll 1
  for (int half = (team < kWarpOfLanes ? team : kWarpOfLanes) >> 1; half > 0; half >>= 1)
    for (int g = 0; g < kGroups; ++g) sums.lane[g] = sums.lane[g] + __shfl_xor_sync(kAllLanes, sums.lane[g], half);
  C sum = sums.lane[0];
  if constexpr (kGroups == 2) sum = sum + sums.lane[1];
  if (team <= kWarpOfLanes) return sum;
  VAE_EXT_SHARED(C, warp_sum, kMaxThreads / kWarpOfLanes);
  const unsigned thread = threadIdx.x, first = (thread & -team) / kWarpOfLanes, count = team / kWarpOfLanes;
  __syncthreads();  // The sums of the rows before have been read.
  if (thread % kWarpOfLanes == 0) warp_sum[thread / kWarpOfLanes] = sum;
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

// f(exists, row, span, thread of the team) for the units that a block takes side by side, and again until there are no
// more. Past the last unit a thread still takes part, with exists = false.
template <class F>
__device__ __forceinline__ void for_each_span(const SumPlan& plan, F f) {
  const int thread = static_cast<int>(threadIdx.x), abreast = plan.threads >> plan.team_bits;
#pragma unroll 1
  for (int64_t first = int64_t{blockIdx.x} * abreast; first < plan.units; first += int64_t{gridDim.x} * abreast) {
    const int64_t unit = first + (thread >> plan.team_bits), row = plan.spans == 1 ? unit : divide(unit, plan.spans);
    f(unit < plan.units, row, unit - row * plan.spans, thread & (plan.team - 1));
  }
}

VAE_EXT_INLINE int span_length(int64_t event, int64_t span) {
  const int64_t rest = event - span * kSpan;
  return static_cast<int>(rest < kSpan ? rest : kSpan);
}

template <class Term, class Access>
__global__ void __launch_bounds__(kMaxThreads, (blocks_abreast<Access>(Term::kInputs + 3)))
    sum_rows_kernel(const __grid_constant__ Problem p, const __grid_constant__ SumPlan plan) {
  using C = typename Access::Compute;
  for_each_span(plan, [&](bool exists, int64_t row, int64_t span, int thread) {
    LaneSums<C, Access::kGroups> sums;
    RowOffsets<Term::kInputs> at;
    const int length = span_length(p.rows.event, span);
    if (exists) at.advance(p, 0, p.rows.dims, row);
    if (exists && kWidth<Access> * thread < length) {
      const Inputs<Access, Term::kInputs> inputs(p.in, at.in);
      const auto neutral = [](int i) { return Term::neutral(i); };
      sums = sum_lanes<Term, C, Access::kGroups>(length, thread, plan.team, [&](int j, auto add) {
        inputs.template for_each_group<Term::kInputs>(span * kSpan + j, p.rows.event, neutral, add);
      });
    }
    const C sum = add_lanes(sums, plan.team);
    if (exists && thread == 0) write_sum(p, p.out[0], plan, row, span, sum);
  });
}

// Launches one of the kernels that sum rows; no rows are no launch.
template <int kGroups, class Kernel>
void launch_sums(Kernel* kernel, const Problem& p, Stream stream) {
  const SumPlan plan = plan_sums<kGroups>(p.rows);
  if (plan.units == 0) return;
  launch(kernel, grid_for(divide_up(plan.units << plan.team_bits, plan.threads)), plan.threads, stream, p, plan);
}

template <class Term, bool kData = false>
void sum_rows(const Problem& problem, Stream stream) {
  static_assert(Term::kInputs <= kMaxInputs, "a Problem has room for them");
  const Problem p = with_neighbours_sharing(problem, Term::kInputs);
  with_access<Term::kInputs, kData>(p, 0, [&](auto access) {
    using Access = decltype(access);
    launch_sums<Access::kGroups>(&sum_rows_kernel<Term, Access>, p, stream);
  });
}

}  // namespace vae_ext::cuda

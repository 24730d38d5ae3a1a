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

// Threads that sum a row: enough for its loads to be under way together, no more than it keeps busy.
inline int lanes_of(int64_t event) {
  if (event <= 64) return 8;
  if (event <= 128) return 16;
  if (event <= 3072) return 32;
  if (event <= 6144) return 64;
  return event <= 12288 ? 128 : 256;
}

VAE_EXT_INLINE int64_t spans_of(int64_t event) { return event <= kSpan ? 1 : divide_up(event, kSpan); }

// One lane's part of elements [0, length). view(j, v) gives the group from j on.
//
// The value of a lane's terms is taken before lanes are added up: a warp takes the logarithm of a Bernoulli for all its
// lanes in the time that it takes for one, and no product of factors passes kMaxTerms.
template <class Term, class C, class View>
__device__ __forceinline__ C lane_sum(int length, int lane, int lanes, View view) {
  C total(0);
  for (int segment = 0; segment < length; segment += kMaxTerms * lanes) {
    const int rest = length - segment, end = segment + (rest < kMaxTerms * lanes ? rest : kMaxTerms * lanes);
    typename Term::template Sum<C> sum[kGroup];
    for (int k = 0; k < kGroup; ++k) sum[k] = Term::template zero<C>();
    for (int j = segment + kGroup * lane; j < end; j += kGroup * lanes) {
      C v[kGroup][Term::kInputs];
      view(j, v);
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
  for (int half = (lanes < kWarp ? lanes : kWarp) / 2; half > 0; half /= 2)
    sum = sum + __shfl_xor_sync(kAllLanes, sum, half);
  if (lanes <= kWarp) return sum;
  VAE_EXT_SHARED(C, warp_sum, kMaxThreads / kWarp);
  const int thread = static_cast<int>(threadIdx.x), first = thread / lanes * (lanes / kWarp);
  __syncthreads();  // The sums of the rows before have been read.
  if (thread % kWarp == 0) warp_sum[thread / kWarp] = sum;
  __syncthreads();
  C total = warp_sum[first];
  for (int warp = 1; warp < lanes / kWarp; ++warp) total = total + warp_sum[first + warp];
  return total;
}

// Where span `span` of the row whose result would be at out + at goes: the result itself if it is the only one.
template <class C>
__device__ __forceinline__ void write_sum(const Problem& p, const Operand& out, int64_t at, int64_t span, C sum) {
  const int64_t spans = spans_of(p.rows.event);
  if (spans > 1) {
    static_cast<double*>(out.data)[at * spans + span] = sum;
  } else {
    write(out, at, fma(static_cast<C>(p.factor), sum, static_cast<C>(p.constant)));
  }
}

// The units, spans of rows, that one block after the other takes side by side, `lanes` threads to each.
template <class F>
__device__ __forceinline__ void for_each_span(const Problem& p, int lanes, F f) {
  const int64_t spans = spans_of(p.rows.event), units = count_rows(p.rows, 0, p.rows.dims) * spans;
  const int thread = static_cast<int>(threadIdx.x), abreast = static_cast<int>(blockDim.x) / lanes;
  for (int64_t first = blockIdx.x * int64_t{abreast}; first < units; first += gridDim.x * int64_t{abreast}) {
    const int64_t unit = first + thread / lanes, row = spans == 1 ? unit : divide(unit, spans);
    f(unit < units, row, unit - row * spans, thread % lanes);
  }
}

VAE_EXT_INLINE int span_length(int64_t event, int64_t span) {
  const int64_t rest = event - span * kSpan;
  return static_cast<int>(rest < kSpan ? rest : kSpan);
}

template <class Term, class Access>
__global__ void __launch_bounds__(kMaxThreads) sum_rows_kernel(const __grid_constant__ Problem p, int lanes) {
  using C = typename Access::Compute;
  for_each_span(p, lanes, [&](bool exists, int64_t row, int64_t span, int lane) {
    C sum(0);
    Offsets<Term::kInputs, 1> at;
    const int length = span_length(p.rows.event, span);
    if (exists) at.advance(p, 0, p.rows.dims, row);
    if (exists && kGroup * lane < length) {
      const Inputs<Access, Term::kInputs> inputs(p.in, at.in);
      sum = lane_sum<Term, C>(length, lane, lanes, [&](int j, auto& v) {
        inputs.view(span * kSpan + j, p.rows.event, [](int i) { return Term::neutral(i); }, v);
      });
    }
    sum = add_lanes(sum, lanes);
    if (exists && lane == 0) write_sum(p, p.out[0], at.out[0], span, sum);
  });
}

// The grid and block in which kernels that sum rows run; no rows are no launch.
template <class Kernel>
void launch_sums(Kernel* kernel, const Problem& p, Stream stream) {
  const int lanes = lanes_of(p.rows.event), threads = lanes == kMaxThreads ? kMaxThreads : kMaxThreads / 2;
  const int64_t units = count_rows(p.rows, 0, p.rows.dims) * spans_of(p.rows.event);
  const int64_t blocks = divide_up(units * lanes, threads);
  if (units == 0) return;
  launch(kernel, static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks), threads, stream, p, lanes);
}

template <class Term, bool kData = false>
void sum_rows(const Problem& problem, Stream stream) {
  const Problem p = with_neighbours_sharing(problem, Term::kInputs);
  with_access<Term::kInputs, kData>(p, 0, [&](auto access) {
    launch_sums(&sum_rows_kernel<Term, decltype(access)>, p, stream);
  });
}

}  // namespace vae_ext::cuda

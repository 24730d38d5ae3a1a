// Elementwise formulas over rows, and their sums over the replicas of a broadcast row: samplers and gradients.
#pragma once

#include "../math/formula.h"
#include "launch.cuh"
#include "noise.cuh"

namespace vae_ext::cuda {

template <class Formula, class C>
__device__ __forceinline__ void apply(int64_t sample, const C* in, const C* row_value, C* out) {
  if constexpr (LaterOf<Formula>::kDiffers) {
    if (sample > 0) return Formula::Later::apply(in, row_value, out);
  }
  Formula::apply(in, row_value, out);
}

// The outputs of one group, of one row of the inputs.
template <class Formula, class Access, bool kNoise>
class Map {
 public:
  using C = typename Access::Compute;
  // Epsilon is the last input, and not one of the operands.
  static constexpr int kOperands = Formula::kInputs - (kNoise ? 1 : 0), kOutputs = Formula::kOutputs;
  using At = Offsets<kOperands, kOutputs>;

  __device__ __forceinline__ explicit Map(const Problem& p) : p_(p), noise_(p.noise, p.rows.event) {}

  __device__ __forceinline__ void operator()(const At& at, int64_t j, C (&out)[kOutputs][kGroup]) const {
    C v[kGroup][Formula::kInputs];
    Inputs<Access, kOperands>(p_.in, at.in).view(j, p_.rows.event, [](int) { return 1.0; }, v);
    if constexpr (kNoise) {
      float epsilon[kGroup];
      noise_.draw(at.row, at.sample, j, epsilon);
      for (int k = 0; k < kGroup; ++k) v[k][kOperands] = epsilon[k];
    }
    const C row_value = p_.row_value.data ? static_cast<const C*>(p_.row_value.data)[at.row_value] : C(0);
    for (int k = 0; k < kGroup; ++k) {
      C result[kOutputs];
      apply<Formula>(at.sample, v[k], &row_value, result);
      for (int o = 0; o < kOutputs; ++o) out[o][k] = result[o];
    }
  }

 private:
  const Problem& p_;
  const NoiseGroups noise_;
};

// A thread takes a group of a row of the outputs, and all its replicas in one chunk, in order.
template <class Formula, class Access, bool kNoise>
__global__ void __launch_bounds__(kMaxThreads) map_rows_kernel(const __grid_constant__ Problem p) {
  using M = Map<Formula, Access, kNoise>;
  using C = typename M::C;
  const M map(p);
  const int dims = p.rows.dims, kept_dims = dims - p.rows.reduced_dims;
  const int64_t kept = count_rows(p.rows, 0, kept_dims), replicas = count_rows(p.rows, kept_dims, dims);
  const int64_t chunks = divide_up(replicas, kReplicaChunk), groups = divide_up(p.rows.event, kGroup);
  const int64_t units = kept * chunks * groups, step = gridDim.x * int64_t{blockDim.x};
  for (int64_t unit = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; unit < units; unit += step) {
    const int64_t line = divide(unit, groups), j = (unit - line * groups) * kGroup;
    const int64_t row = chunks == 1 ? line : divide(line, chunks), chunk = line - row * chunks;
    const int64_t first = chunk * kReplicaChunk;
    const int64_t last = replicas - first < kReplicaChunk ? replicas : first + kReplicaChunk;
    typename M::At row_at;
    row_at.advance(p, 0, kept_dims, row);
    C sum[M::kOutputs][kGroup];
    for (int64_t replica = first; replica < last; ++replica) {
      auto at = row_at;
      at.advance(p, kept_dims, dims, replica);
      C term[M::kOutputs][kGroup];
      map(at, j, term);
      // The first as it is, so that one replica keeps its bits.
      for (int o = 0; o < M::kOutputs; ++o)
        for (int k = 0; k < kGroup; ++k) sum[o][k] = replica == first ? term[o][k] : sum[o][k] + term[o][k];
    }
    // With several chunks the output is a workspace [chunks, rows, event].
    const int64_t shift = chunk * kept * p.rows.event;
    for (int o = 0; o < M::kOutputs; ++o)
      if (p.out[o].wanted) write_group(Access(), p.out[o], row_at.out[o] + shift, j, p.rows.event, sum[o]);
  }
}

template <class Formula, bool kNoise = false, bool kData = false>
void map_rows(const Problem& problem, Stream stream) {
  constexpr int kOperands = Formula::kInputs - (kNoise ? 1 : 0);
  const Problem p = with_neighbours_sharing(problem, kOperands);
  const int kept_dims = p.rows.dims - p.rows.reduced_dims;
  const int64_t replicas = count_rows(p.rows, kept_dims, p.rows.dims);
  const int64_t units = count_rows(p.rows, 0, kept_dims) * divide_up(replicas, kReplicaChunk) *
                        divide_up(p.rows.event, kGroup);
  if (units == 0) return;
  const int64_t blocks = divide_up(units, kMaxThreads);
  with_access<kOperands, kData>(p, Formula::kOutputs, [&](auto access) {
    launch(&map_rows_kernel<Formula, decltype(access), kNoise>,
           static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks), kMaxThreads, stream, p);
  });
}

}  // namespace vae_ext::cuda

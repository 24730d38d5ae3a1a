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
  using At = RowOffsets<kOperands>;

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

// Units are groups of elements of rows of the outputs, each for one chunk of that row's replicas.
struct MapPlan {
  int64_t units, kept_rows, replicas, chunks, groups;
};

inline MapPlan plan_map(const Rows& rows) {
  const int kept_dims = rows.dims - rows.reduced_dims;
  const int64_t kept = count_rows(rows, 0, kept_dims), replicas = count_rows(rows, kept_dims, rows.dims);
  const int64_t chunks = divide_up(replicas, kReplicaChunk), groups = divide_up(rows.event, kGroup);
  return {kept * chunks * groups, kept, replicas, chunks, groups};
}

// Blocks that are to run side by side, so that enough loads are under way to keep the memory busy. They bound the
// registers; how many a thread needs goes with the numbers it holds for each element, noise counting for four.
template <class Formula, class C, bool kNoise>
constexpr int blocks_abreast() {
  constexpr int kHeld = Formula::kInputs + 2 * Formula::kOutputs + (kNoise ? 4 : 0);
  if (sizeof(C) == 8) return kHeld > 8 ? 1 : 2;
  return kHeld > 12 ? 2 : kHeld > 9 ? 3 : 4;
}

// A thread takes one unit, and all its replicas in order. A grid has room for more units than a memory.
template <class Formula, class Access, bool kNoise>
__global__ void __launch_bounds__(kMaxThreads, (blocks_abreast<Formula, typename Access::Compute, kNoise>()))
    map_rows_kernel(const __grid_constant__ Problem p, const __grid_constant__ MapPlan plan) {
  using M = Map<Formula, Access, kNoise>;
  const M map(p);
  const int64_t unit = int64_t{blockIdx.x} * kMaxThreads + threadIdx.x;
  if (unit >= plan.units) return;
  const int64_t line = divide(unit, plan.groups), j = (unit - line * plan.groups) * kGroup;
  const int64_t row = plan.chunks == 1 ? line : divide(line, plan.chunks), chunk = line - row * plan.chunks;
  const int64_t first = chunk * kReplicaChunk, rest = plan.replicas - first;
  const int count = static_cast<int>(rest < kReplicaChunk ? rest : kReplicaChunk);
  const int dims = p.rows.dims, kept_dims = dims - p.rows.reduced_dims;
  typename M::At row_at;
  row_at.advance(p, 0, kept_dims, row);
  typename M::C sum[M::kOutputs][kGroup];
#pragma unroll 1
  for (int replica = 0; replica < count; ++replica) {
    auto at = row_at;
    at.advance(p, kept_dims, dims, first + replica);
    typename M::C term[M::kOutputs][kGroup];
    map(at, j, term);
    // The first as it is, so that the only one keeps its bits.
    for (int o = 0; o < M::kOutputs; ++o)
      for (int k = 0; k < kGroup; ++k) sum[o][k] = replica == 0 ? term[o][k] : sum[o][k] + term[o][k];
  }
  for (int o = 0; o < M::kOutputs; ++o) {
    if (!p.out[o].wanted) continue;
    // With several chunks the output is a workspace [chunks, rows, event].
    const int64_t at = output_offset(p, p.out[o], kept_dims, row) + chunk * plan.kept_rows * p.rows.event;
    write_group(Access(), p.out[o], at, j, p.rows.event, sum[o]);
  }
}

template <class Formula, bool kNoise = false, bool kData = false>
void map_rows(const Problem& problem, Stream stream) {
  constexpr int kOperands = Formula::kInputs - (kNoise ? 1 : 0);
  const Problem p = with_neighbours_sharing(problem, kOperands);
  const MapPlan plan = plan_map(p.rows);
  if (plan.units == 0) return;
  with_access<kOperands, kData>(p, Formula::kOutputs, [&](auto access) {
    launch(&map_rows_kernel<Formula, decltype(access), kNoise>,
           static_cast<unsigned>(divide_up(plan.units, kMaxThreads)), kMaxThreads, stream, p, plan);
  });
}

}  // namespace vae_ext::cuda

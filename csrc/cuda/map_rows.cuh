// Elementwise formulas over rows, and their sums over the replicas of a broadcast row: samplers and gradients.
#pragma once

#include <algorithm>

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

// One row of the inputs, whose outputs can be had group by group.
template <class Formula, class Access, bool kNoise>
class MappedRow {
 public:
  using C = typename Access::Compute;
  // Epsilon is the last input, and not one of the operands.
  static constexpr int kOperands = Formula::kInputs - (kNoise ? 1 : 0), kOutputs = Formula::kOutputs;
  using At = RowOffsets<kOperands>;

  __device__ __forceinline__ MappedRow(const Problem& p, const NoiseGroups& noise, const At& at)
      : event_(p.rows.event),
        noise_(noise),
        row_(at.row),
        sample_(at.sample),
        inputs_(p.in, at.in),
        row_value_(p.row_value.data ? static_cast<const C*>(p.row_value.data)[at.row_value] : C(0)) {}

  __device__ __forceinline__ void operator()(int64_t j, C (&out)[kOutputs][kGroup]) const {
    C v[kGroup][Formula::kInputs];
    inputs_.view(j, event_, [](int) { return 1.0; }, v);
    if constexpr (kNoise) {
      float epsilon[kGroup];
      noise_.draw(row_, sample_, j, epsilon);
      for (int k = 0; k < kGroup; ++k) v[k][kOperands] = epsilon[k];
    }
    for (int k = 0; k < kGroup; ++k) {
      C result[kOutputs];
      apply<Formula>(sample_, v[k], &row_value_, result);
      for (int o = 0; o < kOutputs; ++o) out[o][k] = result[o];
    }
  }

 private:
  const int64_t event_;
  const NoiseGroups& noise_;
  const uint32_t row_, sample_;
  const Inputs<Access, kOperands> inputs_;
  const C row_value_;
};

// Units are strips of rows of the outputs, each for one chunk of that row's replicas. A strip is every strips-th group
// of a row: one of them where there are few in all, else more, to share the way to the row.
struct MapPlan {
  int64_t units, kept_rows, replicas, chunks, strips;
};

// About as many threads as run at once on the largest devices.
constexpr int64_t kBusyThreads = int64_t{1} << 17;
constexpr int64_t kMaxGroupsOfStrip = 4;

inline MapPlan plan_map(const Rows& rows) {
  const int kept_dims = rows.dims - rows.reduced_dims;
  const int64_t kept = count_rows(rows, 0, kept_dims), replicas = count_rows(rows, kept_dims, rows.dims);
  const int64_t chunks = divide_up(replicas, kReplicaChunk), groups = divide_up(rows.event, kGroup);
  const int64_t spare = kept * chunks * groups / kBusyThreads;
  const int64_t strips = divide_up(groups, std::clamp<int64_t>(spare, 1, kMaxGroupsOfStrip));
  return {kept * chunks * strips, kept, replicas, chunks, strips};
}

// Blocks that are to run side by side, so that enough loads are under way to keep the memory busy. They bound the
// registers; how many a thread needs goes with the numbers it holds for each element, noise and the walk over replicas
// counting for some.
template <class Formula, class C, bool kNoise, bool kSums>
constexpr int blocks_abreast() {
  constexpr int kHeld = Formula::kInputs + Formula::kOutputs + (kNoise ? 4 : 0) + (kSums ? Formula::kOutputs + 3 : 0);
  if (sizeof(C) == 8) return kHeld > 8 ? 1 : 2;
  return kHeld > 12 ? 2 : kHeld > 9 ? 3 : 4;
}

// A thread takes one unit; a grid has room for more threads than a memory has groups.
__device__ __forceinline__ int64_t unit_of_thread() { return int64_t{blockIdx.x} * kMaxThreads + threadIdx.x; }

template <class Formula, class Access, bool kNoise>
__global__ void __launch_bounds__(kMaxThreads, (blocks_abreast<Formula, typename Access::Compute, kNoise, false>()))
    map_rows_kernel(const __grid_constant__ Problem p, const __grid_constant__ MapPlan plan) {
  using Row = MappedRow<Formula, Access, kNoise>;
  const int64_t unit = unit_of_thread(), row = divide(unit, plan.strips);
  if (unit >= plan.units) return;
  const NoiseGroups noise(p.noise, p.rows.event);
  typename Row::At at;
  at.advance(p, 0, p.rows.dims, row);
  const Row map(p, noise, at);
  int64_t out_at[Row::kOutputs];
  for (int o = 0; o < Row::kOutputs; ++o) out_at[o] = output_offset(p, p.out[o], p.rows.dims, row);
#pragma unroll 1
  for (int64_t j = (unit - row * plan.strips) * kGroup; j < p.rows.event; j += plan.strips * kGroup) {
    typename Row::C out[Row::kOutputs][kGroup];
    map(j, out);
    for (int o = 0; o < Row::kOutputs; ++o)
      if (p.out[o].wanted) write_group(Access(), p.out[o], out_at[o], j, p.rows.event, out[o]);
  }
}

// The same summed over the replicas of a row of the outputs, in order.
template <class Formula, class Access, bool kNoise>
__global__ void __launch_bounds__(kMaxThreads, (blocks_abreast<Formula, typename Access::Compute, kNoise, true>()))
    map_replicas_kernel(const __grid_constant__ Problem p, const __grid_constant__ MapPlan plan) {
  using Row = MappedRow<Formula, Access, kNoise>;
  const int64_t unit = unit_of_thread(), line = divide(unit, plan.strips);
  if (unit >= plan.units) return;
  const int64_t row = divide(line, plan.chunks), chunk = line - row * plan.chunks;
  const int64_t first = chunk * kReplicaChunk, rest = plan.replicas - first;
  const int count = static_cast<int>(rest < kReplicaChunk ? rest : kReplicaChunk);
  const int dims = p.rows.dims, kept_dims = dims - p.rows.reduced_dims;
  const NoiseGroups noise(p.noise, p.rows.event);
  typename Row::At row_at;
  row_at.advance(p, 0, kept_dims, row);
#pragma unroll 1
  for (int64_t j = (unit - line * plan.strips) * kGroup; j < p.rows.event; j += plan.strips * kGroup) {
    typename Row::C sum[Row::kOutputs][kGroup] = {};
#pragma unroll 1
    for (int replica = 0; replica < count; ++replica) {
      auto at = row_at;
      at.advance(p, kept_dims, dims, first + replica);
      typename Row::C term[Row::kOutputs][kGroup];
      Row(p, noise, at)(j, term);
      for (int o = 0; o < Row::kOutputs; ++o)
        for (int k = 0; k < kGroup; ++k) sum[o][k] = sum[o][k] + term[o][k];
    }
    for (int o = 0; o < Row::kOutputs; ++o) {
      if (!p.out[o].wanted) continue;
      // With several chunks the output is a workspace [chunks, rows, event].
      const int64_t at = output_offset(p, p.out[o], kept_dims, row) + chunk * plan.kept_rows * p.rows.event;
      write_group(Access(), p.out[o], at, j, p.rows.event, sum[o]);
    }
  }
}

template <class Formula, bool kNoise = false, bool kData = false>
void map_rows(const Problem& problem, Stream stream) {
  constexpr int kOperands = Formula::kInputs - (kNoise ? 1 : 0);
  const Problem p = with_neighbours_sharing(problem, kOperands);
  const MapPlan plan = plan_map(p.rows);
  if (plan.units == 0) return;
  const unsigned blocks = static_cast<unsigned>(divide_up(plan.units, kMaxThreads));
  with_access<kOperands, kData>(p, Formula::kOutputs, [&](auto access) {
    using Access = decltype(access);
    launch(
        plan.replicas == 1 ? &map_rows_kernel<Formula, Access, kNoise> : &map_replicas_kernel<Formula, Access, kNoise>,
        blocks, kMaxThreads, stream, p, plan);
  });
}

}  // namespace vae_ext::cuda

// Elementwise formulas over rows, and their sums over the replicas of a broadcast row: samplers and gradients.
#pragma once

#include <algorithm>

#include "../math/formula.h"
#include "launch.cuh"
#include "noise.cuh"

namespace vae_ext::cuda {

template <class Formula, class C>
__device__ __forceinline__ void apply(int64_t sample, const C* in, const C* row_value, C* out) {
  if constexpr (kHasLater<Formula>) {
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

  // f(k, out) for the outputs of each element j + k of [j, j + kWidth).
  template <class F>
  __device__ __forceinline__ void for_each_element(int64_t j, F f) const {
    const auto one = [](int) { return 1.0; };
    inputs_.template for_each_group<Formula::kInputs>(j, event_, one, [&](int g, auto& v) {
      if constexpr (kNoise) {
        float epsilon[kGroup];
        if constexpr (kAnyStandard<Formula>) {
          noise_.draw_standard(row_, sample_, j + g * kGroup, epsilon);
        } else {
          noise_.draw(row_, sample_, j + g * kGroup, epsilon);
        }
        for (int k = 0; k < kGroup; ++k) v[k][kOperands] = epsilon[k];
      }
      for (int k = 0; k < kGroup; ++k) {
        C out[kOutputs];
        apply<Formula>(sample_, v[k], &row_value_, out);
        f(g * kGroup + k, out);
      }
    });
  }

 private:
  const int64_t event_;
  const NoiseGroups& noise_;
  const uint32_t row_, sample_;
  const Inputs<Access, kOperands> inputs_;
  const C row_value_;
};

// Units are strips of rows of the outputs, each for one chunk of that row's replicas. A strip is every strips-th piece
// of a row, a piece being what a thread takes at a time: one of them where there are few in all, else more, to share
// the way to the row.
struct MapPlan {
  int64_t units, kept_rows, replicas, chunks, strips;
};

// About as many threads as run at once on the largest devices.
constexpr int64_t kBusyThreads = int64_t{1} << 17;
constexpr int64_t kMaxPiecesOfStrip = 4;

inline MapPlan plan_map(const Rows& rows, int64_t width) {
  const int kept_dims = rows.dims - rows.reduced_dims;
  const int64_t kept = count_rows(rows, 0, kept_dims), replicas = count_rows(rows, kept_dims, rows.dims);
  const int64_t chunks = divide_up(replicas, kReplicaChunk), pieces = divide_up(rows.event, width);
  const int64_t spare = kept * chunks * pieces / kBusyThreads;
  const int64_t strips = divide_up(pieces, std::clamp<int64_t>(spare, 1, kMaxPiecesOfStrip));
  return {kept * chunks * strips, kept, replicas, chunks, strips};
}

// Noise and the walk over replicas count for some numbers.
template <class Formula, class Access, bool kNoise, bool kSums>
constexpr int map_blocks_abreast() {
  constexpr int kNumbers = Formula::kInputs + Formula::kOutputs + (kNoise ? 4 : 0);
  return blocks_abreast<Access>(kNumbers + (kSums ? Formula::kOutputs * Access::kGroups + 3 : 0));
}

// f(unit) for the units of a thread: one, or where there are more than a grid is to have threads, every so many-th.
template <class F>
__device__ __forceinline__ void for_each_unit(const MapPlan& plan, F f) {
  const int64_t threads = int64_t{gridDim.x} * kMaxThreads;
#pragma unroll 1
  for (int64_t unit = int64_t{blockIdx.x} * kMaxThreads + threadIdx.x; unit < plan.units; unit += threads) f(unit);
}

template <class Formula, class Access, bool kNoise>
__global__ void __launch_bounds__(kMaxThreads, (map_blocks_abreast<Formula, Access, kNoise, false>()))
    map_rows_kernel(const __grid_constant__ Problem p, const __grid_constant__ MapPlan plan) {
  using Row = MappedRow<Formula, Access, kNoise>;
  const NoiseGroups noise(p.noise, p.rows.event);
  for_each_unit(plan, [&](int64_t unit) {
    const int64_t row = divide(unit, plan.strips);
    typename Row::At at;
    at.advance(p, 0, p.rows.dims, row);
    const Row map(p, noise, at);
    int64_t out_at[Row::kOutputs];
    for (int o = 0; o < Row::kOutputs; ++o) out_at[o] = output_offset(p, p.out[o], p.rows.dims, row);
#pragma unroll 1
    for (int64_t j = (unit - row * plan.strips) * kWidth<Access>; j < p.rows.event; j += plan.strips * kWidth<Access>) {
      typename Row::C results[Row::kOutputs][kWidth<Access>];
      map.for_each_element(j, [&](int k, const auto& out) {
        for (int o = 0; o < Row::kOutputs; ++o) results[o][k] = out[o];
      });
      for (int o = 0; o < Row::kOutputs; ++o)
        if (p.out[o].wanted) write_groups(Access(), p.out[o], out_at[o], j, p.rows.event, results[o]);
    }
  });
}

// The same summed over the replicas of a row of the outputs, in order.
template <class Formula, class Access, bool kNoise>
__global__ void __launch_bounds__(kMaxThreads, (map_blocks_abreast<Formula, Access, kNoise, true>()))
    map_replicas_kernel(const __grid_constant__ Problem p, const __grid_constant__ MapPlan plan) {
  using Row = MappedRow<Formula, Access, kNoise>;
  const int dims = p.rows.dims, kept_dims = dims - p.rows.reduced_dims;
  const NoiseGroups noise(p.noise, p.rows.event);
  for_each_unit(plan, [&](int64_t unit) {
    const int64_t line = divide(unit, plan.strips), row = divide(line, plan.chunks), chunk = line - row * plan.chunks;
    const int64_t first = chunk * kReplicaChunk, rest = plan.replicas - first;
    const int count = static_cast<int>(rest < kReplicaChunk ? rest : kReplicaChunk);
    typename Row::At row_at;
    row_at.advance(p, 0, kept_dims, row);
#pragma unroll 1
    for (int64_t j = (unit - line * plan.strips) * kWidth<Access>; j < p.rows.event;
         j += plan.strips * kWidth<Access>) {
      typename Row::C sums[Row::kOutputs][kWidth<Access>] = {};
#pragma unroll 1
      for (int replica = 0; replica < count; ++replica) {
        auto at = row_at;
        at.advance(p, kept_dims, dims, first + replica);
        Row(p, noise, at).for_each_element(j, [&](int k, const auto& out) {
          for (int o = 0; o < Row::kOutputs; ++o) sums[o][k] = sums[o][k] + out[o];
        });
      }
      for (int o = 0; o < Row::kOutputs; ++o) {
        if (!p.out[o].wanted) continue;
        // With several chunks the output is a workspace [chunks, rows, event].
        const int64_t at = output_offset(p, p.out[o], kept_dims, row) + chunk * plan.kept_rows * p.rows.event;
        write_groups(Access(), p.out[o], at, j, p.rows.event, sums[o]);
      }
    }
  });
}

template <class Formula, bool kNoise = false, bool kData = false>
void map_rows(const Problem& problem, Stream stream) {
  constexpr int kOperands = Formula::kInputs - (kNoise ? 1 : 0);
  static_assert(kOperands <= kMaxInputs && Formula::kOutputs <= kMaxOutputs, "a Problem has room for them");
  const Problem p = with_neighbours_sharing(problem, kOperands);
  with_access<kOperands, kData>(p, Formula::kOutputs, [&](auto access) {
    using Access = decltype(access);
    const MapPlan plan = plan_map(p.rows, kWidth<Access>);
    if (plan.units == 0) return;
    launch(
        plan.replicas == 1 ? &map_rows_kernel<Formula, Access, kNoise> : &map_replicas_kernel<Formula, Access, kNoise>,
        grid_for(divide_up(plan.units, kMaxThreads)), kMaxThreads, stream, p, plan);
  });
}

}  // namespace vae_ext::cuda

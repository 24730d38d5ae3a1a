// Samples, and a sum over each row of what was sampled or of what it was sampled from, in one pass over the inputs.
#pragma once

#include "../math/normal.h"
#include "noise.cuh"
#include "sum_rows.cuh"

namespace vae_ext::cuda {

// z as it comes out of its tensor.
template <class C>
__device__ __forceinline__ C as_stored(DType dtype, C z) {
  if (dtype == DType::bf16) return widen(narrow<bfloat16>(z));
  if (dtype == DType::f16) return widen(narrow<float16>(z));
  return z;
}

// The term's inputs are mean, scale, prior mean and prior scale, and z if it has five; each row has its sum then, and
// otherwise only those of the first samples. The tree is that of sum_rows, and z is what normal_rsample gives.
template <class Term, ScaleKind kKind, class Access>
__global__ void __launch_bounds__(kMaxThreads, sizeof(typename Access::Compute) == 4 ? 3 : 1)
    sample_rows_kernel(const __grid_constant__ Problem p, const __grid_constant__ SumPlan plan) {
  using C = typename Access::Compute;
  constexpr int kOperands = 4;
  constexpr bool kSumsZ = Term::kInputs > kOperands;
  const NoiseGroups noise(p.noise, p.rows.event);
  for_each_span(plan, [&](bool exists, int64_t row, int64_t span, int lane) {
    C sum(0);
    RowOffsets<kOperands> at;
    const int length = span_length(p.rows.event, span);
    if (exists) at.advance(p, 0, p.rows.dims, row);
    const bool summed = kSumsZ || at.sample == 0;
    if (exists && kGroup * lane < length) {
      const Inputs<Access, kOperands> inputs(p.in, at.in);
      const int64_t z_at = output_offset(p, p.out[0], p.rows.dims, row);
      sum = lane_sum<Term, C>(length, lane, plan.lanes, [&](int offset, auto& v) {
        const int64_t j = span * kSpan + offset;
        inputs.view(j, p.rows.event, [](int i) { return Term::neutral(i); }, v);
        float epsilon[kGroup];
        noise.draw(at.row, at.sample, j, epsilon);
        C z[kGroup];
        for (int k = 0; k < kGroup; ++k) {
          const C in[3] = {v[k][0], v[k][1], C(epsilon[k])};
          NormalRsample<kKind>::apply(in, in, &z[k]);
        }
        write_group(Access(), p.out[0], z_at, j, p.rows.event, z);
        if constexpr (kSumsZ)
          for (int k = 0; k < kGroup; ++k)
            v[k][4] = j + k < p.rows.event ? as_stored(p.out[0].dtype, z[k]) : static_cast<C>(Term::neutral(4));
        return summed;
      });
    }
    sum = add_lanes(sum, plan.lanes);
    if (exists && summed && lane == 0) write_sum(p, p.out[1], plan, row, span, sum);
  });
}

template <class Term, ScaleKind kKind>
void sample_rows(const Problem& problem, Stream stream) {
  const Problem p = with_neighbours_sharing(problem, 4);
  with_access<4, false>(
      p, 1, [&](auto access) { launch_sums(&sample_rows_kernel<Term, kKind, decltype(access)>, p, stream); });
}

}  // namespace vae_ext::cuda

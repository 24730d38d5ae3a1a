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
__global__ void __launch_bounds__(kMaxThreads, (blocks_abreast<Access>(Term::kInputs + 8)))
    sample_rows_kernel(const __grid_constant__ Problem p, const __grid_constant__ SumPlan plan) {
  using C = typename Access::Compute;
  constexpr int kOperands = 4;
  constexpr bool kSumsZ = Term::kInputs > kOperands;
  const NoiseGroups noise(p.noise, p.rows.event);
  for_each_span(plan, [&](bool exists, int64_t row, int64_t span, int thread) {
    LaneSums<C, Access::kGroups> sums;
    RowOffsets<kOperands> at;
    const int length = span_length(p.rows.event, span);
    if (exists) at.advance(p, 0, p.rows.dims, row);
    const bool summed = kSumsZ || at.sample == 0;
    if (exists && kWidth<Access> * thread < length) {
      const Inputs<Access, kOperands> inputs(p.in, at.in);
      const int64_t z_at = output_offset(p, p.out[0], p.rows.dims, row);
      const auto neutral = [](int i) { return Term::neutral(i); };
      sums = sum_lanes<Term, C, Access::kGroups>(length, thread, plan.team, [&](int offset, auto add) {
        const int64_t j = span * kSpan + offset;
        C z[kWidth<Access>];
        inputs.template for_each_group<Term::kInputs>(j, p.rows.event, neutral, [&](int g, auto& v) {
          const int64_t first = j + g * kGroup;
          float epsilon[kGroup];
          noise.draw(at.row, at.sample, first, epsilon);
          for (int k = 0; k < kGroup; ++k) {
            const C in[3] = {v[k][0], v[k][1], C(epsilon[k])};
            C& sampled = z[g * kGroup + k];
            NormalRsample<kKind>::apply(in, in, &sampled);
            if constexpr (kSumsZ)
              v[k][4] =
                  first + k < p.rows.event ? as_stored(p.out[0].dtype, sampled) : static_cast<C>(Term::neutral(4));
          }
          if (summed) add(g, v);
        });
        write_groups(Access(), p.out[0], z_at, j, p.rows.event, z);
      });
    }
    const C sum = add_lanes(sums, plan.team);
    if (exists && summed && thread == 0) write_sum(p, p.out[1], plan, row, span, sum);
  });
}

template <class Term, ScaleKind kKind>
void sample_rows(const Problem& problem, Stream stream) {
  const Problem p = with_neighbours_sharing(problem, 4);
  with_access<4, false>(p, 1, [&](auto access) {
    using Access = decltype(access);
    launch_sums<Access::kGroups>(&sample_rows_kernel<Term, kKind, Access>, p, stream);
  });
}

}  // namespace vae_ext::cuda

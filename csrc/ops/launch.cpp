#include "launch.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "../cpu/dispatch.h"

namespace vae_ext {
namespace {

using cpu::kReplicaChunk;
using cpu::kSegment;
using cpu::kSpan;

// Elements worth waking another thread for.
constexpr int64_t kGrainElements = 8192;
// Elements that stay in a core's own cache between two kernels.
constexpr int64_t kCachedElements = 65536;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How many units are worth a thread, when one has `elements`.
int64_t grain(int64_t elements) { return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, elements)); }

Tensor empty_sums(const Layout& layout, std::optional<int64_t> samples) {
  return at::empty(layout.shape(samples, false), layout.options().dtype(layout.compute_type()));
}

// Adds up the spans of each row, in order.
void finish_spans(const Problem& problem, const double* partial, int64_t rows, int64_t spans, const Tensor& sums) {
  AT_DISPATCH_FLOATING_TYPES(sums.scalar_type(), "finish_spans", [&] {
    scalar_t* out = sums.mutable_data_ptr<scalar_t>();
    for (int64_t row = 0; row < rows; ++row) {
      double total = 0.0;
      for (int64_t span = 0; span < spans; ++span) total += partial[row * spans + span];
      out[row] = static_cast<scalar_t>(problem.factor * total + problem.constant);
    }
  });
}

}  // namespace

void run_map(Kernel kernel, const Problem& problem) {
  const Rows& rows = problem.rows;
  int64_t kept = 1, replicas = 1;
  for (int d = 0; d < rows.dims; ++d) (d < rows.dims - rows.reduced_dims ? kept : replicas) *= rows.size[d];
  const int64_t units = kept * divide_up(replicas, kReplicaChunk) * divide_up(rows.event, kSegment);
  if (units == 0) return;
  const int64_t elements = std::min(replicas, kReplicaChunk) * std::min(rows.event, kSegment);
  const cpu::Kernel run = cpu::kernels().*kernel;
  at::parallel_for(0, units, grain(elements), [&](int64_t begin, int64_t end) { run(problem, begin, end); });
}

Tensor sum_rows(Kernel kernel, const Layout& layout, const Spec& spec, at::TensorList inputs) {
  const Tensor sums = empty_sums(layout, spec.samples);
  ProblemBuilder builder(layout, spec);
  builder.inputs(inputs);
  builder.output(0, sums, 0);
  Problem& problem = builder.finish();
  const int64_t event = layout.event_size(), spans = std::max<int64_t>(1, divide_up(event, kSpan));
  Tensor partial;
  if (spans > 1) {
    partial = at::empty({builder.rows() * spans}, layout.options().dtype(at::kDouble));
    problem.out[0].data = partial.mutable_data_ptr();
  }
  const cpu::Kernel run = cpu::kernels().*kernel;
  at::parallel_for(0, builder.rows() * spans, grain(std::min(event, kSpan)),
                   [&](int64_t begin, int64_t end) { run(problem, begin, end); });
  if (spans > 1) finish_spans(problem, partial.const_data_ptr<double>(), builder.rows(), spans, sums);
  return sums;
}

void sample_rows(const Layout& layout, const Spec& spec, at::TensorList inputs, const Tensor& z) {
  ProblemBuilder builder(layout, spec);
  builder.inputs(inputs);
  builder.output(0, z, layout.event_ndim());
  run_map(&cpu::Kernels::normal_rsample, builder.finish());
}

Tensor sample_and_sum_rows(const Layout& layout, const Spec& spec, at::TensorList map_inputs, const Tensor& z,
                           Kernel sum_kernel, const Spec& sum_spec, at::TensorList sum_inputs) {
  const int64_t event = layout.event_size(), samples = spec.samples.value_or(1);
  if (event == 0 || event > kSpan || event * samples > kCachedElements) {
    sample_rows(layout, spec, map_inputs, z);
    return sum_rows(sum_kernel, layout, sum_spec, sum_inputs);
  }
  const Tensor sums = empty_sums(layout, sum_spec.samples);
  ProblemBuilder mapping(layout, spec, /*samples_last=*/true);
  mapping.inputs(map_inputs);
  mapping.output(0, z, layout.event_ndim());
  ProblemBuilder summing(layout, sum_spec, /*samples_last=*/true);
  summing.inputs(sum_inputs);
  summing.output(0, sums, 0);
  Problem &map_problem = mapping.finish(), &sum_problem = summing.finish();
  // The sum may be of z.
  map_problem.past_cache = false;
  const cpu::Kernel map = cpu::kernels().normal_rsample, sum = cpu::kernels().*sum_kernel;

  const int64_t rows = c10::multiply_integers(layout.batch());
  const int64_t map_step = samples * divide_up(event, kSegment), sum_step = sum_spec.samples.value_or(1);
  const int64_t block = grain(event * samples);
  at::parallel_for(0, rows, block, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += block) {
      const int64_t last = std::min(row + block, end);
      map(map_problem, row * map_step, last * map_step);
      sum(sum_problem, row * sum_step, last * sum_step);
    }
  });
  return sums;
}

}  // namespace vae_ext

#include "launch.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "../cpu/dispatch.h"

namespace vae_ext {
namespace {

using cpu::kSegment;

// Elements worth waking another thread for.
constexpr int64_t kGrainElements = 8192;
// Elements that stay in a core's own cache between two kernels.
constexpr int64_t kCachedElements = 65536;

// How many units are worth a thread, when one has `elements`.
int64_t grain(int64_t elements) { return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, elements)); }

// Through torch's own table of devices, so that this file needs none of CUDA's headers.
void run_on_cuda(cuda::Kernel* kernel, const Problem& problem, const at::Device& device) {
  if constexpr (kEmulated) return kernel(problem, nullptr);
  const c10::DeviceGuard guard(device);
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  kernel(problem, static_cast<cuda::Stream>(stream.native_handle()));
}

Tensor empty_sums(const Layout& layout, std::optional<int64_t> samples) {
  return at::empty(layout.shape(samples, false), layout.options().dtype(layout.compute_type()));
}

// The parts that long rows are summed in. The kernel leaves a double for each part of each sum in a workspace, where
// there is more than one, and they are added up: in order on the CPU, in that of sum_spans on a device.
class Spans {
 public:
  // `out` is the output of `problem` for `sums`.
  Spans(const Problem& problem, Operand& out, const Tensor& sums) : problem_(problem), sums_(sums) {
    const int64_t span = runs_on_cpu(sums.device()) ? cpu::kSpan : cuda::kSpan;
    count_ = std::max<int64_t>(1, divide_up(problem.rows.event, span));
    if (count_ == 1) return;
    parts_ = at::empty({sums.numel(), count_}, sums.options().dtype(at::kDouble));
    out.data = parts_.mutable_data_ptr();
  }

  int64_t count() const { return count_; }

  void finish() const {
    if (count_ == 1) return;
    if (runs_on_cpu(sums_.device())) {
      finish_on_cpu();
    } else {
      run_on_cuda(kOnCuda<cuda::sum_spans>, as_problem(), sums_.device());
    }
  }

 private:
  void finish_on_cpu() const {
    AT_DISPATCH_FLOATING_TYPES(sums_.scalar_type(), "finish_spans", [&] {
      const double* part = parts_.const_data_ptr<double>();
      scalar_t* out = sums_.mutable_data_ptr<scalar_t>();
      for (int64_t i = 0; i < sums_.numel(); ++i) {
        double total = 0.0;
        for (int64_t span = 0; span < count_; ++span) total += *part++;
        out[i] = static_cast<scalar_t>(problem_.factor * total + problem_.constant);
      }
    });
  }

  Problem as_problem() const {
    Problem problem;
    problem.rows.dims = 1;
    problem.rows.size[0] = sums_.numel();
    problem.rows.event = count_;
    problem.in[0].data = parts_.mutable_data_ptr();
    problem.in[0].dtype = DType::f64;
    problem.in[0].stride[0] = count_;
    problem.out[0].data = sums_.mutable_data_ptr();
    problem.out[0].dtype = dtype_of(sums_);
    problem.out[0].wanted = true;
    problem.out[0].stride[0] = 1;
    problem.factor = problem_.factor;
    problem.constant = problem_.constant;
    return problem;
  }

  const Problem& problem_;
  const Tensor sums_;
  Tensor parts_;
  int64_t count_;
};

// One launch for samples and sums alike.
Tensor sample_and_sum_on_cuda(const SampledSum& sum, const Layout& layout, const Spec& spec, at::TensorList inputs,
                              const Tensor& z) {
  const Tensor sums = empty_sums(layout, sum.of_each_sample ? spec.samples : std::nullopt);
  if (sums.numel() == 0) return sums;
  ProblemBuilder builder(layout, spec);
  builder.inputs(inputs);
  builder.output(0, z, layout.event_ndim());
  builder.output(1, sums, 0);
  Problem& problem = builder.finish();
  const Spans spans(problem, problem.out[1], sums);
  run_on_cuda(sum.on_cuda, problem, sums.device());
  spans.finish();
  return sums;
}

}  // namespace

int64_t replica_chunk(const at::Device& device) {
  return runs_on_cpu(device) ? cpu::kReplicaChunk : cuda::kReplicaChunk;
}

void run_map(const Kernel& kernel, const Problem& problem, const at::Device& device) {
  const Rows& rows = problem.rows;
  int64_t kept = 1, replicas = 1;
  for (int d = 0; d < rows.dims; ++d) (d < rows.dims - rows.reduced_dims ? kept : replicas) *= rows.size[d];
  const int64_t units = kept * divide_up(replicas, cpu::kReplicaChunk) * divide_up(rows.event, kSegment);
  if (units == 0) return;
  if (!runs_on_cpu(device)) return run_on_cuda(kernel.on_cuda, problem, device);
  const int64_t elements = std::min(replicas, cpu::kReplicaChunk) * std::min(rows.event, kSegment);
  const cpu::Kernel run = cpu::kernels().*kernel.on_cpu;
  at::parallel_for(0, units, grain(elements), [&](int64_t begin, int64_t end) { run(problem, begin, end); });
}

Tensor sum_rows(const Kernel& kernel, const Layout& layout, const Spec& spec, at::TensorList inputs) {
  const Tensor sums = empty_sums(layout, spec.samples);
  if (sums.numel() == 0) return sums;
  ProblemBuilder builder(layout, spec);
  builder.inputs(inputs);
  builder.output(0, sums, 0);
  Problem& problem = builder.finish();
  const Spans spans(problem, problem.out[0], sums);
  if (runs_on_cpu(sums.device())) {
    const cpu::Kernel run = cpu::kernels().*kernel.on_cpu;
    at::parallel_for(0, sums.numel() * spans.count(), grain(std::min(problem.rows.event, cpu::kSpan)),
                     [&](int64_t begin, int64_t end) { run(problem, begin, end); });
  } else {
    run_on_cuda(kernel.on_cuda, problem, sums.device());
  }
  spans.finish();
  return sums;
}

void sample_rows(const Layout& layout, const Spec& spec, at::TensorList inputs, const Tensor& z) {
  ProblemBuilder builder(layout, spec);
  builder.inputs(inputs);
  builder.output(0, z, layout.event_ndim());
  run_map(kOnEachDevice<&cpu::Kernels::normal_rsample, cuda::normal_rsample>, builder.finish(), z.device());
}

Tensor sample_and_sum_rows(const SampledSum& sum, const Layout& layout, const Spec& spec, at::TensorList inputs,
                           const Tensor& z) {
  if (!runs_on_cpu(z.device())) return sample_and_sum_on_cuda(sum, layout, spec, inputs, z);
  Spec sum_spec = spec;
  sum_spec.noise = nullptr;
  std::vector<Tensor> summed(inputs.begin(), inputs.end());
  if (sum.of_each_sample) {
    summed.push_back(z);
  } else {
    sum_spec.samples.reset();
  }
  const int64_t event = layout.event_size(), samples = spec.samples.value_or(1);
  if (event == 0 || event > cpu::kSpan || event * samples > kCachedElements) {
    sample_rows(layout, spec, inputs.slice(0, 2), z);
    return sum_rows({sum.on_cpu, nullptr}, layout, sum_spec, summed);
  }
  const Tensor sums = empty_sums(layout, sum_spec.samples);
  ProblemBuilder mapping(layout, spec, /*samples_last=*/true);
  mapping.inputs(inputs.slice(0, 2));
  mapping.output(0, z, layout.event_ndim());
  ProblemBuilder summing(layout, sum_spec, /*samples_last=*/true);
  summing.inputs(summed);
  summing.output(0, sums, 0);
  Problem &map_problem = mapping.finish(), &sum_problem = summing.finish();
  // The sum may be of z.
  map_problem.past_cache = false;
  const cpu::Kernel map = cpu::kernels().normal_rsample, add = cpu::kernels().*sum.on_cpu;

  const int64_t rows = c10::multiply_integers(layout.batch());
  const int64_t map_step = samples * divide_up(event, kSegment), sum_step = sum_spec.samples.value_or(1);
  const int64_t block = grain(event * samples);
  at::parallel_for(0, rows, block, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += block) {
      const int64_t last = std::min(row + block, end);
      map(map_problem, row * map_step, last * map_step);
      add(sum_problem, row * sum_step, last * sum_step);
    }
  });
  return sums;
}

void sum_event(const Tensor& values, const Tensor& result) {
  if (runs_on_cpu(values.device())) {
    AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "sum_event", [&] {
      const scalar_t* value = values.const_data_ptr<scalar_t>();
      double total = 0.0;
      for (int64_t j = 0; j < values.numel(); ++j) total += value[j];
      result.fill_(total);
    });
    return;
  }
  Problem problem;
  problem.rows.event = values.numel();
  problem.in[0].data = values.mutable_data_ptr();
  problem.in[0].dtype = dtype_of(values);
  problem.out[0].data = result.mutable_data_ptr();
  problem.out[0].dtype = dtype_of(result);
  problem.out[0].wanted = true;
  const Spans spans(problem, problem.out[0], result);
  run_on_cuda(kOnCuda<cuda::sum_event>, problem, values.device());
  spans.finish();
}

}  // namespace vae_ext

// Runs the kernels: on the CPU over all threads, on a CUDA device on torch's current stream, which nothing waits for.
#pragma once

#include "kernel.h"
#include "problem.h"

namespace vae_ext {

// Replicas that one unit of an elementwise kernel sums where an output is broadcast.
int64_t replica_chunk(const at::Device& device);

// One elementwise kernel over its whole problem.
void run_map(const Kernel& kernel, const Problem& problem, const at::Device& device);

// One sum for each row, as a new tensor [*batch] or [samples, *batch] of the layout's compute type.
Tensor sum_rows(const Kernel& kernel, const Layout& layout, const Spec& spec, at::TensorList inputs);

// Samples alone, of mean and scale.
void sample_rows(const Layout& layout, const Spec& spec, at::TensorList inputs, const Tensor& z);

// A sum that is taken beside samples.
struct SampledSum {
  // A sum over the inputs, and z where there is one for each sample.
  cpu::Kernel cpu::Kernels::* on_cpu;
  // Samples and sum together.
  cuda::Kernel* on_cuda;
  bool of_each_sample;
};

// Samples of mean and scale, the first two inputs, into z, [samples, *batch, *event], and a sum over all inputs,
// [*batch] or [samples, *batch]: one pass over the inputs, on the CPU where a datapoint and its samples fit the cache.
Tensor sample_and_sum_rows(const SampledSum& sum, const Layout& layout, const Spec& spec, at::TensorList inputs,
                           const Tensor& z);

// The sum of all of `values`, added in double, into `result`, which is 0-d.
void sum_event(const Tensor& values, const Tensor& result);

}  // namespace vae_ext

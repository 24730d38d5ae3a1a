// Runs the kernels over all threads.
#pragma once

#include "../cpu/kernels.h"
#include "problem.h"

namespace vae_ext {

// Which kernel, of whatever instruction set is at hand.
using Kernel = cpu::Kernel cpu::Kernels::*;

// One elementwise kernel over its whole problem.
void run_map(Kernel kernel, const Problem& problem);

// One sum for each row, as a new tensor [*batch] or [samples, *batch] of the layout's compute type.
Tensor sum_rows(Kernel kernel, const Layout& layout, const Spec& spec, at::TensorList inputs);

// Samples of `map_inputs` into z, [samples, *batch, *event], and a sum over `sum_inputs`, which may be z: one pass over
// the inputs where a datapoint and its samples fit the cache. `sum_spec` says whether the sums are of each sample.
Tensor sample_and_sum_rows(const Layout& layout, const Spec& spec, at::TensorList map_inputs, const Tensor& z,
                           Kernel sum_kernel, const Spec& sum_spec, at::TensorList sum_inputs);

// Samples alone.
void sample_rows(const Layout& layout, const Spec& spec, at::TensorList inputs, const Tensor& z);

}  // namespace vae_ext

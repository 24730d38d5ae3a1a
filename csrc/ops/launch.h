// From tensors to kernels: builds a Problem (strides, order of dims, coalescing) and runs it on the device.
#pragma once

#include <vector>

#include "layout.h"
#include "rng_state.h"

namespace vae_ext {

// Everything the kernels of one operator have in common.
struct Spec {
  ScaleKind kind = ScaleKind::log_var;
  bool prior_scale = false;
  double factor = 1.0, constant = 0.0;
  const NoiseDraw* noise = nullptr;
  // The samples of each datapoint, where the rows of a problem carry them.
  std::optional<int64_t> samples;
};

enum class SumKernel { bernoulli_log_prob, normal_log_prob, normal_kl, normal_log_ratio };
enum class MapKernel {
  bernoulli_log_prob_backward,
  normal_log_prob_backward,
  normal_kl_backward,
  normal_rsample,
  normal_rsample_backward,
  normal_rsample_kl_backward,
  normal_log_ratio_backward,
};

// One sum for each row, as a new tensor [*batch] or [samples, *batch] of the layout's compute type. An undefined input
// stands for zero.
Tensor sum_rows(SumKernel kernel, const Layout& layout, const Spec& spec, at::TensorList inputs);

// Writes the formula's one output, contiguous [samples, *batch, *event].
void map_rows(MapKernel kernel, const Layout& layout, const Spec& spec, at::TensorList inputs, const Tensor& output);

// Both of a datapoint's kernels while its inputs are in cache: the sampler, which writes z, then the sum, whose rows
// are the batch (or, with `sum_over_samples`, each sample of it) and which may read z.
Tensor map_and_sum_rows(const Layout& layout, const Spec& spec, at::TensorList map_inputs, const Tensor& z,
                        SumKernel kernel, const Spec& sum_spec, at::TensorList sum_inputs, bool sum_over_samples);

// The gradient of an operator's sums, [samples, *batch] or [*batch], checked.
Tensor row_gradient(const Layout& layout, const char* name, const Tensor& grad, std::optional<int64_t> samples = {});

// A gradient for each of the formula's outputs that is wanted, shaped and typed like the argument in `like`, summed
// over what the argument was broadcast over. row_value is the gradient that each row's sum got, undefined for formulas
// without one. Unwanted ones come back undefined.
//
// Beyond the results it allocates, where an argument is broadcast over more than kReplicaChunk rows, one row for each
// such chunk; where an argument is 0-d, one event.
std::vector<Tensor> gradients(MapKernel kernel, const Layout& layout, const Spec& spec, at::TensorList inputs,
                              const Tensor& row_value, at::TensorList like, c10::ArrayRef<bool> wanted);

}  // namespace vae_ext

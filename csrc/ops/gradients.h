// Gradients of all arguments of an operator, summed over what each was broadcast over.
#pragma once

#include "launch.h"

namespace vae_ext {

// The gradient of an operator's sums, [samples, *batch] or [*batch], checked.
Tensor row_gradient(const Layout& layout, const char* name, const Tensor& grad, std::optional<int64_t> samples = {});

// A gradient for each of the formula's outputs that is wanted, shaped and typed like the argument in `like`; unwanted
// ones come back undefined. row_value is the gradient that each row's sum got, undefined for formulas without one.
//
// Beyond the results it allocates, where an argument is broadcast over more than replica_chunk rows, one row of the
// gradient for each such chunk; where an argument is 0-d, one event.
std::vector<Tensor> gradients(const Kernel& kernel, const Layout& layout, const Spec& spec, at::TensorList inputs,
                              const Tensor& row_value, at::TensorList like, c10::ArrayRef<bool> wanted);

}  // namespace vae_ext

// How a tensor looks to a kernel: rows over the batch dims, each row a dense run of one datapoint's event. Plain
// structs, shared by csrc/ops, csrc/cpu and csrc/cuda.
#pragma once

#include <stdint.h>

#include "math/inline.h"
#include "math/scale_kind.h"
#include "math/standard_kind.h"

namespace vae_ext {

enum class DType : int8_t { f32, f64, bf16, f16, u8 };

// After coalescing; more means that many batch dims that no two operands traverse alike.
constexpr int kMaxDims = 8;
// Of a formula; epsilon, which kernels draw themselves, is no operand.
constexpr int kMaxInputs = 5, kMaxOutputs = 4;

struct Operand {
  void* data = nullptr;
  DType dtype = DType::f32;
  // One value stands for the whole event.
  bool scalar = false;
  // Of an output: is it to be computed?
  bool wanted = false;
  // Of each batch dim, in elements; zero where the operand is broadcast.
  int64_t stride[kMaxDims] = {};
};

// The rows to visit, outermost dim first. The last `reduced_dims` of them are summed over: the rows that differ only
// there are replicas of one row of the outputs.
struct Rows {
  int dims = 0, reduced_dims = 0;
  int64_t size[kMaxDims] = {};
  int64_t event = 1;
};

struct Noise {
  // [seed, offset], where the kernels run: they read it themselves, so nobody has to wait for it.
  const int64_t* state = nullptr;
  int64_t state_stride = 1;
  uint64_t stream = 0;
  uint32_t first_row = 0;
  StandardKind standard = StandardKind::normal;
  // What one step along each dim adds to the row and to the sample number.
  int64_t row_stride[kMaxDims] = {}, sample_stride[kMaxDims] = {};
};

// One launch of one kernel. Inputs, row values and outputs are those of its formula in csrc/math, in that order.
struct Problem {
  Rows rows;
  Operand in[kMaxInputs];
  Operand row_value;
  Operand out[kMaxOutputs];
  Noise noise;
  ScaleKind kind = ScaleKind::log_var;
  bool prior_scale = false;
  // Write around the caches: the outputs would not stay in them.
  bool past_cache = false;
  // Compute in float64 rather than float32.
  bool wide = false;
  // A row's sum s becomes factor * s + constant.
  double factor = 1.0, constant = 0.0;
};

// How many parts of `size` it takes for `count` elements or rows.
VAE_EXT_INLINE constexpr int64_t divide_up(int64_t count, int64_t size) { return (count + size - 1) / size; }

}  // namespace vae_ext

// From tensors to a Problem: strides, the order of the dims, coalescing.
#pragma once

#include "layout.h"
#include "rng_state.h"

namespace vae_ext {

// What the problems of one operator have in common.
struct Spec {
  ScaleKind kind = ScaleKind::log_var;
  bool prior_scale = false;
  double factor = 1.0, constant = 0.0;
  const NoiseDraw* noise = nullptr;
  // The samples of each datapoint, where the rows of a problem carry them.
  std::optional<int64_t> samples;
};

DType dtype_of(const Tensor& tensor);

// Builds a Problem over the rows [*batch], or with samples [samples, *batch], or [*batch, samples] where they are to
// come last. The tensors must outlive it.
class ProblemBuilder {
 public:
  ProblemBuilder(const Layout& layout, const Spec& spec, bool samples_last = false);
  // Its slots point into its problem.
  ProblemBuilder(const ProblemBuilder&) = delete;
  ProblemBuilder& operator=(const ProblemBuilder&) = delete;

  // The formula's inputs in order; an undefined one stands for zero. Their events are dense (with_dense_events).
  void inputs(at::TensorList tensors);
  void row_value(const Tensor& tensor);
  void output(int o, const Tensor& tensor, int64_t event_ndim);

  // The problem with the dims of `reduced`, a set of bits, last, and all dims coalesced.
  Problem& finish(uint64_t reduced = 0);

  int64_t rows() const { return c10::multiply_integers(size_); }

 private:
  struct Slot {
    int64_t* target;
    at::DimVector stride;
  };

  void insert_sample_dim(at::DimVector& values, int64_t value) const;
  int64_t dim_in(const Tensor& tensor, size_t d, int64_t event_ndim) const;
  at::DimVector strides_of(const Tensor& tensor, int64_t event_ndim) const;
  void set(Operand& operand, const Tensor& tensor, void* data, int64_t event_ndim);
  void set_noise(const NoiseDraw& draw);
  bool continues(size_t outer, size_t inner) const;

  const Layout& layout_;
  const bool samples_last_, has_samples_;
  at::DimVector size_;
  Problem problem_;
  int64_t output_bytes_ = 0;
  c10::SmallVector<Slot, 12> slots_;
};

}  // namespace vae_ext

#include "problem.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "kernel.h"

namespace vae_ext {
namespace {

// Bytes of output from which on they would push each other out of the cache before anyone read them.
constexpr int64_t kPastCacheBytes = int64_t{24} << 20;

}  // namespace

DType dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return DType::f32;
    case at::kDouble:
      return DType::f64;
    case at::kBFloat16:
      return DType::bf16;
    case at::kHalf:
      return DType::f16;
    default:
      return DType::u8;
  }
}

ProblemBuilder::ProblemBuilder(const Layout& layout, const Spec& spec, bool samples_last)
    : layout_(layout), samples_last_(samples_last), has_samples_(spec.samples.has_value()) {
  problem_.kind = spec.kind;
  problem_.prior_scale = spec.prior_scale;
  problem_.wide = layout.compute_type() == at::kDouble;
  problem_.factor = spec.factor;
  problem_.constant = spec.constant;
  problem_.rows.event = layout.event_size();
  size_.assign(layout.batch().begin(), layout.batch().end());
  if (has_samples_) insert_sample_dim(size_, *spec.samples);
  if (spec.noise) set_noise(*spec.noise);
}

void ProblemBuilder::inputs(at::TensorList tensors) {
  static const float kZero = 0.0f;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].defined()) {
      set(problem_.in[i], tensors[i], const_cast<void*>(tensors[i].const_data_ptr()), layout_.event_ndim());
      continue;
    }
    // Another device cannot read this zero; its kernels know what no data means.
    if (runs_on_cpu(layout_.options().device())) problem_.in[i].data = const_cast<float*>(&kZero);
    problem_.in[i].scalar = true;
  }
}

void ProblemBuilder::row_value(const Tensor& tensor) {
  if (tensor.defined()) set(problem_.row_value, tensor, const_cast<void*>(tensor.const_data_ptr()), 0);
}

void ProblemBuilder::output(int o, const Tensor& tensor, int64_t event_ndim) {
  set(problem_.out[o], tensor, tensor.mutable_data_ptr(), event_ndim);
  problem_.out[o].wanted = true;
  output_bytes_ += static_cast<int64_t>(tensor.nbytes());
  problem_.past_cache = output_bytes_ >= kPastCacheBytes;
}

Problem& ProblemBuilder::finish(uint64_t reduced) {
  c10::SmallVector<size_t, 8> order;
  for (const bool pass : {false, true})
    for (size_t d = 0; d < size_.size(); ++d)
      if (size_[d] != 1 && ((reduced >> d & 1) != 0) == pass) order.push_back(d);
  Rows& rows = problem_.rows;
  for (size_t k = 0; k < order.size(); ++k) {
    const bool is_reduced = (reduced >> order[k] & 1) != 0;
    const bool starts_reduced = k > 0 && is_reduced && (reduced >> order[k - 1] & 1) == 0;
    if (k == 0 || starts_reduced || !continues(order[k - 1], order[k])) {
      TORCH_CHECK(rows.dims < kMaxDims, "the batch dims of the arguments have strides that do not combine into ",
                  kMaxDims, " dims or fewer; make the arguments contiguous first");
      rows.size[rows.dims] = 1;
      rows.dims += 1;
      rows.reduced_dims += is_reduced;
    }
    rows.size[rows.dims - 1] *= size_[order[k]];
    for (const Slot& slot : slots_) slot.target[rows.dims - 1] = slot.stride[order[k]];
  }
  return problem_;
}

void ProblemBuilder::insert_sample_dim(at::DimVector& values, int64_t value) const {
  values.insert(samples_last_ ? values.end() : values.begin(), value);
}

// Which dim of the tensor is row dim d, or -1. Dims align at the end of the batch; the sample dim stands before them
// in a tensor, wherever it stands in the rows.
int64_t ProblemBuilder::dim_in(const Tensor& tensor, size_t d, int64_t event_ndim) const {
  if (is_scalar(tensor, event_ndim)) return -1;
  const auto total = static_cast<int64_t>(size_.size());
  int64_t position = static_cast<int64_t>(d);
  if (has_samples_ && samples_last_) position = position == total - 1 ? 0 : position + 1;
  return std::max<int64_t>(position - (total - (tensor.dim() - event_ndim)), -1);
}

at::DimVector ProblemBuilder::strides_of(const Tensor& tensor, int64_t event_ndim) const {
  at::DimVector stride(size_.size(), 0);
  for (size_t d = 0; d < size_.size(); ++d) {
    const int64_t own = dim_in(tensor, d, event_ndim);
    if (own >= 0 && tensor.size(own) != 1) stride[d] = tensor.stride(own);
  }
  return stride;
}

void ProblemBuilder::set(Operand& operand, const Tensor& tensor, void* data, int64_t event_ndim) {
  operand.data = data;
  operand.dtype = dtype_of(tensor);
  operand.scalar = is_scalar(tensor, event_ndim) || is_event_expanded(tensor, event_ndim);
  slots_.push_back({operand.stride, strides_of(tensor, event_ndim)});
}

void ProblemBuilder::set_noise(const NoiseDraw& draw) {
  Noise& noise = problem_.noise;
  noise.state = draw.rng_state.const_data_ptr<int64_t>();
  noise.state_stride = draw.rng_state.stride(0);
  noise.stream = static_cast<uint64_t>(draw.stream);
  noise.first_row = static_cast<uint32_t>(draw.first_row);
  noise.standard = draw.standard;
  at::DimVector row(layout_.batch().size(), 0), sample(layout_.batch().size(), 0);
  int64_t step = 1;
  for (size_t d = row.size(); d-- > 0; step *= layout_.batch()[d]) row[d] = step;
  if (has_samples_) {
    insert_sample_dim(row, 0);
    insert_sample_dim(sample, 1);
  }
  slots_.push_back({noise.row_stride, row});
  slots_.push_back({noise.sample_stride, sample});
}

// Is stepping through `inner` to its end one step of `outer`, for every operand?
bool ProblemBuilder::continues(size_t outer, size_t inner) const {
  for (const Slot& slot : slots_)
    if (slot.stride[outer] != slot.stride[inner] * size_[inner]) return false;
  return true;
}

}  // namespace vae_ext

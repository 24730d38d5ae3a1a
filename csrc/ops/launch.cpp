#include "launch.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "../cpu/dispatch.h"

namespace vae_ext {
namespace {

using cpu::kReplicaChunk;
using cpu::kSegment;
using cpu::kSpan;
using Strides = at::DimVector;

// Bytes of output from which on they would push each other out of the cache before anyone read them.
constexpr int64_t kPastCacheBytes = int64_t{24} << 20;

// Elements worth waking another thread for.
constexpr int64_t kGrainElements = 8192;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

cpu::Kernel find(SumKernel kernel) {
  const cpu::Kernels& k = cpu::kernels();
  switch (kernel) {
    case SumKernel::bernoulli_log_prob:
      return k.bernoulli_log_prob;
    case SumKernel::normal_log_prob:
      return k.normal_log_prob;
    case SumKernel::normal_kl:
      return k.normal_kl;
    case SumKernel::normal_log_ratio:
      return k.normal_log_ratio;
  }
  TORCH_INTERNAL_ASSERT(false);
}

cpu::Kernel find(MapKernel kernel) {
  const cpu::Kernels& k = cpu::kernels();
  switch (kernel) {
    case MapKernel::bernoulli_log_prob_backward:
      return k.bernoulli_log_prob_backward;
    case MapKernel::normal_log_prob_backward:
      return k.normal_log_prob_backward;
    case MapKernel::normal_kl_backward:
      return k.normal_kl_backward;
    case MapKernel::normal_rsample:
      return k.normal_rsample;
    case MapKernel::normal_rsample_backward:
      return k.normal_rsample_backward;
    case MapKernel::normal_rsample_kl_backward:
      return k.normal_rsample_kl_backward;
    case MapKernel::normal_log_ratio_backward:
      return k.normal_log_ratio_backward;
  }
  TORCH_INTERNAL_ASSERT(false);
}

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

// Builds a Problem over the rows [*batch], or with samples [samples, *batch] or [*batch, samples].
class Builder {
 public:
  Builder(const Layout& layout, const Spec& spec, std::optional<int64_t> samples, bool samples_last = false)
      : layout_(layout), samples_last_(samples_last) {
    problem_.kind = spec.kind;
    problem_.prior_scale = spec.prior_scale;
    problem_.wide = layout.compute_type() == at::kDouble;
    problem_.factor = spec.factor;
    problem_.constant = spec.constant;
    problem_.rows.event = layout.event_size();
    size_.assign(layout.batch().begin(), layout.batch().end());
    if (samples) insert_sample_dim(size_, *samples);
    has_samples_ = samples.has_value();
    if (spec.noise) set_noise(*spec.noise);
  }

  void input(int i, const Tensor& tensor) {
    if (!tensor.defined()) return zero(problem_.in[i]);
    const Tensor dense = with_dense_event(tensor, event_ndim());
    keep_.push_back(dense);
    set(problem_.in[i], dense, event_ndim());
  }
  void row_value(const Tensor& tensor) {
    if (tensor.defined()) set(problem_.row_value, tensor, 0);
  }
  void output(int o, const Tensor& tensor, int64_t event_ndim) {
    set(problem_.out[o], tensor, event_ndim);
    output_bytes_ += static_cast<int64_t>(tensor.nbytes());
    problem_.past_cache = output_bytes_ >= kPastCacheBytes;
  }

  // The problem with the dims of `reduced` last and all dims coalesced.
  const Problem& finish(uint64_t reduced = 0) {
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

  int64_t rows() const { return c10::multiply_integers(size_); }

 private:
  struct Slot {
    int64_t* target;
    Strides stride;
  };

  int64_t event_ndim() const { return static_cast<int64_t>(layout_.event().size()); }

  void insert_sample_dim(Strides& values, int64_t value) const {
    values.insert(samples_last_ ? values.end() : values.begin(), value);
  }

  // Which dim of the tensor is row dim d, or -1. Dims align at the end of the batch; the sample dim stands before them
  // in a tensor, wherever it stands in the rows.
  int64_t dim_in(const Tensor& tensor, size_t d, int64_t event_ndim) const {
    const auto total = static_cast<int64_t>(size_.size());
    int64_t position = static_cast<int64_t>(d);
    if (has_samples_ && samples_last_) position = position == total - 1 ? 0 : position + 1;
    if (is_scalar(tensor, event_ndim)) return -1;
    return std::max<int64_t>(position - (total - (tensor.dim() - event_ndim)), -1);
  }

  Strides strides_of(const Tensor& tensor, int64_t event_ndim) const {
    Strides stride(size_.size(), 0);
    for (size_t d = 0; d < size_.size(); ++d) {
      const int64_t own = dim_in(tensor, d, event_ndim);
      if (own >= 0 && tensor.size(own) != 1) stride[d] = tensor.stride(own);
    }
    return stride;
  }

  void set(Operand& operand, const Tensor& tensor, int64_t event_ndim) {
    operand.data = tensor.data_ptr();
    operand.dtype = dtype_of(tensor);
    operand.scalar = is_scalar(tensor, event_ndim);
    slots_.push_back({operand.stride, strides_of(tensor, event_ndim)});
  }

  static void zero(Operand& operand) {
    static const float kZero = 0.0f;
    operand.data = const_cast<float*>(&kZero);
    operand.scalar = true;
  }

  void set_noise(const NoiseDraw& draw) {
    const Tensor state = draw.rng_state.contiguous();
    Noise& noise = problem_.noise;
    noise.seed = static_cast<uint64_t>(state.const_data_ptr<int64_t>()[0]);
    noise.offset = static_cast<uint64_t>(state.const_data_ptr<int64_t>()[1]);
    noise.stream = static_cast<uint64_t>(draw.stream);
    noise.first_row = static_cast<uint32_t>(draw.first_row);
    Strides row(layout_.batch().size(), 0), sample(layout_.batch().size(), 0);
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
  bool continues(size_t outer, size_t inner) const {
    for (const Slot& slot : slots_)
      if (slot.stride[outer] != slot.stride[inner] * size_[inner]) return false;
    return true;
  }

  const Layout& layout_;
  const bool samples_last_;
  bool has_samples_ = false;
  at::DimVector size_;
  Problem problem_;
  int64_t output_bytes_ = 0;
  c10::SmallVector<Slot, 12> slots_;
  c10::SmallVector<Tensor, 4> keep_;
};

void inputs_of(Builder& builder, at::TensorList inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) builder.input(static_cast<int>(i), inputs[i]);
}

int64_t map_units(const Rows& rows) {
  int64_t kept = 1, replicas = 1;
  for (int d = 0; d < rows.dims; ++d) (d < rows.dims - rows.reduced_dims ? kept : replicas) *= rows.size[d];
  return kept * divide_up(replicas, kReplicaChunk) * divide_up(rows.event, kSegment);
}

// How many units are worth a thread, when one has `elements`.
int64_t grain(int64_t elements) { return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, elements)); }

void run_map(cpu::Kernel kernel, const Problem& problem) {
  const int64_t units = map_units(problem.rows);
  if (units == 0) return;
  int64_t replicas = 1;
  for (int d = problem.rows.dims - problem.rows.reduced_dims; d < problem.rows.dims; ++d)
    replicas *= problem.rows.size[d];
  const int64_t elements = std::min(replicas, kReplicaChunk) * std::min(problem.rows.event, kSegment);
  at::parallel_for(0, units, grain(elements), [&](int64_t begin, int64_t end) { kernel(problem, begin, end); });
}

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

// A workspace [chunks, *like] in which each chunk of replicas leaves its sum, and the pass that adds them up in order.
void sum_chunks(const Layout& layout, const Tensor& workspace, const Tensor& result) {
  Problem problem;
  problem.wide = layout.compute_type() == at::kDouble;
  const int64_t chunks = workspace.size(0), row = result.numel();
  problem.rows.dims = problem.rows.reduced_dims = 1;
  problem.rows.size[0] = chunks;
  problem.rows.event = row;
  problem.in[0].data = workspace.data_ptr();
  problem.in[0].dtype = dtype_of(workspace);
  problem.in[0].stride[0] = row;
  problem.out[0].data = result.data_ptr();
  problem.out[0].dtype = dtype_of(result);
  run_map(cpu::kernels().sum_replicas, problem);
}

// One output of a gradient kernel on its way.
struct Target {
  int slot = 0;
  Tensor like, result, written;
  uint64_t reduced = 0;
};

class Gradients {
 public:
  Gradients(MapKernel kernel, const Layout& layout, const Spec& spec, at::TensorList inputs, const Tensor& row_value)
      : kernel_(kernel), layout_(layout), spec_(spec), inputs_(inputs), row_value_(row_value) {}

  Tensor add(int slot, const Tensor& like) {
    targets_.push_back({slot, like, at::empty(like.sizes(), like.options()), {}, broadcast_dims(like)});
    return targets_.back().result;
  }

  // One pass for all outputs that are summed over the same dims.
  void run() {
    c10::SmallVector<bool, kMaxOutputs> done(targets_.size(), false);
    for (size_t first = 0; first < targets_.size(); ++first) {
      if (done[first]) continue;
      c10::SmallVector<Target*, kMaxOutputs> together;
      for (size_t k = first; k < targets_.size(); ++k) {
        if (targets_[k].reduced != targets_[first].reduced) continue;
        done[k] = true;
        together.push_back(&targets_[k]);
      }
      run_together(together);
    }
  }

 private:
  void run_together(c10::ArrayRef<Target*> targets) {
    const uint64_t reduced = targets.front()->reduced;
    Builder builder(layout_, spec_, spec_.samples);
    inputs_of(builder, inputs_);
    builder.row_value(row_value_);
    const int64_t replicas = replicas_of(reduced);
    const int64_t chunks = divide_up(replicas, kReplicaChunk);
    if (replicas == 0 || builder.rows() == 0) {
      for (Target* target : targets) target->result.zero_();
      return;
    }
    for (Target* target : targets) {
      target->written = destination(*target, chunks);
      const bool chunked = chunks > 1;
      builder.output(target->slot, chunked ? target->written.select(0, 0) : target->written, event_ndim());
    }
    run_map(find(kernel_), builder.finish(reduced));
    for (Target* target : targets) collect(*target, chunks);
  }

  int64_t event_ndim() const { return static_cast<int64_t>(layout_.event().size()); }

  // The dims of [samples, *batch] over which `like` is broadcast, as bits.
  uint64_t broadcast_dims(const Tensor& like) const {
    const at::DimVector size = layout_.shape(spec_.samples, false);
    const int64_t missing = static_cast<int64_t>(size.size()) - (like.dim() - event_ndim());
    uint64_t dims = 0;
    for (size_t d = 0; d < size.size(); ++d) {
      const int64_t own = static_cast<int64_t>(d) - missing;
      const bool carried = !is_scalar(like, event_ndim()) && own >= 0 && like.size(own) == size[d];
      if (size[d] != 1 && !carried) dims |= uint64_t{1} << d;
    }
    return dims;
  }

  int64_t replicas_of(uint64_t reduced) const {
    at::DimVector size = layout_.shape(spec_.samples, false);
    int64_t replicas = 1;
    for (size_t d = 0; d < size.size(); ++d)
      if (reduced >> d & 1) replicas *= size[d];
    return replicas;
  }

  // Where the kernel writes: the result itself if it can, else a workspace with the whole event, chunk by chunk.
  Tensor destination(const Target& target, int64_t chunks) const {
    const bool scalar = is_scalar(target.like, event_ndim());
    if (chunks == 1 && !scalar) return target.result;
    at::DimVector shape;
    if (chunks > 1) shape.push_back(chunks);
    if (scalar) {
      shape.append(layout_.event().begin(), layout_.event().end());
    } else {
      shape.append(target.like.sizes().begin(), target.like.sizes().end());
    }
    return at::empty(shape, layout_.options().dtype(layout_.compute_type()));
  }

  void collect(Target& target, int64_t chunks) const {
    const bool scalar = is_scalar(target.like, event_ndim());
    Tensor sum = target.written;
    if (chunks > 1) {
      sum = scalar ? at::empty(layout_.event(), target.written.options()) : target.result;
      sum_chunks(layout_, target.written, sum);
    }
    if (scalar) sum_event(sum, target.result);
  }

  static void sum_event(const Tensor& values, const Tensor& result) {
    AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "sum_event", [&] {
      const scalar_t* value = values.const_data_ptr<scalar_t>();
      double total = 0.0;
      for (int64_t j = 0; j < values.numel(); ++j) total += value[j];
      result.fill_(total);
    });
  }

  const MapKernel kernel_;
  const Layout& layout_;
  const Spec& spec_;
  const at::TensorList inputs_;
  const Tensor row_value_;
  c10::SmallVector<Target, kMaxOutputs> targets_;
};

// A gradient can be asked for only where there is an argument that has one.
void check_wanted(at::TensorList arguments, c10::ArrayRef<bool> wanted) {
  for (size_t k = 0; k < wanted.size(); ++k)
    TORCH_CHECK_VALUE(!wanted[k] || (arguments[k].defined() && arguments[k].is_floating_point()), "wanted[", k,
                      "] is true, but that argument was left out or is not of a floating type");
}

}  // namespace

Tensor sum_rows(SumKernel kernel, const Layout& layout, const Spec& spec, at::TensorList inputs) {
  const Tensor sums = empty_sums(layout, spec.samples);
  Builder builder(layout, spec, spec.samples);
  inputs_of(builder, inputs);
  builder.output(0, sums, 0);
  Problem problem = builder.finish();
  const int64_t event = layout.event_size(), spans = std::max<int64_t>(1, divide_up(event, kSpan));
  Tensor partial;
  if (spans > 1) {
    partial = at::empty({builder.rows() * spans}, layout.options().dtype(at::kDouble));
    problem.out[0].data = partial.data_ptr();
  }
  const cpu::Kernel run = find(kernel);
  at::parallel_for(0, builder.rows() * spans, grain(std::min(event, kSpan)),
                   [&](int64_t begin, int64_t end) { run(problem, begin, end); });
  if (spans > 1) finish_spans(problem, partial.const_data_ptr<double>(), builder.rows(), spans, sums);
  return sums;
}

void map_rows(MapKernel kernel, const Layout& layout, const Spec& spec, at::TensorList inputs, const Tensor& output) {
  Builder builder(layout, spec, spec.samples);
  inputs_of(builder, inputs);
  builder.output(0, output, static_cast<int64_t>(layout.event().size()));
  run_map(find(kernel), builder.finish());
}

Tensor map_and_sum_rows(const Layout& layout, const Spec& spec, at::TensorList map_inputs, const Tensor& z,
                        SumKernel kernel, const Spec& sum_spec, at::TensorList sum_inputs, bool sum_over_samples) {
  const int64_t event = layout.event_size();
  const std::optional<int64_t> sum_samples = sum_over_samples ? spec.samples : std::nullopt;
  if (event > kSpan) {
    map_rows(MapKernel::normal_rsample, layout, spec, map_inputs, z);
    Spec with_samples = sum_spec;
    with_samples.samples = sum_samples;
    return sum_rows(kernel, layout, with_samples, sum_inputs);
  }
  const Tensor sums = empty_sums(layout, sum_samples);
  Builder mapping(layout, spec, spec.samples, /*samples_last=*/true);
  inputs_of(mapping, map_inputs);
  mapping.output(0, z, static_cast<int64_t>(layout.event().size()));
  Builder summing(layout, sum_spec, sum_samples, /*samples_last=*/true);
  inputs_of(summing, sum_inputs);
  summing.output(0, sums, 0);
  const Problem &map_problem = mapping.finish(), &sum_problem = summing.finish();
  const cpu::Kernel map = find(MapKernel::normal_rsample), sum = find(kernel);

  const int64_t samples = spec.samples.value_or(1), rows = c10::multiply_integers(layout.batch());
  const int64_t map_units = samples * divide_up(event, kSegment), sum_units = sum_samples.value_or(1);
  // Rows whose inputs and samples stay in the first-level cache between the two.
  const int64_t block = grain(event * samples);
  at::parallel_for(0, rows, block, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += block) {
      const int64_t last = std::min(row + block, end);
      map(map_problem, row * map_units, last * map_units);
      sum(sum_problem, row * sum_units, last * sum_units);
    }
  });
  return sums;
}

Tensor row_gradient(const Layout& layout, const char* name, const Tensor& grad, std::optional<int64_t> samples) {
  TORCH_CHECK_VALUE(grad.sizes() == at::IntArrayRef(layout.shape(samples, false)), name, " has shape ", grad.sizes(),
                    "; expected ", at::IntArrayRef(layout.shape(samples, false)));
  TORCH_CHECK_TYPE(grad.scalar_type() == layout.compute_type(), name, " is ", grad.scalar_type(), "; expected ",
                   layout.compute_type());
  return grad;
}

std::vector<Tensor> gradients(MapKernel kernel, const Layout& layout, const Spec& spec, at::TensorList inputs,
                              const Tensor& row_value, at::TensorList like, c10::ArrayRef<bool> wanted) {
  check_wanted(like, wanted);
  std::vector<Tensor> results(like.size());
  Gradients pass(kernel, layout, spec, inputs, row_value);
  for (size_t k = 0; k < like.size(); ++k)
    if (wanted[k]) results[k] = pass.add(static_cast<int>(k), like[k]);
  pass.run();
  return results;
}

}  // namespace vae_ext

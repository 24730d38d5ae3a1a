#include "gradients.h"

#include <ATen/ATen.h>

#include "huge_pages.h"

namespace vae_ext {
namespace {

constexpr Kernel kSumReplicas = kOnEachDevice<&cpu::Kernels::sum_replicas, cuda::sum_replicas>;

int64_t chunks_of(int64_t replicas, const at::Device& device) { return divide_up(replicas, replica_chunk(device)); }

// A workspace [chunks, *result] in which each chunk of replicas left its sum: adds them up in order, chunk by chunk of
// chunks where there are many.
void sum_chunks(const Tensor& workspace, const Tensor& result) {
  const int64_t chunks = workspace.size(0), row = result.numel();
  const bool last = chunks <= replica_chunk(workspace.device());
  const Tensor sums = last ? result : at::empty({chunks_of(chunks, workspace.device()), row}, workspace.options());
  Problem problem;
  problem.wide = workspace.scalar_type() == at::kDouble;
  problem.rows.dims = problem.rows.reduced_dims = 1;
  problem.rows.size[0] = chunks;
  problem.rows.event = row;
  problem.in[0].data = const_cast<void*>(workspace.const_data_ptr());
  problem.in[0].dtype = dtype_of(workspace);
  problem.in[0].stride[0] = row;
  problem.out[0].data = sums.mutable_data_ptr();
  problem.out[0].dtype = dtype_of(sums);
  problem.out[0].wanted = true;
  run_map(kSumReplicas, problem, workspace.device());
  if (!last) sum_chunks(sums, result);
}

// One output of a gradient kernel on its way.
struct Target {
  int slot = 0;
  Tensor like, result, written;
  uint64_t reduced = 0;
};

class Gradients {
 public:
  Gradients(const Kernel& kernel, const Layout& layout, const Spec& spec, at::TensorList inputs,
            const Tensor& row_value)
      : kernel_(kernel), layout_(layout), spec_(spec), inputs_(inputs), row_value_(row_value) {}

  Tensor add(int slot, const Tensor& like) {
    targets_.push_back({slot, like, empty_of_huge_pages(like.sizes(), like.options()), {}, broadcast_dims(like)});
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
    ProblemBuilder builder(layout_, spec_);
    builder.inputs(inputs_);
    builder.row_value(row_value_);
    const int64_t replicas = replicas_of(reduced);
    const int64_t chunks = chunks_of(replicas, layout_.options().device());
    if (replicas == 0 || builder.rows() == 0) {
      for (Target* target : targets) target->result.zero_();
      return;
    }
    for (Target* target : targets) {
      target->written = destination(*target, chunks);
      const bool chunked = chunks > 1;
      builder.output(target->slot, chunked ? target->written.select(0, 0) : target->written, layout_.event_ndim());
    }
    run_map(kernel_, builder.finish(reduced), layout_.options().device());
    for (Target* target : targets) collect(*target, chunks);
  }

  // The dims of [samples, *batch] over which `like` is broadcast, as bits.
  uint64_t broadcast_dims(const Tensor& like) const {
    const at::DimVector size = layout_.shape(spec_.samples, false);
    const int64_t missing = static_cast<int64_t>(size.size()) - (like.dim() - layout_.event_ndim());
    uint64_t dims = 0;
    for (size_t d = 0; d < size.size(); ++d) {
      const int64_t own = static_cast<int64_t>(d) - missing;
      const bool carried = !is_scalar(like, layout_.event_ndim()) && own >= 0 && like.size(own) == size[d];
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
    const bool scalar = is_scalar(target.like, layout_.event_ndim());
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
    const bool scalar = is_scalar(target.like, layout_.event_ndim());
    Tensor sum = target.written;
    if (chunks > 1) {
      sum = scalar ? at::empty(layout_.event(), target.written.options()) : target.result;
      sum_chunks(target.written, sum);
    }
    if (scalar) sum_event(sum, target.result);
  }

  const Kernel kernel_;
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

Tensor row_gradient(const Layout& layout, const char* name, const Tensor& grad, std::optional<int64_t> samples) {
  TORCH_CHECK_VALUE(grad.sizes() == at::IntArrayRef(layout.shape(samples, false)), name, " has shape ", grad.sizes(),
                    "; expected ", at::IntArrayRef(layout.shape(samples, false)));
  TORCH_CHECK_TYPE(grad.scalar_type() == layout.compute_type(), name, " is ", name_of(grad.scalar_type()),
                   "; expected ", name_of(layout.compute_type()));
  check_device(name, grad, "the first argument", layout.options().device());
  return grad;
}

std::vector<Tensor> gradients(const Kernel& kernel, const Layout& layout, const Spec& spec, at::TensorList inputs,
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

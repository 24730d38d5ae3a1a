#include "layout.h"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>

#include <algorithm>

namespace vae_ext {
namespace {

bool is_parameter_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf;
}

void check_dtype(const Argument& argument, const Argument& first) {
  const at::ScalarType type = argument.tensor.scalar_type();
  if (argument.role == Role::data) {
    TORCH_CHECK_TYPE(is_parameter_type(type) || type == at::kBool || type == at::kByte, argument.name, " is ",
                     name_of(type), "; expected a floating type, bool or uint8");
    return;
  }
  TORCH_CHECK_TYPE(is_parameter_type(type), argument.name, " is ", name_of(type),
                   "; expected float32, float64, bfloat16 or float16");
  // One number for everything need not be rounded to half precision.
  const bool wide_scalar = argument.tensor.dim() == 0 && type == compute_type_of(first.tensor);
  TORCH_CHECK_TYPE(wide_scalar || type == first.tensor.scalar_type(), argument.name, " is ", name_of(type), " but ",
                   first.name, " is ", name_of(first.tensor.scalar_type()), "; both must have one dtype");
}

bool is_event_dense(const Tensor& tensor, int64_t event_ndim) {
  if (is_scalar(tensor, event_ndim) || tensor.numel() == 0) return true;
  int64_t expected = 1;
  for (int64_t d = tensor.dim() - 1; d >= tensor.dim() - event_ndim; --d) {
    if (tensor.size(d) != 1 && tensor.stride(d) != expected) return false;
    expected *= tensor.size(d);
  }
  return true;
}

// Batch dims that are broadcast stay so.
Tensor copy_with_dense_event(const Tensor& tensor, int64_t event_ndim) {
  Tensor distinct = tensor;
  for (int64_t d = 0; d < tensor.dim() - event_ndim; ++d)
    if (tensor.stride(d) == 0) distinct = distinct.narrow(d, 0, 1);
  return distinct.contiguous().expand(tensor.sizes());
}

}  // namespace

ScaleKind parse_kind(std::string_view kind) {
  if (kind == "log_var") return ScaleKind::log_var;
  if (kind == "log_std") return ScaleKind::log_std;
  if (kind == "std") return ScaleKind::std;
  if (kind == "var") return ScaleKind::var;
  TORCH_CHECK_VALUE(false, "kind is '", kind, "'; expected log_var, log_std, std or var");
}

void check_device(std::string_view name, const Tensor& tensor, std::string_view beside, const at::Device& device) {
  TORCH_CHECK(tensor.device() == device, name, " is on ", tensor.device(), " but ", beside, " is on ", device,
              "; move both to one device");
}

at::ScalarType compute_type_of(const Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

std::string name_of(at::ScalarType type) { return "torch." + std::string(c10::getDtypeNames(type).first); }

bool is_scalar(const Tensor& tensor, int64_t event_ndim) { return tensor.dim() == 0 && event_ndim > 0; }

bool is_event_expanded(const Tensor& tensor, int64_t event_ndim) {
  if (is_scalar(tensor, event_ndim) || tensor.numel() == 0) return false;
  bool several = false;
  for (int64_t d = tensor.dim() - event_ndim; d < tensor.dim(); ++d) {
    if (tensor.size(d) == 1) continue;
    if (tensor.stride(d) != 0) return false;
    several = true;
  }
  return several;
}

std::vector<Tensor> with_dense_events(at::TensorList tensors, int64_t event_ndim) {
  std::vector<Tensor> result(tensors.begin(), tensors.end());
  for (Tensor& tensor : result)
    if (tensor.defined() && !is_event_dense(tensor, event_ndim) && !is_event_expanded(tensor, event_ndim))
      tensor = copy_with_dense_event(tensor, event_ndim);
  return result;
}

Layout::Layout(int64_t event_ndim, std::initializer_list<Argument> arguments) {
  const Argument& first = *arguments.begin();
  first_ = first.name;
  TORCH_CHECK_VALUE(event_ndim >= 0, "event_ndim is ", event_ndim, "; expected 0 or more");
  TORCH_CHECK_VALUE(first.tensor.dim() >= event_ndim, first.name, " has shape ", first.tensor.sizes(),
                    ", fewer dims than event_ndim = ", event_ndim);
  const at::IntArrayRef event = first.tensor.sizes().slice(first.tensor.dim() - event_ndim);
  event_.assign(event.begin(), event.end());
  compute_type_ = compute_type_of(first.tensor);
  options_ = first.tensor.options();
  for (const Argument& argument : arguments) {
    const Tensor& tensor = argument.tensor;
    if (!tensor.defined()) continue;
    check_device(argument.name, tensor, first.name, first.tensor.device());
    check_dtype(argument, first);
    if (argument.role == Role::parameter && is_scalar(tensor, event_ndim)) continue;
    const int64_t batch_ndim = tensor.dim() - event_ndim;
    TORCH_CHECK_VALUE(batch_ndim >= 0 && tensor.sizes().slice(std::max<int64_t>(batch_ndim, 0)) == event, argument.name,
                      " has shape ", tensor.sizes(), "; expected it to end in the event ", event, " of ", first.name);
    const at::IntArrayRef batch = tensor.sizes().slice(0, batch_ndim);
    const bool broadcasts = at::are_expandable(batch, batch_);
    TORCH_CHECK_VALUE(broadcasts, argument.name, " has batch dims ", batch, ", which do not broadcast with ",
                      at::IntArrayRef(batch_), " of the arguments before it");
    batch_ = at::infer_size_dimvector(batch, batch_);
  }
}

at::DimVector Layout::shape(std::optional<int64_t> leading, bool with_event) const {
  at::DimVector shape;
  if (leading) shape.push_back(*leading);
  shape.append(batch_.begin(), batch_.end());
  if (with_event) shape.append(event_.begin(), event_.end());
  return shape;
}

}  // namespace vae_ext

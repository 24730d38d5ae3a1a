// The shapes of an operator's arguments: which dims are the event, how the batch dims broadcast, what is wrong.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../rows.h"

namespace vae_ext {

using at::Tensor;

// Raises ValueError for anything but log_var, log_std, std and var.
ScaleKind parse_kind(std::string_view kind);

// What a tensor may look like beside the first argument of an operator, which gives the event and the dtype.
enum class Role {
  parameter,  // [*batch, *E] or [*E] or 0-d, of the first argument's dtype
  data,       // [*batch, *E], of any dtype
};

struct Argument {
  std::string name;
  Tensor tensor;  // undefined: left out
  Role role = Role::parameter;
};

// Checks the arguments, naming the one at fault, and broadcasts their batch dims.
class Layout {
 public:
  Layout(int64_t event_ndim, std::initializer_list<Argument> arguments);

  at::IntArrayRef batch() const { return batch_; }
  at::IntArrayRef event() const { return event_; }
  int64_t event_ndim() const { return static_cast<int64_t>(event_.size()); }
  int64_t event_size() const { return c10::multiply_integers(event_); }
  // [leading, *batch, *event]
  at::DimVector shape(std::optional<int64_t> leading, bool with_event) const;

  // What the kernels compute in and sums come out in.
  at::ScalarType compute_type() const { return compute_type_; }
  const at::TensorOptions& options() const { return options_; }
  // The argument that gave the event and the dtype.
  const std::string& first() const { return first_; }

 private:
  std::string first_;
  at::DimVector batch_, event_;
  at::ScalarType compute_type_;
  at::TensorOptions options_;
};

// Is the tensor on the device of the argument named `beside`?
void check_device(std::string_view name, const Tensor& tensor, std::string_view beside, const at::Device& device);

// float64 for float64, else float32.
at::ScalarType compute_type_of(const Tensor& tensor);

// The type as Python spells it: torch.int64.
std::string name_of(at::ScalarType type);

// Are the last `event_ndim` dims of the tensor one value for the whole event?
bool is_scalar(const Tensor& tensor, int64_t event_ndim);

// Is it expanded over its whole event? An empty tensor is not: it has no value to stand for one.
bool is_event_expanded(const Tensor& tensor, int64_t event_ndim);

// The tensors themselves where their events are dense in memory, or one value, else copies: once, before any kernel.
// What is expanded over batch dims is so in the copy.
std::vector<Tensor> with_dense_events(at::TensorList tensors, int64_t event_ndim);

}  // namespace vae_ext

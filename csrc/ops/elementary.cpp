// csrc/math/elementary.h as an operator on float32 tensors, for the tests: the vectors of this process's instruction
// set, or the scalar, which is what a CUDA thread runs.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../cpu/dispatch.h"
#include "layout.h"

namespace vae_ext {
namespace {

cpu::Elementary parse(std::string_view name) {
  using cpu::Elementary;
  if (name == "exp") return Elementary::exp;
  if (name == "expm1") return Elementary::expm1;
  if (name == "expm1_minus_x") return Elementary::expm1_minus_x;
  if (name == "log") return Elementary::log;
  if (name == "log1p") return Elementary::log1p;
  if (name == "sigmoid") return Elementary::sigmoid;
  if (name == "sinpi") return Elementary::sinpi;
  if (name == "cospi") return Elementary::cospi;
  TORCH_CHECK_VALUE(false, "name is '", name, "'; expected one of the functions of csrc/math/elementary.h");
}

Tensor elementary(const Tensor& x, std::string_view name, bool scalar) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat, "x is ", name_of(x.scalar_type()), "; expected torch.float32");
  const Tensor in = x.contiguous(), out = at::empty_like(in);
  cpu::kernels().elementary(parse(name), scalar, in.const_data_ptr<float>(), out.mutable_data_ptr<float>(), in.numel());
  return out;
}

TORCH_LIBRARY_FRAGMENT(vae_ext, m) {
  m.def("_elementary(Tensor x, str name, bool scalar) -> Tensor");
  m.impl("_elementary", c10::DispatchKey::CPU, TORCH_FN(elementary));
}

}  // namespace
}  // namespace vae_ext

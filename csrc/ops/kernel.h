// A kernel of each device, and the operators that run them.
#pragma once

#include <torch/library.h>

#include <string>

#include "../cpu/kernels.h"
#include "../cuda/kernels.h"

namespace vae_ext {

#if defined(VAE_EXT_CUDA)
constexpr bool kBuiltWithCuda = true;
#else
constexpr bool kBuiltWithCuda = false;
#endif

// Are the CUDA kernels emulated, and given CPU tensors, so that what is here can be tested without a device?
#if defined(VAE_EXT_EMULATION)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// Do the CPU kernels run on tensors that are there?
inline bool runs_on_cpu(const at::Device& device) { return device.is_cpu() && !kEmulated; }

// The CUDA kernel, or null in a build without CUDA, which must not refer to it.
template <cuda::Kernel* kernel>
constexpr cuda::Kernel* kOnCuda = kBuiltWithCuda ? kernel : nullptr;

struct Kernel {
  cpu::Kernel cpu::Kernels::* on_cpu;
  cuda::Kernel* on_cuda;
};

template <cpu::Kernel cpu::Kernels::* on_cpu, cuda::Kernel* on_cuda>
constexpr Kernel kOnEachDevice{on_cpu, kOnCuda<on_cuda>};

// What an operator does with CUDA tensors in a build without CUDA.
void refuse_cuda(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack);

// Registers one function for tensors of either device.
template <class Function>
void implement(torch::Library& library, const char* name, Function function) {
  library.impl(name, c10::DispatchKey::CPU, function);
  if constexpr (kBuiltWithCuda) {
    library.impl(name, c10::DispatchKey::CUDA, function);
  } else {
    library.impl(name, c10::DispatchKey::CUDA, torch::CppFunction::makeFromBoxedFunction<&refuse_cuda>());
  }
}

// Registers an operator, what autograd does with it, and its backward operator, name_backward.
template <class Forward, class Backward, class Autograd>
void register_operator(torch::Library& library, const std::string& name, Forward forward, Backward backward,
                       Autograd autograd) {
  implement(library, name.c_str(), forward);
  library.impl(name.c_str(), c10::DispatchKey::Autograd, autograd);
  const std::string backward_name = name + "_backward";
  implement(library, backward_name.c_str(), backward);
  // The node differentiates twice by closed forms and calls this one only where nothing is recorded.
  library.impl(backward_name.c_str(), c10::DispatchKey::Autograd, torch::CppFunction::makeFallthrough());
}

}  // namespace vae_ext

// What kernels use of the device. nvcc gives them the real one; where VAE_EXT_EMULATION is defined, any C++ compiler
// gives them one made of fibers on the CPU (tests/emulation), so that the same sources run without a GPU.
//
// Kernels are written in CUDA's own spelling (__global__, threadIdx, __syncthreads(), __shfl_xor_sync(), ...), except
// for what a plain C++ compiler cannot be given: shared arrays, launches and the names of the CUDA runtime.
#pragma once

struct CUstream_st;

#if defined(VAE_EXT_EMULATION)

#include "emulation/device.h"

#else

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

// An array of the block, uninitialised: VAE_EXT_SHARED(float, sums, 32);
#define VAE_EXT_SHARED(T, name, count) __shared__ alignas(16) T name[count]

namespace vae_ext::cuda {

// launch(kernel<float>, blocks, threads, stream, arguments...); throws where the launch is refused.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, CUstream_st* stream, const Arguments&... arguments) {
  kernel<<<grid, block, 0, stream>>>(arguments...);
  const cudaError_t error = cudaGetLastError();
  if (error == cudaErrorNoKernelImageForDevice)
    throw std::runtime_error(
        "this build of vae_ext has no CUDA kernels for the architecture of this device; "
        "rebuild it with TORCH_CUDA_ARCH_LIST naming the device's compute capability");
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

}  // namespace vae_ext::cuda

#endif

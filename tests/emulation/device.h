// The face of a CUDA device that kernels see under emulation: its keywords, its indices, its barriers and shuffles.
// csrc/cuda/device.h includes it in place of nvcc's. What is behind it is in grid.h.
#pragma once

#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "grid.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

using dim3 = vae_ext::emulation::Dim3;

constexpr int warpSize = vae_ext::emulation::kWarp;

// Those of the thread that runs; the emulation changes them whenever it turns to another.
#define threadIdx (::vae_ext::emulation::thread_index)
#define blockIdx (::vae_ext::emulation::block_index)
#define blockDim (::vae_ext::emulation::block_size)
#define gridDim (::vae_ext::emulation::grid_size)

// A static's address tells one array from another, also between instantiations of one template.
#define VAE_EXT_SHARED(T, name, count)      \
  static const char name##_declaration = 0; \
  T* const name = static_cast<T*>(::vae_ext::emulation::shared_array(&name##_declaration, sizeof(T) * (count)))

inline void __syncthreads() { vae_ext::emulation::sync_block(); }
inline void __syncwarp(uint32_t mask = 0xFFFFFFFFu) { vae_ext::emulation::sync_warp(mask); }

namespace vae_ext::emulation {

template <class T>
T shuffle(Shuffle kind, uint32_t mask, T value, int operand, int width) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= sizeof(uint64_t), "shuffles exchange numbers");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = shuffle_bits(kind, mask, bits, operand, width);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace vae_ext::emulation

template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = warpSize) {
  return vae_ext::emulation::shuffle(vae_ext::emulation::Shuffle::down, mask, value, static_cast<int>(delta), width);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = warpSize) {
  return vae_ext::emulation::shuffle(vae_ext::emulation::Shuffle::exclusive_or, mask, value, lanes, width);
}

namespace vae_ext::cuda {

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, CUstream_st*, const Arguments&... arguments) {
  emulation::run_grid(grid, block, [&] { kernel(arguments...); });
}

}  // namespace vae_ext::cuda

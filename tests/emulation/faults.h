// Kernels with a fault that can be switched on: they test the emulation, which must find each fault and have nothing to
// say about the same kernel without it.
#pragma once

#include "cuda/device.h"

namespace vae_ext::emulation {

constexpr uint32_t kAllLanes = 0xFFFFFFFFu;

struct alignas(16) Four {
  float value[4];
};

// Each thread reads what its neighbour wrote.
template <bool kFault>
__global__ void read_after_write(const float* in, float* out) {
  VAE_EXT_SHARED(float, values, 64);
  const unsigned t = threadIdx.x;
  values[t] = in[t];
  if (!kFault) __syncthreads();
  out[t] = values[(t + 1) % blockDim.x];
}

// Each thread writes where its neighbour has just read. One after the other, as threads run here, they come to the
// right values even so.
template <bool kFault>
__global__ void write_after_read(const float* in, float* out) {
  VAE_EXT_SHARED(float, values, 64);
  const unsigned t = threadIdx.x;
  values[t] = in[t];
  __syncthreads();
  const float neighbour = values[t + 1 < blockDim.x ? t + 1 : t];
  if (!kFault) __syncthreads();
  values[t] = neighbour;
  out[t] = values[t];
}

// A shuffle puts no memory in order.
template <bool kFault>
__global__ void shuffle_as_fence(const float* in, float* out) {
  VAE_EXT_SHARED(float, values, 64);
  const unsigned t = threadIdx.x;
  values[t] = in[t];
  float sum = in[t];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  if (!kFault) __syncwarp();
  out[t] = values[t ^ 1u] + sum;
}

// Two parts of a warp, each with barriers of its own.
template <bool kFault>
__global__ void wrong_part_of_warp(const float* in, float* out) {
  VAE_EXT_SHARED(float, values, 64);
  const unsigned t = threadIdx.x;
  const bool upper = t % 32 >= 16;
  values[t] = in[t];
  __syncwarp(upper ? 0xFFFF0000u : 0x0000FFFFu);
  out[t] = values[t ^ (kFault ? 16u : 8u)];
}

template <bool kFault>
__global__ void global_out_of_range(const float* in, float* out) {
  const unsigned t = threadIdx.x;
  out[t] = in[kFault ? t + 1 : t];
}

template <bool kFault>
__global__ void shared_out_of_range(const float* in, float* out) {
  VAE_EXT_SHARED(float, first, 64);
  VAE_EXT_SHARED(float, second, 64);
  const unsigned t = threadIdx.x;
  first[t] = second[t] = in[t];
  if (kFault && t == 0) first[blockDim.x] = 0.0f;
  out[t] = first[t] + second[t];
}

template <bool kFault>
__global__ void misaligned(const float* in, float* out) {
  if (threadIdx.x != 0) return;
  const Four* const fours = reinterpret_cast<const Four*>(kFault ? in + 1 : in);
  for (int i = 0; i < 15; ++i) *reinterpret_cast<Four*>(out + 4 * i) = fours[i];
}

template <bool kFault>
__global__ void unwritten_output(const float* in, float* out) {
  if (kFault && threadIdx.x == 63) return;
  out[threadIdx.x] = in[threadIdx.x];
}

template <bool kFault>
__global__ void uninitialised_shared(const float* in, float* out) {
  VAE_EXT_SHARED(float, sum, 1);
  if (!kFault && threadIdx.x == 0) sum[0] = 0.0f;
  __syncthreads();
  out[threadIdx.x] = in[threadIdx.x] + sum[0];
}

template <bool kFault>
__global__ void return_before_barrier(const float* in, float* out) {
  if (kFault && threadIdx.x == 40) return;
  __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}

template <bool kFault>
__global__ void return_before_shuffle(const float* in, float* out) {
  if (threadIdx.x >= (kFault ? 40 : 32)) return;
  out[threadIdx.x] = __shfl_down_sync(kAllLanes, in[threadIdx.x], 1);
}

template <bool kFault>
__global__ void lane_outside_mask(const float* in, float* out) {
  if (threadIdx.x >= 16) return;
  out[threadIdx.x] = __shfl_xor_sync(0xFFFFu, in[threadIdx.x], kFault ? 16 : 8);
}

template <bool kFault>
__global__ void different_masks(const float* in, float* out) {
  const unsigned t = threadIdx.x;
  out[t] = __shfl_xor_sync(kFault && t % 2 ? 0xFFFF0000u | 1u << t % 32 : kAllLanes, in[t], 0);
}

template <bool kFault>
__global__ void barrier_on_one_side(const float* in, float* out) {
  float value = in[threadIdx.x];
  if (!kFault || threadIdx.x % 2) __syncthreads();
  if (kFault) value = __shfl_xor_sync(kAllLanes, value, 1);
  out[threadIdx.x] = value;
}

template <bool kFault>
__global__ void two_blocks_write_one_address(const float* in, float* out) {
  const unsigned t = threadIdx.x;
  out[blockDim.x * (kFault ? 0 : blockIdx.x) + t] = in[t];
}

// What one block wrote, the next may not read.
template <bool kFault>
__global__ void block_reads_of_another(const float* in, float* out) {
  const unsigned t = threadIdx.x, i = blockDim.x * blockIdx.x + t;
  out[i] = kFault && blockIdx.x > 0 ? out[i - blockDim.x] : in[t];
}

template <bool kFault>
__global__ void too_much_shared(const float* in, float* out) {
  constexpr int kCount = kFault ? 12 * 1024 + 1 : 12 * 1024;
  VAE_EXT_SHARED(float, values, kCount);
  const unsigned t = threadIdx.x;
  values[kCount - 1 - t] = in[t];
  out[t] = values[kCount - 1 - t];
}

}  // namespace vae_ext::emulation

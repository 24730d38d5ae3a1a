// Epsilon, four elements at a time: one counter of the generator.
#pragma once

#include "../math/philox.h"
#include "group.cuh"

namespace vae_ext::cuda {

__device__ __forceinline__ NoiseKey read_key(const Noise& noise) {
  if (!noise.state) return {};
  return noise_key(static_cast<uint64_t>(noise.state[0]), static_cast<uint64_t>(noise.state[noise.state_stride]),
                   noise.stream);
}

class NoiseGroups {
 public:
  __device__ __forceinline__ NoiseGroups(const Noise& noise, int64_t event)
      : key_(read_key(noise)),
        first_row_(noise.first_row),
        groups_(static_cast<uint32_t>((event + kGroup - 1) / kGroup)) {}

  // Of elements [j, j + kGroup) of a row and sample.
  __device__ __forceinline__ void draw(uint32_t row, uint32_t sample, int64_t j, float* epsilon) const {
    normals_of(key_, sample * groups_ + static_cast<uint32_t>(j / kGroup), first_row_ + row, epsilon);
  }

 private:
  const NoiseKey key_;
  const uint32_t first_row_, groups_;
};

}  // namespace vae_ext::cuda

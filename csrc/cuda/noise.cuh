// Epsilon, four elements at a time: one counter of the generator.
#pragma once

#include "../math/standard.h"
#include "../noise_key.h"
#include "group.cuh"

namespace vae_ext::cuda {

// What with_standard calls here: code for host and device can call no lambda of the device.
struct DrawVariates {
  const PhiloxWords<uint32_t>& words;
  float* epsilon;

  template <class Constant>
  VAE_EXT_INLINE void operator()(Constant) const {
    variates_of<Constant::kValue>(words, epsilon);
  }
};

class NoiseGroups {
 public:
  __device__ __forceinline__ NoiseGroups(const Noise& noise, int64_t event)
      : key_(read_key(noise)),
        first_row_(noise.first_row),
        groups_(static_cast<uint32_t>(divide_up(event, kGroup))),
        standard_(noise.standard) {}

  // Normals for elements [j, j + kGroup) of a row and sample.
  __device__ __forceinline__ void draw(uint32_t row, uint32_t sample, int64_t j, float* epsilon) const {
    normals_of(words(row, sample, j), epsilon);
  }

  // The same of the standard distribution that the problem says.
  __device__ __forceinline__ void draw_standard(uint32_t row, uint32_t sample, int64_t j, float* epsilon) const {
    const PhiloxWords<uint32_t> w = words(row, sample, j);
    with_standard(standard_, DrawVariates{w, epsilon});
  }

 private:
  __device__ __forceinline__ PhiloxWords<uint32_t> words(uint32_t row, uint32_t sample, int64_t j) const {
    return words_of(key_, sample * groups_ + static_cast<uint32_t>(j / kGroup), first_row_ + row);
  }

  const NoiseKey key_;
  const uint32_t first_row_, groups_;
  const StandardKind standard_;
};

}  // namespace vae_ext::cuda

// The state of the noise, [seed, offset], and where in its sequence a launch begins.
#pragma once

#include <ATen/core/Tensor.h>

namespace vae_ext {

struct NoiseDraw {
  at::Tensor rng_state;
  int64_t first_row = 0, stream = 0;
};

// Checks the state and that every counter of `rows` rows, `samples` samples and `event_size` elements fits 32 bits.
void check_noise(const NoiseDraw& draw, const at::Device& device, int64_t rows, int64_t samples, int64_t event_size);

}  // namespace vae_ext

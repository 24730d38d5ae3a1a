// From a problem's noise to the key that all its epsilon are drawn under.
#pragma once

#include "math/philox.h"
#include "rows.h"

namespace vae_ext {

// Where the kernels run; without a state, of a problem without noise, any key will do.
VAE_EXT_INLINE NoiseKey read_key(const Noise& noise) {
  if (!noise.state) return {};
  return noise_key(static_cast<uint64_t>(noise.state[0]), static_cast<uint64_t>(noise.state[noise.state_stride]),
                   noise.stream);
}

}  // namespace vae_ext

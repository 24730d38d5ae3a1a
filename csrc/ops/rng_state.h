// The state of the noise, [seed, offset], where in its sequence a launch begins, and what is made of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "../math/standard_kind.h"

namespace vae_ext {

struct NoiseDraw {
  at::Tensor rng_state;
  int64_t first_row = 0, stream = 0;
  StandardKind standard = StandardKind::normal;
};

StandardKind parse_standard(std::string_view standard);
std::string_view name_of(StandardKind standard);

// Checks the state, which is to be where the argument named `beside` is, and that every counter of `rows` rows,
// `samples` samples and `event_size` elements fits 32 bits.
void check_noise(const NoiseDraw& draw, std::string_view beside, const at::Device& device, int64_t rows,
                 int64_t samples, int64_t event_size);

}  // namespace vae_ext

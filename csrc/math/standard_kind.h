// Which standard distribution epsilon has: see standard.h.
#pragma once

namespace vae_ext {

enum class StandardKind { normal, laplace, logistic, uniform, triangular, gumbel, cauchy, exponential };

}  // namespace vae_ext

// Which of the four ways to say how wide a Gaussian is: see scale.h.
#pragma once

namespace vae_ext {

enum class ScaleKind { log_var, log_std, std, var };

}  // namespace vae_ext

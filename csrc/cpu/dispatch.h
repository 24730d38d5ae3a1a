// The set of kernels this process runs: the best one compiled that torch itself would use here, so that
// ATEN_CPU_CAPABILITY=default|avx2|avx512 forces one.
#pragma once

#include "kernels.h"

namespace vae_ext::cpu {

const Kernels& kernels();

inline const char* capability() { return kernels().name; }

}  // namespace vae_ext::cpu

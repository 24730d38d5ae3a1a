#include <ATen/Version.h>

#include <string>

#include "../cpu/dispatch.h"

namespace vae_ext::cpu {
namespace {

Kernels choose() {
#if defined(VAE_EXT_X86)
  const std::string capability = at::get_cpu_capability();
  if (capability.rfind("AVX512", 0) == 0) return kernels_for<Avx512>("AVX512");
  if (capability == "AVX2") return kernels_for<Avx2>("AVX2");
#endif
  return kernels_for<Baseline>("DEFAULT");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels chosen = choose();
  return chosen;
}

}  // namespace vae_ext::cpu

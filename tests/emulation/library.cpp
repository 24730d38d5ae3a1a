// What tests/emulation/device.py calls.
#include <string>

#include "kernel_table.h"

#define VAE_EXT_EXPORT extern "C" __attribute__((visibility("default")))

VAE_EXT_EXPORT int64_t span() { return vae_ext::cuda::kSpan; }
VAE_EXT_EXPORT int64_t replica_chunk() { return vae_ext::cuda::kReplicaChunk; }
VAE_EXT_EXPORT int64_t problem_size() { return sizeof(vae_ext::Problem); }

// With so many blocks at most, where the kernel goes round its work. Null, or what was wrong, good until the next call.
VAE_EXT_EXPORT const char* launch(const char* name, const vae_ext::Problem* problem, unsigned blocks) {
  static std::string error;
  try {
    vae_ext::emulation::run_kernel(name, *problem, blocks);
    return nullptr;
  } catch (const vae_ext::emulation::Error& what) {
    error = std::string(name) + ": " + what.what();
    return error.c_str();
  }
}

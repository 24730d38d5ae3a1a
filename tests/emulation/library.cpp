// What tests/emulation/device.py calls.
#include <stddef.h>

#include <iterator>
#include <string>

#include "kernel_table.h"

#define VAE_EXT_EXPORT extern "C" __attribute__((visibility("default")))

VAE_EXT_EXPORT int64_t span() { return vae_ext::cuda::kSpan; }
VAE_EXT_EXPORT int64_t replica_chunk() { return vae_ext::cuda::kReplicaChunk; }

// Of each struct of csrc/rows.h, its size and where its fields are, for device.py to compare with its own; their
// number.
VAE_EXT_EXPORT int64_t problem_layout(const int64_t** numbers) {
  using namespace vae_ext;
  static constexpr int64_t kLayout[] = {
      sizeof(Operand),
      offsetof(Operand, data),
      offsetof(Operand, dtype),
      offsetof(Operand, scalar),
      offsetof(Operand, wanted),
      offsetof(Operand, stride),
      sizeof(Rows),
      offsetof(Rows, dims),
      offsetof(Rows, reduced_dims),
      offsetof(Rows, size),
      offsetof(Rows, event),
      sizeof(Noise),
      offsetof(Noise, state),
      offsetof(Noise, state_stride),
      offsetof(Noise, stream),
      offsetof(Noise, first_row),
      offsetof(Noise, standard),
      offsetof(Noise, row_stride),
      offsetof(Noise, sample_stride),
      sizeof(Problem),
      offsetof(Problem, rows),
      offsetof(Problem, in),
      offsetof(Problem, row_value),
      offsetof(Problem, out),
      offsetof(Problem, noise),
      offsetof(Problem, kind),
      offsetof(Problem, prior_scale),
      offsetof(Problem, past_cache),
      offsetof(Problem, wide),
      offsetof(Problem, factor),
      offsetof(Problem, constant),
  };
  *numbers = kLayout;
  return std::size(kLayout);
}

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

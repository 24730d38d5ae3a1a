// The shared arrays of a block: a NaN in every element at first, and memory that nobody may touch between them.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "grid.h"

namespace vae_ext::emulation {

class SharedMemory {
 public:
  // Of the block that begins now: no arrays yet.
  void clear();
  // The array of this declaration; nullptr where shared memory does not suffice.
  void* array(const void* declaration, size_t bytes);

 private:
  struct Array {
    const void* declaration;
    char* data;
  };
  static constexpr int kMaxArrays = 32;
  // Arrays start at odd multiples of the 16 bytes that VAE_EXT_SHARED promises, 64 bytes and more apart.
  static constexpr size_t kAlignment = 128, kShift = 16, kRedZone = 64;

  alignas(kAlignment) char memory_[kMaxShared + kMaxArrays * (kRedZone + 2 * kAlignment)];
  Array arrays_[kMaxArrays];
  int count_ = 0;
  size_t used_ = 0, total_ = 0;
};

}  // namespace vae_ext::emulation

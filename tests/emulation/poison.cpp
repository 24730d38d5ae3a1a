#include "poison.h"

namespace vae_ext::emulation {

// Volatile, lest it become a call of memset, which the sanitizers see.
void fill(void* memory, size_t bytes, uint16_t word) {
  volatile char* const to = static_cast<volatile char*>(memory);
  for (size_t i = 0; i < bytes; ++i) to[i] = static_cast<char>(word >> 8 * (i % 2));
}

}  // namespace vae_ext::emulation

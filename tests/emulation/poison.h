// What memory holds before a kernel writes there. Each is NaN as float, double, bfloat16 and binary16.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace vae_ext::emulation {

constexpr uint16_t kUnwrittenOutput = 0x7FFF, kUninitialisedShared = 0xFFE5;

// Unseen by the sanitizers. (ThreadSanitizer remembers four accesses to each eight bytes: were these among them, it
// would forget those of kernels.)
void fill(void* memory, size_t bytes, uint16_t word);

}  // namespace vae_ext::emulation

// Runs the blocks of a grid one after the other, and the threads of a block as fibers of one thread of the CPU: a fiber
// runs until it has to wait for others at a barrier or a shuffle. Whatever a kernel does that CUDA leaves undefined is
// an Error, where it can be seen here; the sanitizers see the rest (tests/emulation/README.md).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <stdexcept>

namespace vae_ext::emulation {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;
// Of static shared memory, on every device.
constexpr size_t kMaxShared = 48 * 1024;

struct Dim3 {
  unsigned x, y, z;
  constexpr Dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern Dim3 thread_index, block_index, block_size, grid_size;

// The blocks of a launch are these at most: a kernel that goes round its work gives the same results for any number.
constexpr unsigned kAnyNumberOfBlocks = ~0u;
extern unsigned max_blocks;

// A kernel did something undefined.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void run_grid(Dim3 grid, Dim3 block, const std::function<void()>& kernel);

// Called by the running thread of a block.
void sync_block();
void sync_warp(uint32_t mask);
enum class Shuffle { down, exclusive_or };
uint64_t shuffle_bits(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width);
void* shared_array(const void* declaration, size_t bytes);

}  // namespace vae_ext::emulation

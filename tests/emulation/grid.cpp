#include "grid.h"

#include <algorithm>
#include <memory>
#include <string>

#include "block.h"
#include "sanitizer.h"

namespace vae_ext::emulation {

Dim3 thread_index, block_index, block_size, grid_size;
unsigned max_blocks = kAnyNumberOfBlocks;

namespace {

// Kept from one launch to the next, with their fibers.
std::unique_ptr<Block> blocks[sanitizer::kConcurrentBlocks];
Block* running = nullptr;

void check_sizes() {
  const size_t threads = size_t{block_size.x} * block_size.y * block_size.z;
  if (threads == 0 || threads > kMaxThreads)
    throw Error("a block has " + std::to_string(threads) + " threads; expected 1 to " + std::to_string(kMaxThreads));
  const bool fits = grid_size.x < 1u << 31 && grid_size.y < 1u << 16 && grid_size.z < 1u << 16;
  if (grid_size.x == 0 || grid_size.y == 0 || grid_size.z == 0 || !fits)
    throw Error("the grid is " + std::to_string(grid_size.x) + " x " + std::to_string(grid_size.y) + " x " +
                std::to_string(grid_size.z) + " blocks; expected 1 or more, and less than 2^31 x 2^16 x 2^16");
}

void run_blocks(const std::function<void()>& kernel) {
  int64_t count = 0;
  for (unsigned z = 0; z < grid_size.z; ++z)
    for (unsigned y = 0; y < grid_size.y; ++y)
      for (unsigned x = 0; x < grid_size.x; ++x) {
        std::unique_ptr<Block>& block = blocks[count++ % sanitizer::kConcurrentBlocks];
        if (!block) block = std::make_unique<Block>();
        running = block.get();
        running->run(Dim3(x, y, z), kernel);
      }
}

}  // namespace

void run_grid(Dim3 grid, Dim3 block, const std::function<void()>& kernel) {
  grid_size = grid;
  block_size = block;
  check_sizes();
  grid_size.x = std::min(grid_size.x, max_blocks);
  try {
    run_blocks(kernel);
  } catch (const Error&) {
    // Their threads are stuck where they were.
    for (std::unique_ptr<Block>& stuck : blocks) stuck.reset();
    throw;
  }
  for (std::unique_ptr<Block>& done : blocks)
    if (done) done->join();
}

void sync_block() { running->sync_block(); }
void sync_warp(uint32_t mask) { running->sync_warp(mask); }
uint64_t shuffle_bits(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width) {
  return running->shuffle(kind, mask, value, operand, width);
}
void* shared_array(const void* declaration, size_t bytes) { return running->shared_array(declaration, bytes); }

}  // namespace vae_ext::emulation

// The threads of one block at a time: who runs, who waits for whom, and the memory they share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "grid.h"
#include "shared_memory.h"

namespace vae_ext::emulation {

class Block {
 public:
  // All threads of one block from beginning to end.
  void run(Dim3 index, const std::function<void()>& kernel);

  // Called by the running thread.
  void sync_block();
  void sync_warp(uint32_t mask);
  uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width);
  void* shared_array(const void* declaration, size_t bytes);

  // Ordered after everything that the blocks run so far did, and before everything that later ones do.
  void join();

 private:
  enum class State { ready, at_block_barrier, in_warp, returned };
  // What the lanes of a warp do together.
  struct Meeting {
    const char* name = "";
    uint32_t mask = 0;
    bool operator==(const Meeting&) const = default;
  };
  struct Thread {
    std::unique_ptr<Fiber> fiber;
    Dim3 index;
    State state = State::ready;
    Meeting meeting;
    // What this lane brings to a shuffle, whose value it asks for, and what it gets.
    uint64_t value = 0, result = 0;
    int source = 0;
  };
  // Two tokens take turns, or the next release of a fast thread would put what it did since in order for a slow one.
  struct Barrier {
    char tokens[2] = {};
    int turn = 0;
    char* token() { return &tokens[turn]; }
  };

  void start_threads(size_t count);
  bool run_ready_threads();
  void run_thread();
  void check_returning();
  bool meet(const char* name, uint32_t mask);
  void check_meeting(const Meeting& meeting);
  bool is_complete(uint32_t mask) const;
  void suspend();
  [[noreturn]] void fail(const std::string& what);
  std::string waiting() const;

  int lane() const { return current_ % kWarp; }
  int warp_begin() const { return current_ - lane(); }
  char* end_token() { return &end_tokens_[blocks_begun_ % 2]; }
  Barrier& warp_barrier(uint32_t mask) { return warp_barriers_[warp_begin() + __builtin_ctz(mask)]; }

  const std::function<void()>* kernel_ = nullptr;
  std::vector<Thread> threads_;
  int count_ = 0, current_ = 0, at_barrier_ = 0, returned_ = 0;
  Barrier block_barrier_;
  // One for the lowest lane of each mask: parts of a warp that have nothing to do with each other stay unordered.
  Barrier warp_barriers_[kMaxThreads];
  // A block starts after the one that had its threads before, whose token is not the one that its own threads release.
  char start_token_ = 0, end_tokens_[2] = {};
  int64_t blocks_begun_ = 0;
  SharedMemory shared_;
  std::string error_;
};

}  // namespace vae_ext::emulation

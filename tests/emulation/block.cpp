#include "block.h"

#include "sanitizer.h"

namespace vae_ext::emulation {
namespace {

std::string name_of(Dim3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

bool names(uint32_t mask, int lane) { return (mask >> lane & 1u) != 0; }

// The lane whose value a shuffle gives to `lane`: its own where the one asked for lies outside its part of the warp.
int source_lane(Shuffle kind, int lane, int operand, int width) {
  const int last = lane / width * width + width - 1;
  const int source = kind == Shuffle::down ? lane + operand : lane ^ operand;
  return source >= 0 && source <= last ? source : lane;
}

const char* name_of(Shuffle kind) { return kind == Shuffle::down ? "__shfl_down_sync" : "__shfl_xor_sync"; }

}  // namespace

void Block::run(Dim3 index, const std::function<void()>& kernel) {
  block_index = index;
  kernel_ = &kernel;
  start_threads(size_t{block_size.x} * block_size.y * block_size.z);
  while (returned_ < count_) {
    const bool progress = run_ready_threads();
    if (!progress) error_ = "block " + name_of(index) + ": no thread can go on: " + waiting();
    if (error_.empty()) continue;
    join();
    throw Error(error_);
  }
}

// Each until it waits or returns; false where there are none.
bool Block::run_ready_threads() {
  bool progress = false;
  for (current_ = 0; current_ < count_ && error_.empty(); ++current_) {
    Thread& thread = threads_[current_];
    if (thread.state != State::ready) continue;
    progress = true;
    thread_index = thread.index;
    thread.fiber->resume();
  }
  return progress;
}

void Block::start_threads(size_t count) {
  count_ = static_cast<int>(count);
  at_barrier_ = returned_ = 0;
  shared_.clear();
  blocks_begun_ += 1;
  if (threads_.size() < count) threads_.resize(count);
  Dim3 index(0, 0, 0);
  for (int t = 0; t < count_; ++t) {
    Thread& thread = threads_[t];
    if (!thread.fiber) thread.fiber = std::make_unique<Fiber>([this] { run_thread(); });
    thread.state = State::ready;
    thread.index = index;
    if (++index.x == block_size.x) index = Dim3(0, index.y + 1, index.z);
    if (index.y == block_size.y) index = Dim3(0, 0, index.z + 1);
  }
  sanitizer::release(&start_token_);
}

void Block::run_thread() {
  sanitizer::acquire(&start_token_);
  sanitizer::acquire(&end_tokens_[(blocks_begun_ - 1) % 2]);
  (*kernel_)();
  check_returning();
  threads_[current_].state = State::returned;
  ++returned_;
  sanitizer::release(end_token());
}

void Block::join() {
  for (char& token : end_tokens_) sanitizer::acquire(&token);
}

void Block::check_returning() {
  if (at_barrier_ > 0) fail("returns while others wait for it at __syncthreads");
  for (int other = 0; other < kWarp && warp_begin() + other < count_; ++other) {
    const Thread& thread = threads_[warp_begin() + other];
    if (thread.state == State::in_warp && names(thread.meeting.mask, lane()))
      fail("returns while lane " + std::to_string(other) + " waits for it at " + thread.meeting.name);
  }
}

void Block::sync_block() {
  if (returned_ > 0) fail("comes to __syncthreads, but " + std::to_string(returned_) + " threads have returned");
  char* const token = block_barrier_.token();
  sanitizer::release(token);
  if (++at_barrier_ < count_) {
    threads_[current_].state = State::at_block_barrier;
    suspend();
  } else {
    at_barrier_ = 0;
    block_barrier_.turn ^= 1;
    for (int t = 0; t < count_; ++t) threads_[t].state = State::ready;
  }
  sanitizer::acquire(token);
}

void Block::sync_warp(uint32_t mask) {
  if (mask == 0) fail("comes to __syncwarp with an empty mask");
  Barrier& barrier = warp_barrier(mask);
  char* const token = barrier.token();
  sanitizer::release(token);
  if (meet("__syncwarp", mask)) barrier.turn ^= 1;
  sanitizer::acquire(token);
}

uint64_t Block::shuffle(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width) {
  const char* const name = name_of(kind);
  if (width < 1 || width > kWarp || (width & (width - 1)) != 0)
    fail(std::string("gives ") + name + " width " + std::to_string(width) + "; expected a power of two up to 32");
  Thread& self = threads_[current_];
  self.value = value;
  self.source = source_lane(kind, lane(), operand, width);
  if (!names(mask, self.source))
    fail(std::string("asks ") + name + " for lane " + std::to_string(self.source) + ", which its mask leaves out");
  meet(name, mask);
  return self.result;
}

// Waits until all lanes of the mask are here; true for the last one. That one takes every lane's value: the first to go
// on may already bring another to the next shuffle.
bool Block::meet(const char* name, uint32_t mask) {
  Thread& self = threads_[current_];
  self.meeting = {name, mask};
  check_meeting(self.meeting);
  self.state = State::in_warp;
  if (!is_complete(mask)) {
    suspend();
    return false;
  }
  Thread* const warp = &threads_[warp_begin()];
  for (int other = 0; other < kWarp; ++other) {
    if (!names(mask, other)) continue;
    warp[other].result = warp[warp[other].source].value;
    warp[other].state = State::ready;
  }
  return true;
}

void Block::check_meeting(const Meeting& meeting) {
  const std::string comes = std::string("comes to ") + meeting.name;
  if (!names(meeting.mask, lane())) fail(comes + " with a mask that leaves it out");
  for (int other = 0; other < kWarp; ++other) {
    if (!names(meeting.mask, other)) continue;
    const std::string it = ", whose mask names lane " + std::to_string(other) + ": it ";
    if (warp_begin() + other >= count_) fail(comes + it + "does not exist");
    const Thread& thread = threads_[warp_begin() + other];
    if (thread.state == State::returned) fail(comes + it + "has returned");
    if (thread.state == State::in_warp && thread.meeting != meeting)
      fail(comes + it + "waits at " + thread.meeting.name + " with another mask or for something else");
  }
}

bool Block::is_complete(uint32_t mask) const {
  for (int other = 0; other < kWarp; ++other)
    if (names(mask, other) && threads_[warp_begin() + other].state != State::in_warp) return false;
  return true;
}

void* Block::shared_array(const void* declaration, size_t bytes) {
  void* const array = shared_.array(declaration, bytes);
  if (!array) fail("declares more shared memory than a block has, 48 KB in 32 arrays");
  return array;
}

// For good, where the run fails meanwhile: what a thread did so far comes before what the host does then.
void Block::suspend() {
  sanitizer::release(end_token());
  Fiber::suspend();
}

// Ends the run; the thread that failed never goes on.
void Block::fail(const std::string& what) {
  error_ = "block " + name_of(block_index) + ", thread " + name_of(threads_[current_].index) + " " + what;
  for (;;) suspend();
}

std::string Block::waiting() const {
  int at_barrier = 0;
  std::string lanes;
  for (int t = 0; t < count_; ++t) {
    if (threads_[t].state == State::at_block_barrier) ++at_barrier;
    if (threads_[t].state == State::in_warp && lanes.empty())
      lanes = ", thread " + std::to_string(t) + " and perhaps others at " + threads_[t].meeting.name;
  }
  return std::to_string(at_barrier) + " wait at __syncthreads" + lanes;
}

}  // namespace vae_ext::emulation

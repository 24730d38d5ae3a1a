#include "fiber.h"

#include <sys/mman.h>

#include <new>
#include <utility>

#include "sanitizer.h"

namespace vae_ext::emulation {
namespace {

// Enough for the frames of a kernel under AddressSanitizer; memory is taken when touched.
constexpr size_t kStack = 256 * 1024, kGuard = 4096;

Fiber* running = nullptr;

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)), tsan_fiber_(sanitizer::create_fiber()) {
  void* memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<char*>(memory);
  mprotect(memory_, kGuard, PROT_NONE);
  getcontext(&context_);
  context_.uc_stack.ss_sp = memory_ + kGuard;
  context_.uc_stack.ss_size = kStack;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::enter, 0);
}

Fiber::~Fiber() {
  sanitizer::destroy_fiber(tsan_fiber_);
  // A body that never came to its end leaves frames behind.
  sanitizer::allow(memory_ + kGuard, kStack);
  munmap(memory_, kGuard + kStack);
}

void Fiber::resume() {
  running = this;
  resumer_tsan_fiber_ = sanitizer::current_fiber();
  sanitizer::start_switch(&resumer_fake_stack_, memory_ + kGuard, kStack);
  sanitizer::switch_to(tsan_fiber_);
  swapcontext(&resumer_, &context_);
  sanitizer::finish_switch(resumer_fake_stack_, nullptr, nullptr);
}

void Fiber::suspend() {
  Fiber& self = *running;
  sanitizer::start_switch(&self.fake_stack_, self.resumer_bottom_, self.resumer_size_);
  sanitizer::switch_to(self.resumer_tsan_fiber_);
  swapcontext(&self.context_, &self.resumer_);
  sanitizer::finish_switch(self.fake_stack_, &self.resumer_bottom_, &self.resumer_size_);
}

void Fiber::enter() {
  sanitizer::finish_switch(nullptr, &running->resumer_bottom_, &running->resumer_size_);
  for (;;) {
    running->body_();
    suspend();
  }
}

}  // namespace vae_ext::emulation

// A function with a stack of its own, which can stop in the middle and go on later, on one thread of the CPU.
#pragma once

#include <stddef.h>
#include <ucontext.h>

#include <functional>

namespace vae_ext::emulation {

class Fiber {
 public:
  explicit Fiber(std::function<void()> body);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs the body until it suspends or returns; after it has returned, from its beginning again.
  void resume();
  // Called within a body: back to whoever resumed it.
  static void suspend();

 private:
  static void enter();

  std::function<void()> body_;
  char* memory_;
  ucontext_t context_, resumer_;
  void* tsan_fiber_;
  void* resumer_tsan_fiber_ = nullptr;
  void *fake_stack_ = nullptr, *resumer_fake_stack_ = nullptr;
  const void* resumer_bottom_ = nullptr;
  size_t resumer_size_ = 0;
};

}  // namespace vae_ext::emulation

// Memory of the emulated device: exactly as much as asked for, so that AddressSanitizer sees the first byte too far.
#pragma once

#include <stddef.h>
#include <stdlib.h>

#include <memory>

#include "poison.h"

namespace vae_ext::emulation {

template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count), data_(static_cast<T*>(malloc(count * sizeof(T))), &free) {
    fill(data(), count * sizeof(T), kUnwrittenOutput);
  }

  T* data() const { return data_.get(); }
  size_t size() const { return count_; }
  T& operator[](size_t i) const { return data_.get()[i]; }

 private:
  size_t count_;
  std::unique_ptr<T, void (*)(void*)> data_;
};

}  // namespace vae_ext::emulation

#include "shared_memory.h"

#include "poison.h"
#include "sanitizer.h"

namespace vae_ext::emulation {
void SharedMemory::clear() {
  count_ = 0;
  used_ = total_ = 0;
  sanitizer::forbid(memory_, sizeof(memory_));
}

void* SharedMemory::array(const void* declaration, size_t bytes) {
  for (int i = 0; i < count_; ++i)
    if (arrays_[i].declaration == declaration) return arrays_[i].data;
  total_ += bytes;
  if (count_ == kMaxArrays || total_ > kMaxShared) return nullptr;
  const size_t begin = (used_ + kRedZone + kAlignment - 1) / kAlignment * kAlignment + kShift;
  used_ = begin + bytes;
  sanitizer::allow(memory_ + begin, bytes);
  fill(memory_ + begin, bytes, kUninitialisedShared);
  arrays_[count_++] = {declaration, memory_ + begin};
  return memory_ + begin;
}

}  // namespace vae_ext::emulation

#include "huge_pages.h"

#include <ATen/ATen.h>

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace vae_ext {

at::Tensor empty_of_huge_pages(at::IntArrayRef shape, const at::TensorOptions& options) {
  at::Tensor result = at::empty(shape, options);
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  constexpr size_t kLarge = size_t{32} << 20;
  if (result.is_cpu() && result.nbytes() >= kLarge) {
    const auto begin = reinterpret_cast<uintptr_t>(result.mutable_data_ptr());
    const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
    const uintptr_t last = (begin + result.nbytes()) / kHugePage * kHugePage;
    // A hint: where it is refused, nothing is lost.
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
  return result;
}

}  // namespace vae_ext

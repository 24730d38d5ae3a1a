// Memory for results that are too large for the allocator to keep.
#pragma once

#include <ATen/core/Tensor.h>

namespace vae_ext {

// at::empty, whose memory is asked to be of huge pages where it is large and on the CPU. glibc returns blocks beyond
// 32 MiB to the kernel when they are freed, so each call touches new pages: of 4 KiB, that takes longer than the kernel
// that fills them.
at::Tensor empty_of_huge_pages(at::IntArrayRef shape, const at::TensorOptions& options);

}  // namespace vae_ext

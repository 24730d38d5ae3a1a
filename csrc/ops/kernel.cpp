#include "kernel.h"

namespace vae_ext {

void refuse_cuda(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK(false, op.schema().name(),
              " was given a CUDA tensor, but this vae_ext is built for the CPU alone; "
              "rebuild it with BUILD_CUDA=1, which takes nvcc and a torch with CUDA (README, CUDA)");
}

}  // namespace vae_ext

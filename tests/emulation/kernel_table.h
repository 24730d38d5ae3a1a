// The kernels of csrc/cuda by name.
#pragma once

#include <string>
#include <string_view>

#include "cuda/kernels.h"
#include "grid.h"

namespace vae_ext::emulation {

struct NamedKernel {
  std::string_view name;
  cuda::Kernel* launch;
};

constexpr NamedKernel kKernels[] = {
    {"bernoulli_log_prob", cuda::bernoulli_log_prob},
    {"normal_log_prob", cuda::normal_log_prob},
    {"normal_kl", cuda::normal_kl},
    {"normal_rsample_kl", cuda::normal_rsample_kl},
    {"normal_rsample_log_ratio", cuda::normal_rsample_log_ratio},
    {"sum_spans", cuda::sum_spans},
    {"sum_event", cuda::sum_event},
    {"bernoulli_log_prob_backward", cuda::bernoulli_log_prob_backward},
    {"normal_log_prob_backward", cuda::normal_log_prob_backward},
    {"normal_kl_backward", cuda::normal_kl_backward},
    {"normal_rsample", cuda::normal_rsample},
    {"normal_rsample_backward", cuda::normal_rsample_backward},
    {"normal_rsample_kl_backward", cuda::normal_rsample_kl_backward},
    {"normal_log_ratio_backward", cuda::normal_log_ratio_backward},
    {"sum_replicas", cuda::sum_replicas},
};

// Launches a kernel, with so many blocks at most.
inline void run_kernel(std::string_view name, const Problem& problem, unsigned blocks) {
  for (const NamedKernel& kernel : kKernels) {
    if (kernel.name != name) continue;
    max_blocks = blocks;
    return kernel.launch(problem, nullptr);
  }
  throw Error("there is no kernel " + std::string(name));
}

}  // namespace vae_ext::emulation

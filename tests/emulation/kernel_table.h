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
  // Do its threads go on until no work is left? The others take one piece each.
  bool goes_round;
};

constexpr NamedKernel kKernels[] = {
    {"bernoulli_log_prob", cuda::bernoulli_log_prob, true},
    {"normal_log_prob", cuda::normal_log_prob, true},
    {"normal_kl", cuda::normal_kl, true},
    {"normal_rsample_kl", cuda::normal_rsample_kl, true},
    {"normal_rsample_log_ratio", cuda::normal_rsample_log_ratio, true},
    {"sum_spans", cuda::sum_spans, true},
    {"sum_event", cuda::sum_event, true},
    {"bernoulli_log_prob_backward", cuda::bernoulli_log_prob_backward, false},
    {"normal_log_prob_backward", cuda::normal_log_prob_backward, false},
    {"normal_kl_backward", cuda::normal_kl_backward, false},
    {"normal_rsample", cuda::normal_rsample, false},
    {"normal_rsample_backward", cuda::normal_rsample_backward, false},
    {"normal_rsample_kl_backward", cuda::normal_rsample_kl_backward, false},
    {"normal_log_ratio_backward", cuda::normal_log_ratio_backward, false},
    {"sum_replicas", cuda::sum_replicas, false},
};

// Launches a kernel, with so many blocks at most if it goes round its work.
inline void run_kernel(std::string_view name, const Problem& problem, unsigned blocks) {
  for (const NamedKernel& kernel : kKernels) {
    if (kernel.name != name) continue;
    max_blocks = kernel.goes_round ? blocks : kAnyNumberOfBlocks;
    return kernel.launch(problem, nullptr);
  }
  throw Error("there is no kernel " + std::string(name));
}

}  // namespace vae_ext::emulation

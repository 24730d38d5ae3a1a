#include "../math/bernoulli.h"

#include "map_rows.cuh"
#include "sum_rows.cuh"

namespace vae_ext::cuda {

void bernoulli_log_prob(const Problem& p, Stream stream) { sum_rows<BernoulliLogProb, true>(p, stream); }

void bernoulli_log_prob_backward(const Problem& p, Stream stream) {
  map_rows<BernoulliLogProbGradient, false, true>(p, stream);
}

}  // namespace vae_ext::cuda

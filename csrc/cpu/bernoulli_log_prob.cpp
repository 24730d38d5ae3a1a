#include "../math/bernoulli.h"

#include "map_rows.h"
#include "sum_rows.h"

namespace vae_ext::cpu {
namespace {

using Data = Floats<1>;

}  // namespace

template <>
void bernoulli_log_prob<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  sum_rows<BernoulliLogProb, Floats<>, Data>(p, begin, end);
}

template <>
void bernoulli_log_prob_backward<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  map_rows<BernoulliLogProbGradient, false, Floats<>, Data>(p, begin, end);
}

}  // namespace vae_ext::cpu

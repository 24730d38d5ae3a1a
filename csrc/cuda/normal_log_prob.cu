#include "../math/normal.h"
#include "map_rows.cuh"
#include "sum_rows.cuh"

namespace vae_ext::cuda {

void normal_log_prob(const Problem& p, Stream stream) {
  with_kind(p.kind, [&](auto kind) { sum_rows<Plain<NormalLogProb<kind.kValue>>, true>(p, stream); });
}

void normal_log_prob_backward(const Problem& p, Stream stream) {
  with_kind(p.kind, [&](auto kind) { map_rows<NormalLogProbGradient<kind.kValue>, false, true>(p, stream); });
}

}  // namespace vae_ext::cuda

#include "../math/normal.h"
#include "map_rows.h"
#include "sum_rows.h"

namespace vae_ext::cpu {

template <>
void normal_log_prob<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) { sum_rows<Plain<NormalLogProb<kind.kValue>>>(p, begin, end); });
}

template <>
void normal_log_prob_backward<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) { map_rows<NormalLogProbGradient<kind.kValue>>(p, begin, end); });
}

}  // namespace vae_ext::cpu

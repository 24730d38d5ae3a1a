#include "../math/normal.h"
#include "map_rows.h"
#include "sum_rows.h"

namespace vae_ext::cpu {
namespace {

using Number = Floats<1>;  // as the scale
using Data = Floats<2>;
using NumberAndData = Floats<1, 2>;

}  // namespace

template <>
void normal_log_prob<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) {
    sum_rows<Plain<NormalLogProb<kind.kValue>>, Floats<>, Number, Data, NumberAndData>(p, begin, end);
  });
}

template <>
void normal_log_prob_backward<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) {
    map_rows<NormalLogProbGradient<kind.kValue>, false, Floats<>, Number, Data, NumberAndData>(p, begin, end);
  });
}

}  // namespace vae_ext::cpu

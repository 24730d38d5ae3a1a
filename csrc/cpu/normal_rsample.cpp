#include "../math/normal.h"
#include "map_rows.h"

namespace vae_ext::cpu {

template <>
void normal_rsample<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) {
    map_rows<OfAnyStandard<NormalRsample<kind.kValue>>, true, Floats<>, Floats<1>>(p, begin, end);
  });
}

template <>
void normal_rsample_backward<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) {
    map_rows<OfAnyStandard<NormalRsampleGradient<kind.kValue>>, true, Floats<>, Floats<0>>(p, begin, end);
  });
}

}  // namespace vae_ext::cpu

#include "../math/normal.h"
#include "map_rows.h"

namespace vae_ext::cpu {

template <>
void normal_rsample_kl_backward<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) {
    p.prior_scale ? map_rows<NormalRsampleKlGradient<kind.kValue, true>, true, Floats<>, Floats<2, 3>>(p, begin, end)
                  : map_rows<NormalRsampleKlGradient<kind.kValue, false>, true, Floats<2, 3>>(p, begin, end);
  });
}

}  // namespace vae_ext::cpu

#include "../math/normal.h"
#include "map_rows.h"
#include "sum_rows.h"

namespace vae_ext::cpu {

template <>
void normal_kl<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) {
    p.prior_scale ? sum_rows<Plain<NormalKl<kind.kValue, true>>, Floats<>, Floats<2, 3>>(p, begin, end)
                  : sum_rows<Plain<NormalKl<kind.kValue, false>>, Floats<2, 3>>(p, begin, end);
  });
}

template <>
void normal_kl_backward<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) {
    p.prior_scale ? map_rows<NormalKlGradient<kind.kValue, true>, false, Floats<>, Floats<2, 3>>(p, begin, end)
                  : map_rows<NormalKlGradient<kind.kValue, false>, false, Floats<2, 3>>(p, begin, end);
  });
}

}  // namespace vae_ext::cpu

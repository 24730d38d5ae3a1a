#include "../math/normal.h"
#include "map_rows.h"
#include "sum_rows.h"

namespace vae_ext::cpu {

template <>
void normal_log_ratio<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) {
    p.prior_scale ? sum_rows<Plain<NormalLogRatio<kind.kValue, true>>, Floats<>, Floats<2, 3>>(p, begin, end)
                  : sum_rows<Plain<NormalLogRatio<kind.kValue, false>>, Floats<2, 3>>(p, begin, end);
  });
}

template <>
void normal_log_ratio_backward<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  with_kind(p.kind, [&](auto kind) {
    p.prior_scale ? map_rows<NormalLogRatioGradient<kind.kValue, true>, true, Floats<>, Floats<1, 2>>(p, begin, end)
                  : map_rows<NormalLogRatioGradient<kind.kValue, false>, true, Floats<1, 2>>(p, begin, end);
  });
}

}  // namespace vae_ext::cpu

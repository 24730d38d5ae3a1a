#include "../math/normal.h"
#include "map_rows.cuh"
#include "sample_rows.cuh"

namespace vae_ext::cuda {

void normal_rsample_log_ratio(const Problem& p, Stream stream) {
  with_kind(p.kind, [&](auto kind) {
    constexpr ScaleKind kKind = kind.kValue;
    p.prior_scale ? sample_rows<Plain<NormalLogRatio<kKind, true>>, kKind>(p, stream)
                  : sample_rows<Plain<NormalLogRatio<kKind, false>>, kKind>(p, stream);
  });
}

void normal_log_ratio_backward(const Problem& p, Stream stream) {
  with_kind(p.kind, [&](auto kind) {
    p.prior_scale ? map_rows<NormalLogRatioGradient<kind.kValue, true>, true>(p, stream)
                  : map_rows<NormalLogRatioGradient<kind.kValue, false>, true>(p, stream);
  });
}

}  // namespace vae_ext::cuda

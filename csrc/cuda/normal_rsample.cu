#include "../math/normal.h"
#include "map_rows.cuh"

namespace vae_ext::cuda {

void normal_rsample(const Problem& p, Stream stream) {
  with_kind(p.kind, [&](auto kind) { map_rows<NormalRsample<kind.kValue>, true>(p, stream); });
}

void normal_rsample_backward(const Problem& p, Stream stream) {
  with_kind(p.kind, [&](auto kind) { map_rows<NormalRsampleGradient<kind.kValue>, true>(p, stream); });
}

}  // namespace vae_ext::cuda

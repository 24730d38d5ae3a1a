#include "../math/normal.h"
#include "map_rows.cuh"

namespace vae_ext::cuda {
namespace {

template <template <ScaleKind> class Formula>
void map_noise(const Problem& p, Stream stream) {
  if (p.noise.standard == StandardKind::normal)
    return with_kind(p.kind, [&](auto kind) { map_rows<Formula<kind.kValue>, true>(p, stream); });
  p.kind == ScaleKind::std ? map_rows<OfAnyStandard<Formula<ScaleKind::std>>, true>(p, stream)
                           : map_rows<OfAnyStandard<Formula<ScaleKind::log_std>>, true>(p, stream);
}

}  // namespace

void normal_rsample(const Problem& p, Stream stream) { map_noise<NormalRsample>(p, stream); }

void normal_rsample_backward(const Problem& p, Stream stream) { map_noise<NormalRsampleGradient>(p, stream); }

}  // namespace vae_ext::cuda

#include "../math/normal.h"
#include "map_rows.cuh"
#include "sum_rows.cuh"

namespace vae_ext::cuda {

void normal_kl(const Problem& p, Stream stream) {
  with_kind(p.kind, [&](auto kind) {
    p.prior_scale ? sum_rows<Plain<NormalKl<kind.kValue, true>>>(p, stream)
                  : sum_rows<Plain<NormalKl<kind.kValue, false>>>(p, stream);
  });
}

void normal_kl_backward(const Problem& p, Stream stream) {
  with_kind(p.kind, [&](auto kind) {
    p.prior_scale ? map_rows<NormalKlGradient<kind.kValue, true>>(p, stream)
                  : map_rows<NormalKlGradient<kind.kValue, false>>(p, stream);
  });
}

}  // namespace vae_ext::cuda

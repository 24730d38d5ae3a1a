#include "map_rows.h"

namespace vae_ext::cpu {

template <>
void sum_replicas<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  map_rows<Identity, false>(p, begin, end);
}

}  // namespace vae_ext::cpu

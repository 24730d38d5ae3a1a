#include "map_rows.h"

namespace vae_ext::cpu {
namespace {

struct Identity {
  static constexpr int kInputs = 1, kOutputs = 1;
  template <class V>
  static VAE_EXT_INLINE void apply(const V* in, const V*, V* out) {
    out[0] = in[0];
  }
};

}  // namespace

template <>
void sum_replicas<VAE_EXT_ISA>(const Problem& p, int64_t begin, int64_t end) {
  map_rows<Identity>(p, begin, end);
}

}  // namespace vae_ext::cpu

// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011),
// and the normals made of it.
#pragma once

#include "elementary.h"

namespace vae_ext {

template <class W>
struct PhiloxWords {
  W word[4];
};

// The ten-round bijection of a 128-bit counter under a 64-bit key, both in words of 32 bits, low word first.
template <class W>
VAE_EXT_INLINE PhiloxWords<W> philox(PhiloxWords<W> c, uint32_t key0, uint32_t key1) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    W high0, low0, high1, low1;
    mul_wide(c.word[0], kMultiplier0, &high0, &low0);
    mul_wide(c.word[2], kMultiplier1, &high1, &low1);
    c = {{high1 ^ c.word[1] ^ W(key0), low1, high0 ^ c.word[3] ^ W(key1), low0}};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return c;
}

// What a stream xors into the seed: the SplitMix64 finaliser, a bijection that is zero at zero alone, of a multiple
// that is not zero for any stream below 2^63.
VAE_EXT_INLINE uint64_t stream_constant(uint64_t stream) {
  uint64_t z = (stream + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Two independent standard normals: the first word gives the radius, the second the angle in units of 2 pi / 2^32;
// cosine first.
template <class V, class W>
VAE_EXT_INLINE void box_muller(W radius_word, W angle_word, V* cosine, V* sine) {
  // (w + 1/2) / 2^32 of the word as a float: in (0, 1].
  const V u = fma(to_float(radius_word), constant<V>(2.32830644e-10f), constant<V>(1.16415322e-10f));
  const V radius = sqrt(constant<V>(-2.0f) * log_normal(u));
  const SinCos<V> angle = sincos_of_word<V>(angle_word);
  *cosine = radius * angle.cos;
  *sine = radius * angle.sin;
}

// The key and the part of the counter that one draw of noise has in common.
struct NoiseKey {
  uint32_t key0, key1;
  uint32_t offset_low, offset_high;
};
VAE_EXT_INLINE NoiseKey noise_key(uint64_t seed, uint64_t offset, uint64_t stream) {
  const uint64_t key = seed ^ stream_constant(stream);
  return {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(offset),
          static_cast<uint32_t>(offset >> 32)};
}

// The four words of one counter (docs/design.md, Noise): `group` is sample * ceil(J / 4) + j / 4, `row` the global row.
template <class W>
VAE_EXT_INLINE PhiloxWords<W> words_of(const NoiseKey& key, W group, W row) {
  using Pairs = decltype(pair_words(group));
  const PhiloxWords<Pairs> counter{{pair_words(group), pair_words(row), Pairs(key.offset_low), Pairs(key.offset_high)}};
  const PhiloxWords<Pairs> w = philox(counter, key.key0, key.key1);
  return {{unpair_words(w.word[0]), unpair_words(w.word[1]), unpair_words(w.word[2]), unpair_words(w.word[3])}};
}

// The four normals made of them.
template <class V, class W>
VAE_EXT_INLINE void normals_of(const PhiloxWords<W>& w, V* out) {
  box_muller(w.word[0], w.word[1], &out[0], &out[1]);
  box_muller(w.word[2], w.word[3], &out[2], &out[3]);
}

}  // namespace vae_ext

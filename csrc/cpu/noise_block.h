// Epsilon for some rows or samples at a time: short events would leave most lanes of a vector of counters idle.
#pragma once

#include "../math/philox.h"
#include "segment.h"

namespace vae_ext::cpu {
namespace {

class NoiseBlock {
 public:
  NoiseBlock(const Noise& noise, int64_t event)
      : key_(noise_key(noise.seed, noise.offset, noise.stream)),
        first_row_(noise.first_row),
        groups_(static_cast<uint32_t>((event + 3) / 4)) {}

  // Which number the rows after this one step.
  enum class Axis { none, row, sample };

  // Epsilon of elements [j, j + n) of a row and sample; `ahead` neighbours along the axis will be asked for next. Good
  // until the next call. j is a multiple of kSegment.
  const float* at(uint32_t row, uint32_t sample, int64_t j, int64_t n, Axis axis, int64_t ahead) {
    const uint32_t step = axis == Axis::row ? row - row_ : sample - sample_;
    const bool same_line = axis == Axis::row ? sample == sample_ : axis == Axis::sample ? row == row_ : false;
    if (!same_line || step >= items_ || j != j_) {
      fill(row, sample, j, n, axis, ahead);
      return epsilon_;
    }
    return epsilon_ + step * stride_;
  }

 private:
  static constexpr uint32_t kCapacity = 2048;

  VAE_EXT_NOINLINE void fill(uint32_t row, uint32_t sample, int64_t j, int64_t n, Axis axis, int64_t ahead) {
    const uint32_t groups = static_cast<uint32_t>((n + 3) / 4);
    // An event of several segments is drawn one segment at a time.
    const int64_t room = groups == groups_ && axis != Axis::none ? kCapacity / (4 * groups) : 1;
    const int64_t wanted = ahead + 1;
    items_ = static_cast<uint32_t>(room < wanted ? room : wanted);
    row_ = row;
    sample_ = sample;
    j_ = j;
    stride_ = 4 * groups;
    const uint32_t first_group = sample * groups_ + static_cast<uint32_t>(j / 4);
    // Samples of a row follow each other in the group number; rows wrap it.
    draw(first_row_ + row, first_group, items_ * groups, axis == Axis::row ? groups : 0);
  }

  // `count` counters in order from (row, group); with `wrap`, the group starts over and the row steps after so many.
  void draw(uint32_t row, uint32_t group, uint32_t count, uint32_t wrap) {
    using W = Vec<uint32_t>;
    uint32_t lanes[kLanes], rows[kLanes] = {};
    store(lanes, group_order());
    for (int i = 0; wrap && i < kLanes; ++i) {
      rows[i] = lanes[i] / wrap;
      lanes[i] = lanes[i] % wrap;
    }
    W in_row = load(lanes), row_step = load(rows);
    const uint32_t whole_rows = wrap ? kLanes / wrap : 0;
    const W advance(wrap ? kLanes % wrap : kLanes), limit(wrap);
    for (uint32_t done = 0; done < count; done += kLanes) {
      Vec<float> normals[4];
      normals_of(key_, in_row + W(group), row_step + W(row), normals);
      store_groups(epsilon_ + 4 * done, normals[0], normals[1], normals[2], normals[3]);
      in_row = in_row + advance;
      if (wrap == 0) continue;
      const auto over = reinterpret<int32_t>(in_row) > reinterpret<int32_t>(limit - W(1));
      in_row = select(over, in_row - limit, in_row);
      row_step = row_step + W(whole_rows) - reinterpret<uint32_t>(over);
    }
  }

  const NoiseKey key_;
  const uint32_t first_row_, groups_;
  uint32_t row_ = 0, sample_ = 0, items_ = 0, stride_ = 0;
  int64_t j_ = -1;
  alignas(64) float epsilon_[kCapacity + 4 * kLanes];
};

}  // namespace
}  // namespace vae_ext::cpu

// Epsilon for some rows or samples at a time: short events would leave most lanes of a vector of counters idle.
#pragma once

#include "../math/standard.h"
#include "../noise_key.h"
#include "segment.h"

namespace vae_ext::cpu {
namespace {

// Of any standard distribution, or of the normal alone.
template <bool kAnyStandard>
class NoiseBlock {
 public:
  NoiseBlock(const Noise& noise, int64_t event)
      : key_(read_key(noise)),
        first_row_(noise.first_row),
        groups_(static_cast<uint32_t>(divide_up(event, 4))),
        standard_(noise.standard) {
    uint32_t lanes[kLanes];
    store(lanes, group_order());
    for (int i = 0; i < kLanes && groups_ > 0; ++i) {
      lane_row_[i] = lanes[i] / groups_;
      lane_group_[i] = lanes[i] % groups_;
    }
  }

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
  using W = Vec<uint32_t>;
  static constexpr uint32_t kCapacity = 2048;
  static_assert(kCapacity >= kSegment && kCapacity % (4 * kLanes) == 0, "a block holds a segment, in whole vectors");

  VAE_EXT_NOINLINE void fill(uint32_t row, uint32_t sample, int64_t j, int64_t n, Axis axis, int64_t ahead) {
    const uint32_t groups = static_cast<uint32_t>(divide_up(n, 4));
    // An event of several segments is drawn one segment at a time.
    const int64_t room = groups == groups_ && axis != Axis::none ? kCapacity / (4 * groups) : 1;
    const int64_t wanted = ahead + 1;
    items_ = static_cast<uint32_t>(room < wanted ? room : wanted);
    row_ = row;
    sample_ = sample;
    j_ = j;
    stride_ = 4 * groups;
    const uint32_t first_group = sample * groups_ + static_cast<uint32_t>(j / 4);
    // Samples of a row follow each other in the group number; rows start it over.
    const bool by_rows = axis == Axis::row && groups == groups_;
    const auto draw = [&](auto standard) {
      by_rows ? draw_rows<standard.kValue>(first_row_ + row, first_group)
              : draw_groups<standard.kValue>(first_row_ + row, first_group, items_ * groups);
    };
    if constexpr (kAnyStandard) {
      with_standard(standard_, draw);
    } else {
      draw(StandardConstant<StandardKind::normal>{});
    }
  }

  template <StandardKind kStandard>
  void draw_groups(uint32_t row, uint32_t group, uint32_t count) {
    W lane_group = group_order() + W(group);
    for (uint32_t done = 0; done < count; done += kLanes) {
      draw<kStandard>(lane_group, W(row), epsilon_ + 4 * done);
      lane_group = lane_group + W(kLanes);
    }
  }

  // All groups of items_ rows; a lane past the last group goes on in the next row.
  template <StandardKind kStandard>
  void draw_rows(uint32_t row, uint32_t first_group) {
    W lane_group = load(lane_group_), lane_row = load(lane_row_) + W(row);
    const W last(groups_ - 1), wrap(groups_), rows_a_step(kLanes / groups_), groups_a_step(kLanes % groups_);
    for (uint32_t done = 0; done < items_ * groups_; done += kLanes) {
      draw<kStandard>(lane_group + W(first_group), lane_row, epsilon_ + 4 * done);
      lane_group = lane_group + groups_a_step;
      const auto over = as_int(lane_group) > as_int(last);
      lane_group = select(over, lane_group - wrap, lane_group);
      lane_row = lane_row + rows_a_step - as_uint(over);
    }
  }

  template <StandardKind kStandard>
  VAE_EXT_INLINE void draw(const W& group, const W& row, float* out) const {
    Vec<float> variates[4];
    variates_of<kStandard>(words_of(key_, group, row), variates);
    store_groups(out, variates[0], variates[1], variates[2], variates[3]);
  }

  const NoiseKey key_;
  const uint32_t first_row_, groups_;
  const StandardKind standard_;
  uint32_t row_ = 0, sample_ = 0, items_ = 0, stride_ = 0;
  int64_t j_ = -1;
  // Where the lanes of the first vector of a block of rows stand.
  uint32_t lane_row_[kLanes] = {}, lane_group_[kLanes] = {};
  alignas(64) float epsilon_[kCapacity + 4 * kLanes];
};

}  // namespace
}  // namespace vae_ext::cpu

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/spatial_order.h"

namespace sniper {
namespace {

constexpr int64_t kMostStrips = 256;  // numbers of a strip are bytes
// The lowest byte of a centre is left out: an order to 1/32768 of a coordinate is as good.
constexpr int kLowestBit = 8;

}  // namespace

void SpatialOrder::sort(const float* dets, int32_t count, int run, int32_t* order) {
  const std::size_t size = static_cast<std::size_t>(count);
  items_.resize(size);
  const auto centre = [dets](int32_t row, int axis) {
    const float* det = dets + static_cast<int64_t>(row) * kDetection;
    return ordered_bits(0.5f * det[axis] + 0.5f * det[axis + 2]);
  };
  strip_.resize(size);
  for (int32_t row = 0; row < count; ++row) {
    items_[static_cast<std::size_t>(row)] = {centre(row, 0), row};
  }
  radix_sort(kLowestBit, &items_, &sorted_);
  const int64_t runs = (static_cast<int64_t>(count) + run - 1) / run;
  const double side = std::ceil(std::sqrt(static_cast<double>(runs)));
  const int64_t strips = std::min(kMostStrips, static_cast<int64_t>(side));
  const std::size_t strip_size = static_cast<std::size_t>((runs + strips - 1) / strips * run);
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t row = static_cast<std::size_t>(items_[i].row);
    strip_[row] = static_cast<uint8_t>(i / strip_size);
    items_[i].key = centre(items_[i].row, 1);
  }
  radix_sort(kLowestBit, &items_, &sorted_);
  constexpr int kStripBit = 24;
  for (KeyedRow& item : items_) {
    item.key = static_cast<uint32_t>(strip_[static_cast<std::size_t>(item.row)]) << kStripBit;
  }
  radix_sort(kStripBit, &items_, &sorted_);
  for (std::size_t i = 0; i < size; ++i) order[i] = items_[i].row;
}

}  // namespace sniper

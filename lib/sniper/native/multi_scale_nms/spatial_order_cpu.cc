#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/spatial_order.h"

namespace sniper {
namespace {

constexpr int kDigits = 256;
constexpr int64_t kMostStrips = kDigits;

// Unsigned numbers in the order of the floats.
uint32_t ordered_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

}  // namespace

// Stable counting sort of the items.
template <class DigitOf>
void SpatialOrder::sort_by_digit(const DigitOf& digit_of) {
  std::size_t begins[kDigits] = {};
  for (const Item& item : items_) ++begins[digit_of(item)];
  std::size_t sum = 0;
  for (std::size_t& begin : begins) sum += std::exchange(begin, sum);
  for (const Item& item : items_) sorted_[begins[digit_of(item)]++] = item;
  items_.swap(sorted_);
}

// The lowest byte is left out: an order to 1/32768 of a coordinate is as good.
void SpatialOrder::sort_by_key() {
  for (int shift = 8; shift < 32; shift += 8) {
    sort_by_digit([shift](const Item& item) { return item.key >> shift & 0xFFu; });
  }
}

void SpatialOrder::sort(const float* dets, int32_t count, int run, int32_t* order) {
  const std::size_t size = static_cast<std::size_t>(count);
  items_.resize(size);
  sorted_.resize(size);
  const auto centre = [dets](int32_t row, int axis) {
    const float* det = dets + static_cast<int64_t>(row) * kDetection;
    return ordered_bits(0.5f * det[axis] + 0.5f * det[axis + 2]);
  };
  strip_.resize(size);
  for (int32_t row = 0; row < count; ++row) {
    items_[static_cast<std::size_t>(row)] = {centre(row, 0), row};
  }
  sort_by_key();
  const int64_t runs = (static_cast<int64_t>(count) + run - 1) / run;
  const double side = std::ceil(std::sqrt(static_cast<double>(runs)));
  const int64_t strips = std::min(kMostStrips, static_cast<int64_t>(side));
  const std::size_t strip_size = static_cast<std::size_t>((runs + strips - 1) / strips * run);
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t row = static_cast<std::size_t>(items_[i].row);
    strip_[row] = static_cast<uint8_t>(i / strip_size);
    items_[i].key = centre(items_[i].row, 1);
  }
  sort_by_key();
  sort_by_digit([this](const Item& item) { return strip_[static_cast<std::size_t>(item.row)]; });
  for (std::size_t i = 0; i < size; ++i) order[i] = items_[i].row;
}

}  // namespace sniper

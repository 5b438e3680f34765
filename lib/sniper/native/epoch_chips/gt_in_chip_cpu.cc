#include <algorithm>
#include <cmath>
#include <cstddef>

#include "epoch_chips/gt_in_chip.h"

namespace sniper {
namespace {

// Image px that float32 coordinates of an image may be off: up to 2^24, differences of three.
constexpr double kRoundingMargin = 4;

// `extra` is 1 for the px at the end of a box, which names where it begins, else 0.
float to_chip(float coordinate, float extra, float origin, float factor, float last) {
  const float place = (coordinate + extra - origin) * factor - extra;
  return std::max(std::min(std::rint(place), last), 0.0f);
}

}  // namespace

void GtInChip::reset(const ChipRecord& record) {
  record_ = record;
  // For the chips of all levels, of which the smallest are the most.
  const double factor = *std::max_element(record.factors, record.factors + request_.num_levels);
  grid_.reset(static_cast<double>(record.width), static_cast<double>(record.height),
              static_cast<double>(request_.chip_size) / factor,
              static_cast<std::size_t>(record.num_gt));
  for (int64_t row = 0; row < record.num_gt; ++row) grid_.add(widened(record.boxes + 4 * row, 0));
}

int32_t GtInChip::count(const ChipRect& rect, double factor) const {
  const float scale = static_cast<float>(factor);
  int32_t count = 0;
  const auto visit = [&](int64_t row) { count += holds(rect, scale, record_.boxes + 4 * row); };
  if (request_.min_gt_side > 1) {  // boxes outside have sides of one px
    const double side = static_cast<double>(request_.chip_size) / factor;
    const float window[] = {static_cast<float>(rect[0]), static_cast<float>(rect[1]),
                            static_cast<float>(rect[0] + side), static_cast<float>(rect[1] + side)};
    grid_.visit_near(widened(window, kRoundingMargin), visit);
  } else {
    for (int64_t row = 0; row < record_.num_gt; ++row) visit(row);
  }
  return count;
}

bool GtInChip::holds(const ChipRect& rect, float scale, const float* box) const {
  const float x = static_cast<float>(rect[0]), y = static_cast<float>(rect[1]);
  const float last = static_cast<float>(request_.chip_size - 1);
  const float extra = request_.legacy_boxes ? 0.0f : 1.0f;
  const float width =
      to_chip(box[2], extra, x, scale, last) - to_chip(box[0], 0.0f, x, scale, last) + 1;
  const float height =
      to_chip(box[3], extra, y, scale, last) - to_chip(box[1], 0.0f, y, scale, last) + 1;
  return width >= request_.min_gt_side && height >= request_.min_gt_side;
}

}  // namespace sniper

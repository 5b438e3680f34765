// Rows of ground truth as a batch holds them: x1, y1, x2, y2, class; unused rows have class -1.
#ifndef SNIPER_NATIVE_COMMON_GT_ROWS_H_
#define SNIPER_NATIVE_COMMON_GT_ROWS_H_

#include <cmath>
#include <cstdint>

#include "common/box.h"
#include "common/macros.h"

namespace sniper {

constexpr float kLargestGtCoordinate = 1e9f;  // px

SNIPER_HOST_DEVICE Box gt_box(const float* gt_boxes, std::int64_t row) {
  const float* values = gt_boxes + 5 * row;
  return {values[0], values[1], values[2], values[3]};
}

// Whether the corners are numbers with which arithmetic does not overflow.
SNIPER_HOST_DEVICE bool gt_is_near(const float* row) {
  for (int i = 0; i < 4; ++i) {
    if (!(std::fabs(row[i]) <= kLargestGtCoordinate)) return false;
  }
  return true;
}

// Rows that are not near are not used, whatever their class is.
SNIPER_HOST_DEVICE bool gt_is_used(const float* row) {
  return gt_is_near(row) && row[4] >= 0.0f && is_finite(row[4]);
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_GT_ROWS_H_

// Box arithmetic shared by the proposal operators, host and device.
#ifndef SNIPER_NATIVE_COMMON_BOX_H_
#define SNIPER_NATIVE_COMMON_BOX_H_

#include <cfloat>
#include <cmath>

#include "common/exp.h"
#include "common/macros.h"

namespace sniper {

// Inclusive corners in px.
struct Box {
  float x1, y1, x2, y2;
};

SNIPER_HOST_DEVICE float smaller(float a, float b) { return a < b ? a : b; }
SNIPER_HOST_DEVICE float larger(float a, float b) { return a > b ? a : b; }

SNIPER_HOST_DEVICE bool is_finite(float value) { return std::fabs(value) <= FLT_MAX; }

SNIPER_HOST_DEVICE bool is_finite(const Box& box) {
  return is_finite(box.x1) & is_finite(box.y1) & is_finite(box.x2) & is_finite(box.y2);
}

// Width times height with +1 on both sides (2018 MultiProposal).
SNIPER_HOST_DEVICE float area_inclusive(const Box& box) {
  return (box.x2 - box.x1 + 1.0f) * (box.y2 - box.y1 + 1.0f);
}

// Without the +1: valid ranges and 2018 MultiProposalTarget.
SNIPER_HOST_DEVICE float area_plain(const Box& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

// With +1 on both sides, never negative.
SNIPER_HOST_DEVICE float intersection(const Box& a, const Box& b) {
  const float width = smaller(a.x2, b.x2) - larger(a.x1, b.x1) + 1.0f;
  const float height = smaller(a.y2, b.y2) - larger(a.y1, b.y1) + 1.0f;
  return larger(width, 0.0f) * larger(height, 0.0f);
}

// Greedy NMS: whether a kept box suppresses another one, that is, intersection / union > threshold.
// The areas are the caller's. A negative union (tiny boxes with plain areas) suppresses nothing, as
// the 2018 division did. The same decision as KeptBoxes of common/nms.h.
SNIPER_HOST_DEVICE bool suppresses(const Box& kept, float kept_area, const Box& box, float area,
                                   float threshold) {
  const float inter = intersection(kept, box);
  const float joint = kept_area + area - inter;
  return static_cast<int>(inter > threshold * joint) & static_cast<int>(joint >= 0.0f);
}

// Moves `anchor` by the deltas (dx, dy, dw, dh). dw and dh are not capped (2018 behaviour).
SNIPER_HOST_DEVICE Box decode_box(const Box& anchor, float dx, float dy, float dw, float dh) {
  const float width = anchor.x2 - anchor.x1 + 1.0f;
  const float height = anchor.y2 - anchor.y1 + 1.0f;
  const float centre_x = dx * width + (anchor.x1 + 0.5f * (width - 1.0f));
  const float centre_y = dy * height + (anchor.y1 + 0.5f * (height - 1.0f));
  const float half_width = 0.5f * (portable_exp(dw) * width - 1.0f);
  const float half_height = 0.5f * (portable_exp(dh) * height - 1.0f);
  return {centre_x - half_width, centre_y - half_height, centre_x + half_width,
          centre_y + half_height};
}

// `value` inside [0, high]; NaN stays NaN.
SNIPER_HOST_DEVICE float clip_coordinate(float value, float high) {
  const float below = high < value ? high : value;
  return below < 0.0f ? 0.0f : below;
}

// Clips to [0, width - 1] x [0, height - 1].
SNIPER_HOST_DEVICE Box clip_box(const Box& box, float height, float width) {
  return {clip_coordinate(box.x1, width - 1.0f), clip_coordinate(box.y1, height - 1.0f),
          clip_coordinate(box.x2, width - 1.0f), clip_coordinate(box.y2, height - 1.0f)};
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_BOX_H_

// The operators' own anchors: they round half up, unlike the RPN targets (2018 behaviour).
#ifndef SNIPER_NATIVE_COMMON_ANCHORS_H_
#define SNIPER_NATIVE_COMMON_ANCHORS_H_

#include <cmath>
#include <vector>

#include "common/box.h"
#include "common/macros.h"
#include "common/range.h"

namespace sniper {

constexpr Range kAnchorSideRange = {1e-6, 1e6};   // of scales and ratios: boxes stay float32
constexpr Range kFeatureStrideRange = {1, 4096};  // px

// Anchors of one image: index t = (a * height + y) * width + x, the memory order of the score map.
struct AnchorGrid {
  const Box* base;  // num_anchors boxes, ratio-major, scale-minor, of the cell (0, 0)
  int num_anchors;
  int height;    // cells
  int width;     // cells
  float stride;  // px per cell

  SNIPER_HOST_DEVICE long long cells() const { return static_cast<long long>(height) * width; }
  SNIPER_HOST_DEVICE long long count() const { return num_anchors * cells(); }
};

SNIPER_HOST_DEVICE Box anchor_at(const AnchorGrid& grid, int anchor, int y, int x) {
  const Box& base = grid.base[anchor];
  const float dx = x * grid.stride;
  const float dy = y * grid.stride;
  return {base.x1 + dx, base.y1 + dy, base.x2 + dx, base.y2 + dy};
}

// Base anchors of one cell; ratio = height / width.
inline std::vector<Box> make_base_anchors(float stride, const std::vector<float>& ratios,
                                          const std::vector<float>& scales) {
  std::vector<Box> anchors;
  anchors.reserve(ratios.size() * scales.size());
  const float centre = 0.5f * (stride - 1.0f);
  for (const float ratio : ratios) {
    const float width = std::floor(std::sqrt(std::floor(stride * stride / ratio)) + 0.5f);
    const float height = std::floor(width * ratio + 0.5f);
    for (const float scale : scales) {
      const float half_width = 0.5f * (width * scale - 1.0f);
      const float half_height = 0.5f * (height * scale - 1.0f);
      anchors.push_back(
          {centre - half_width, centre - half_height, centre + half_width, centre + half_height});
    }
  }
  return anchors;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_ANCHORS_H_

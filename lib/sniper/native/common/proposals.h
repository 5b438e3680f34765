// RPN maps of one image and the box that an anchor becomes, host and device.
#ifndef SNIPER_NATIVE_COMMON_PROPOSALS_H_
#define SNIPER_NATIVE_COMMON_PROPOSALS_H_

#include <cstdint>

#include "common/anchors.h"
#include "common/box.h"
#include "common/macros.h"

namespace sniper {

// RPN outputs of one image.
struct ProposalMaps {
  const float* scores;  // foreground probabilities, one per anchor of the grid
  const float* deltas;  // planes 4 * anchor + {dx, dy, dw, dh} of height x width
  AnchorGrid grid;
  float image_height;  // px
  float image_width;
};

struct ProposalLimits {
  std::int64_t pre_nms_top_n;  // best boxes that enter the NMS; 0 or less: all
  int post_nms_top_n;          // boxes that leave it
  float nms_threshold;
};

// Decodes and clips the box of anchor `index`; false when it is not finite.
SNIPER_HOST_DEVICE bool proposal_at(const ProposalMaps& maps, std::uint32_t index, Box* box) {
  const std::int64_t cells = maps.grid.cells();
  const std::uint32_t anchor = index / static_cast<std::uint32_t>(cells);
  const std::uint32_t cell = index % static_cast<std::uint32_t>(cells);
  const std::uint32_t y = cell / static_cast<std::uint32_t>(maps.grid.width);
  const std::uint32_t x = cell % static_cast<std::uint32_t>(maps.grid.width);
  const float* delta = maps.deltas + 4 * anchor * cells + cell;
  const float dx = delta[0], dy = delta[cells], dw = delta[2 * cells], dh = delta[3 * cells];
  if (!(is_finite(dx) && is_finite(dy) && is_finite(dw) && is_finite(dh))) return false;
  const Box raw = decode_box(
      anchor_at(maps.grid, static_cast<int>(anchor), static_cast<int>(y), static_cast<int>(x)), dx,
      dy, dw, dh);
  // A huge dw gives infinite corners, which the image clips (2018 behaviour); a NaN has no place.
  if (raw.x1 != raw.x1 || raw.y1 != raw.y1 || raw.x2 != raw.x2 || raw.y2 != raw.y2) return false;
  *box = clip_box(raw, maps.image_height, maps.image_width);
  return is_finite(*box);
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_PROPOSALS_H_

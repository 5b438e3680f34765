// RPN maps of one image and the box that an anchor becomes, host and device.
#ifndef SNIPER_NATIVE_COMMON_PROPOSALS_H_
#define SNIPER_NATIVE_COMMON_PROPOSALS_H_

#include <cstdint>

#include "common/anchors.h"
#include "common/box.h"
#include "common/macros.h"
#include "common/range.h"

namespace sniper {

constexpr Range kPreNmsRange = {-1, 4294967295.0};  // anchors have 32-bit indices; -1: all
constexpr Range kPostNmsRange = {1, 100000};        // more than any detector uses
constexpr Range kNmsThresholdRange = {0, 1};
constexpr Range kMinSizeRange = {0, 1e6};   // px
constexpr std::int64_t kMaxRows = 1 << 24;  // of an output, over the batch

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

// Decodes and clips one box; whether it is a proposal. A huge dw gives infinite corners, which the
// image clips (2018 behaviour); a delta that is not finite or a NaN on the way gives none. Without
// branches, so that host loops over it become SIMD code.
SNIPER_HOST_DEVICE bool decode_proposal(const Box& anchor, float dx, float dy, float dw, float dh,
                                        float image_height, float image_width, Box* box) {
  *box = clip_box(decode_box(anchor, dx, dy, dw, dh), image_height, image_width);
  // What is not finite, minus itself, is NaN.
  const float deltas = (dx - dx) + (dy - dy) + (dw - dw) + (dh - dh);
  const float corners =
      (box->x1 - box->x1) + (box->y1 - box->y1) + (box->x2 - box->x2) + (box->y2 - box->y2);
  return deltas + corners == 0.0f;
}

// The same for the anchor with linear index `index`.
SNIPER_HOST_DEVICE bool proposal_at(const ProposalMaps& maps, std::uint32_t index, Box* box) {
  const std::int64_t cells = maps.grid.cells();
  const std::uint32_t anchor = index / static_cast<std::uint32_t>(cells);
  const std::uint32_t cell = index % static_cast<std::uint32_t>(cells);
  const std::uint32_t y = cell / static_cast<std::uint32_t>(maps.grid.width);
  const std::uint32_t x = cell % static_cast<std::uint32_t>(maps.grid.width);
  const float* delta = maps.deltas + 4 * anchor * cells + cell;
  return decode_proposal(
      anchor_at(maps.grid, static_cast<int>(anchor), static_cast<int>(y), static_cast<int>(x)),
      delta[0], delta[cells], delta[2 * cells], delta[3 * cells], maps.image_height,
      maps.image_width, box);
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_PROPOSALS_H_

// What the boxes of a chip say about its anchors, before sampling.
#ifndef SNIPER_NATIVE_RPN_TARGETS_RPN_MATCHER_H_
#define SNIPER_NATIVE_RPN_TARGETS_RPN_MATCHER_H_

#include <cstdint>
#include <vector>

#include "rpn_targets/rpn_targets.h"

namespace sniper {

// Marks of an anchor. Without any it is negative.
constexpr uint8_t kRpnNear = 1;      // reaches negative_overlap with a valid box, or in a crowd
constexpr uint8_t kRpnPositive = 2;  // reaches positive_overlap, or is a valid box's best
constexpr uint8_t kRpnIgnored = 4;   // sticks out of the chip, or lies on an invalid box

constexpr int64_t kRpnBlock = 64;  // the number of marks is a multiple of it

// A box with positive sides.
struct GtBox {
  double x1, y1, x2, y2;
  double width, height, area;
};

// Marks of all anchors, filled up to whole blocks with kRpnIgnored. `has_valid`: there are valid
// boxes, with an area or without.
std::vector<uint8_t> mark_anchors(const RpnAnchors& anchors, const RpnSettings& settings,
                                  const std::vector<GtBox>& valid, bool has_valid,
                                  const std::vector<GtBox>& invalid,
                                  const std::vector<GtBox>& crowd);

}  // namespace sniper

#endif  // SNIPER_NATIVE_RPN_TARGETS_RPN_MATCHER_H_

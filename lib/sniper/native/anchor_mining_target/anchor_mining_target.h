// AnchorMiningTarget: what the anchors of one detection module are trained on. Of the background
// the anchors are taken that the module takes most for objects, of the objects those that it sees
// least (online hard example mining; SSH, Najibi et al. 2017, section 3.4).
#ifndef SNIPER_NATIVE_ANCHOR_MINING_TARGET_ANCHOR_MINING_TARGET_H_
#define SNIPER_NATIVE_ANCHOR_MINING_TARGET_ANCHOR_MINING_TARGET_H_

#include <cmath>
#include <cstdint>

#include "common/anchors.h"
#include "common/box.h"
#include "common/gt_rows.h"
#include "common/macros.h"
#include "common/range.h"
#include "common/score_key.h"

namespace sniper {

constexpr Range kMiningBatchRange = {1, 1 << 20};  // anchors
constexpr Range kMiningShareRange = {0, 1};        // of overlaps and of positives
constexpr Range kMiningBorderRange = {0, 1e6};     // px
// Of the largest output, over the batch: what MXNet and the sort on the GPU can count.
constexpr std::int64_t kMaxMiningOutput = (std::int64_t{1} << 31) - 1;

struct AnchorMiningTargetParams {
  int num_images;
  int max_gt;       // rows of gt_boxes per image
  int max_ignored;  // rows of ignore_boxes per image
  AnchorGrid grid;
  float border;  // px that a trained anchor may stick out of its image
  float positive_overlap;
  float negative_overlap;  // at most positive_overlap
  float ignore_overlap;
  int batch_size;     // anchors of an image that are trained
  int max_positives;  // of them
};

// What an anchor may be taken as.
enum MinedKind : std::uint32_t { kMinedPositive, kMinedNegative, kNotMined, kMinedKinds };

SNIPER_HOST_DEVICE bool anchor_is_inside(const Box& anchor, float image_height, float image_width,
                                         float border) {
  return anchor.x1 >= -border && anchor.y1 >= -border && anchor.x2 < image_width + border &&
         anchor.y2 < image_height + border;
}

// Whether anything can match a row: boxes without an area, or turned inside out, match nothing.
SNIPER_HOST_DEVICE bool gt_can_match(const float* row) {
  return gt_is_used(row) && row[2] - row[0] + 1.0f > 0.0f && row[3] - row[1] + 1.0f > 0.0f;
}

// Whether boxes of these areas can overlap by `overlap`: the smaller one over the larger one is the
// most. Half of it leaves room for rounding.
SNIPER_HOST_DEVICE bool areas_can_match(float a, float b, float overlap) {
  return smaller(a, b) >= 0.5f * overlap * larger(a, b);
}

// Intersection over union, sides with +1.
SNIPER_HOST_DEVICE float mining_overlap(const Box& gt, float gt_area, const Box& anchor) {
  const float inter = intersection(gt, anchor);
  return inter / (gt_area + area_inclusive(anchor) - inter);
}

// Of an anchor that is trained and no ignored box touches, by its largest overlap with a GT. An
// anchor that touches none is no positive, whatever positive_overlap is.
SNIPER_HOST_DEVICE MinedKind mined_kind(float overlap, const AnchorMiningTargetParams& params) {
  if (overlap > 0.0f && overlap >= params.positive_overlap) return kMinedPositive;
  return overlap < params.negative_overlap ? kMinedNegative : kNotMined;
}

// The harder the anchor, the smaller the key. NaN counts as 0.
SNIPER_HOST_DEVICE std::uint32_t mining_key(MinedKind kind, float probability) {
  const std::uint32_t key = score_key(probability == probability ? probability : 0.0f);
  return kind == kMinedPositive ? ~key : key;
}

// How many anchors of an image are taken.
struct MinedCount {
  std::int64_t positives, negatives;

  SNIPER_HOST_DEVICE float weight() const {
    return 1.0f / static_cast<float>(positives + negatives);
  }
};

SNIPER_HOST_DEVICE MinedCount mined_count(std::int64_t positives, std::int64_t negatives,
                                          const AnchorMiningTargetParams& params) {
  const std::int64_t taken = positives < params.max_positives ? positives : params.max_positives;
  const std::int64_t room = params.batch_size - taken;
  return {taken, negatives < room ? negatives : room};
}

// The anchor with a linear index.
SNIPER_HOST_DEVICE Box anchor_with_index(const AnchorGrid& grid, std::int64_t index) {
  const std::int64_t cell = index % grid.cells();
  return anchor_at(grid, static_cast<int>(index / grid.cells()),
                   static_cast<int>(cell / grid.width), static_cast<int>(cell % grid.width));
}

// Writes target and weight of a positive anchor; the pointers are those of its image. Centres are
// x1 + width / 2, half a pixel beyond the middle, for both boxes (2017 behaviour: who decodes with
// x2 = centre + width / 2 gets corners behind the last pixel).
SNIPER_HOST_DEVICE void write_positive(const AnchorGrid& grid, std::int64_t index, const Box& gt,
                                       float weight, float* target, float* target_weight) {
  const Box anchor = anchor_with_index(grid, index);
  const float width = anchor.x2 - anchor.x1 + 1.0f;
  const float height = anchor.y2 - anchor.y1 + 1.0f;
  const float gt_width = gt.x2 - gt.x1 + 1.0f;
  const float gt_height = gt.y2 - gt.y1 + 1.0f;
  const float values[4] = {
      (gt.x1 + 0.5f * gt_width - (anchor.x1 + 0.5f * width)) / width,
      (gt.y1 + 0.5f * gt_height - (anchor.y1 + 0.5f * height)) / height,
      logf(gt_width / width),
      logf(gt_height / height),
  };
  const std::int64_t cells = grid.cells();
  const std::int64_t first = 4 * (index / cells) * cells + index % cells;
  for (int k = 0; k < 4; ++k) {
    target[first + k * cells] = values[k];
    target_weight[first + k * cells] = weight;
  }
}

// cls_prob (N, 2, A*h, w) with the objects in plane 1, im_info (N, 3), gt_boxes (N, max_gt, 5),
// ignore_boxes (N, max_ignored, 5) like gt_boxes, or null. Writes label (N, A*h*w): 1, 0 or -1 (not
// trained); target and weight (N, 4A, h, w), the weight of a positive anchor being 1 / anchors of
// its image that are trained; count (N, 2): positives, and all that are trained.
void anchor_mining_target_cpu(const AnchorMiningTargetParams& params, const float* cls_prob,
                              const float* im_info, const float* gt_boxes,
                              const float* ignore_boxes, float* label, float* target,
                              float* weight, float* count);

}  // namespace sniper

#endif  // SNIPER_NATIVE_ANCHOR_MINING_TARGET_ANCHOR_MINING_TARGET_H_

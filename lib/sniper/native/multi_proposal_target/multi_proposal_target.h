// MultiProposalTarget: proposals of a training batch with labels and box targets (2018 GPU
// behaviour).
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_H_

#include <cmath>
#include <cstdint>

#include "common/anchors.h"
#include "common/box.h"
#include "common/macros.h"
#include "common/proposals.h"

namespace sniper {

constexpr float kForegroundOverlap = 0.5f;  // a label needs more
constexpr float kCentreMultiplier = 10.0f;  // 1 / standard deviation of dx and dy
constexpr float kSizeMultiplier = 5.0f;     // of dw and dh
constexpr float kTargetEpsilon = 1e-7f;

struct MultiProposalTargetParams {
  int num_images;
  int max_gt;  // rows of gt_boxes per image
  AnchorGrid grid;
  ProposalLimits limits;
  float min_size;         // px
  bool legacy_gt_centre;  // the GT centre lies half a pixel too far right and down, as in 2018
};

// Lower and upper box area of a valid range (square roots are given).
struct AreaRange {
  float low, high;
};

SNIPER_HOST_DEVICE AreaRange area_range(const float* valid_range) {
  return {valid_range[0] * valid_range[0], valid_range[1] * valid_range[1]};
}

// Which boxes take part, and their areas: no +1, and thin boxes survive (2018 behaviour).
struct MultiProposalTargetPolicy {
  float min_size;
  AreaRange range;

  SNIPER_HOST_DEVICE bool accepts(const Box& box) const {
    if (box.x2 - box.x1 < min_size && box.y2 - box.y1 < min_size) return false;
    const float size = area_plain(box);
    return size >= range.low && size < range.high;
  }
  SNIPER_HOST_DEVICE float area(const Box& box) const { return area_plain(box); }
};

// Whether a GT box joins the proposals of its image; the upper bound is closed here.
SNIPER_HOST_DEVICE bool gt_joins(const Box& gt, const AreaRange& range) {
  const float size = area_plain(gt);
  return size >= range.low && size <= range.high;
}

// Rows of gt_boxes hold x1, y1, x2, y2, class; unused rows have class -1.
SNIPER_HOST_DEVICE bool gt_is_used(const float* row) { return row[4] >= 0.0f; }

// The box of a slot that no proposal filled. `anchors` is A * h * w.
SNIPER_HOST_DEVICE Box fill_box(std::int64_t image, std::int64_t anchors, std::int64_t slot) {
  const float corner = static_cast<float>((image * anchors + slot) % 100);
  return {corner, corner, corner + 200.0f, corner + 200.0f};
}

// Overlap for the labels: +1 in the intersection but not in the areas, so that it may exceed 1, be
// negative or infinite for tiny boxes (2018 behaviour).
SNIPER_HOST_DEVICE float label_overlap(const Box& gt, float gt_area, const Box& roi,
                                       float roi_area) {
  const float inter = intersection(gt, roi);
  return inter / (gt_area + roi_area - inter);
}

// Normalised regression target of `roi` towards `gt`, four values.
SNIPER_HOST_DEVICE void encode_target(const Box& gt, const Box& roi, bool legacy_gt_centre,
                                      float* target) {
  const float gt_width = gt.x2 - gt.x1 + 1.0f;
  const float gt_height = gt.y2 - gt.y1 + 1.0f;
  const float width = roi.x2 - roi.x1 + 1.0f;
  const float height = roi.y2 - roi.y1 + 1.0f;
  const float shift = legacy_gt_centre ? 0.0f : 1.0f;
  const float gt_x = gt.x1 + 0.5f * (gt_width - shift);
  const float gt_y = gt.y1 + 0.5f * (gt_height - shift);
  const float centre_x = roi.x1 + 0.5f * (width - 1.0f);
  const float centre_y = roi.y1 + 0.5f * (height - 1.0f);
  target[0] = kCentreMultiplier * (gt_x - centre_x) / (width + kTargetEpsilon);
  target[1] = kCentreMultiplier * (gt_y - centre_y) / (height + kTargetEpsilon);
  target[2] = kSizeMultiplier * logf(gt_width / (width + kTargetEpsilon));
  target[3] = kSizeMultiplier * logf(gt_height / (height + kTargetEpsilon));
}

// cls_prob (N, 2, A*h, w), bbox_pred (N, 4A, h, w), im_info (N, 3), gt_boxes (N, max_gt, 5),
// valid_ranges (N, 2) = limits of sqrt(area) in px. Writes rois (N * post, 5), label (N * post),
// target (N * post, 4) and weight (N * post, 4). Without GT all labels are 0 (background).
void multi_proposal_target_cpu(const MultiProposalTargetParams& params, const float* cls_prob,
                               const float* bbox_pred, const float* im_info, const float* gt_boxes,
                               const float* valid_ranges, float* rois, float* label, float* target,
                               float* weight);

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_H_

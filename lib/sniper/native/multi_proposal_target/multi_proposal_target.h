// MultiProposalTarget: proposals of a training batch with labels and box targets (2018 GPU
// behaviour). MultiProposalTargetMask shares all of it but the rules below.
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_H_

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "common/anchors.h"
#include "common/box.h"
#include "common/exp.h"
#include "common/gt_rows.h"
#include "common/macros.h"
#include "common/proposals.h"

namespace sniper {

constexpr float kForegroundOverlap = 0.5f;  // a label needs more
constexpr float kCentreMultiplier = 10.0f;  // 1 / standard deviation of dx and dy
constexpr float kSizeMultiplier = 5.0f;     // of dw and dh
constexpr float kTargetEpsilon = 1e-7f;
constexpr float kIgnoreLabel = -1.0f;
constexpr int kMaxClasses = 1 << 16;                  // of a table of super-classes
constexpr Range kSuperClassRange = {1, kMaxClasses};  // 0 is the background

// Conventions of the target operators; plain data. The first three are attributes, the others tell
// the two operators apart.
struct TargetRules {
  bool legacy_gt_centre;     // the GT centre lies half a pixel too far right and down
  bool legacy_areas;         // areas without the +1 that the intersection has
  bool legacy_min_size;      // discard only boxes short on both sides, sides without +1
  bool gt_slots_descending;  // GT j takes slot post - 1 - j instead of post - G + j
  bool gt_range_closed;      // a GT of exactly the upper bound's area joins the proposals
  bool fill_depends_on_image;
};

// The rules of 2018.
SNIPER_HOST_DEVICE TargetRules multi_proposal_target_rules() {
  return {true, true, true, false, true, true};
}

// Super-classes of a detector that tells objects from background first, and their classes apart
// later (R-FCN-3000, Singh et al. 2018). Without a table (num_classes 0) labels are classes.
struct ClassTable {
  const std::int32_t* super_of;  // of the classes 1 .. num_classes
  int num_classes;
};

// How much background teaches: a Gompertz curve of its overlap o with the nearest object,
// a + (1 - a) exp(-b exp(-c o)) (Soft Sampling, Wu et al. 2019, section 3).
struct SoftSampling {
  float a, b, c;
};

constexpr SoftSampling kSoftSampling = {0.25f, 50.0f, 20.0f};  // of the paper
constexpr Range kSoftSamplingRange = {0, 1000};                // of b and c; a is at most 1
constexpr float kCrowdIoa = 0.9f;                              // 2018, Open Images

struct MultiProposalTargetParams {
  int num_images;
  int max_gt;     // rows of gt_boxes per image
  int max_crowd;  // rows of crowd_boxes per image
  float crowd_ioa;
  SoftSampling soft_sampling;
  AnchorGrid grid;
  ProposalLimits limits;
  float min_size;  // px
  TargetRules rules;
  ClassTable classes;
};

// Lower and upper box area of a valid range (square roots are given).
struct AreaRange {
  float low, high;
};

SNIPER_HOST_DEVICE AreaRange area_range(const float* valid_range) {
  return {valid_range[0] * valid_range[0], valid_range[1] * valid_range[1]};
}

// The area that enters overlaps (NMS and labels).
SNIPER_HOST_DEVICE float overlap_area(const Box& box, const TargetRules& rules) {
  return rules.legacy_areas ? area_plain(box) : area_inclusive(box);
}

// Which boxes take part, and their areas. The valid range holds for areas without +1.
struct MultiProposalTargetPolicy {
  float min_size;
  AreaRange range;
  TargetRules rules;

  SNIPER_HOST_DEVICE bool accepts(const Box& box) const {
    const float width = box.x2 - box.x1;
    const float height = box.y2 - box.y1;
    const bool too_small = rules.legacy_min_size
                               ? width < min_size && height < min_size
                               : width + 1.0f < min_size || height + 1.0f < min_size;
    const float size = area_plain(box);
    return !too_small && size >= range.low && size < range.high;
  }
  SNIPER_HOST_DEVICE float area(const Box& box) const { return overlap_area(box, rules); }
};

// Whether a GT box joins the proposals of its image.
SNIPER_HOST_DEVICE bool gt_joins(const Box& gt, const AreaRange& range, const TargetRules& rules) {
  const float size = area_plain(gt);
  return size >= range.low && (size < range.high || (rules.gt_range_closed && size == range.high));
}

// Rows with a class that a table does not have are not used either.
SNIPER_HOST_DEVICE bool gt_is_used(const float* row, const ClassTable& classes) {
  if (classes.num_classes == 0) return gt_is_used(row);
  return gt_is_near(row) && row[4] >= 1.0f &&
         row[4] < static_cast<float>(classes.num_classes) + 1.0f;
}

// Label of a roi that matches a used row of gt_boxes.
SNIPER_HOST_DEVICE float label_of(const float* row, const ClassTable& classes) {
  if (classes.num_classes == 0) return row[4];
  return static_cast<float>(classes.super_of[static_cast<int>(row[4]) - 1]);
}

// Slot that the `j`-th of `num_gt` used GT rows takes among `post` when it joins; negative: none.
SNIPER_HOST_DEVICE int gt_slot(int j, int num_gt, int post, const TargetRules& rules) {
  return rules.gt_slots_descending ? post - 1 - j : post - num_gt + j;
}

// The box of a slot that no proposal filled. `anchors` is A * h * w.
SNIPER_HOST_DEVICE Box fill_box(std::int64_t image, std::int64_t anchors, std::int64_t slot,
                                const TargetRules& rules) {
  const std::int64_t first = rules.fill_depends_on_image ? image * anchors : 0;
  const float corner = static_cast<float>((first + slot) % 100);
  return {corner, corner, corner + 200.0f, corner + 200.0f};
}

// A union has to be larger than this, or the boxes do not overlap. With legacy areas every union
// counts.
SNIPER_HOST_DEVICE float least_union(const TargetRules& rules) {
  return rules.legacy_areas ? -FLT_MAX : 0.0f;
}

// Overlap for the labels, areas from overlap_area. With legacy areas it may exceed 1, be negative
// or infinite for tiny boxes (2018 behaviour). The division stands under no condition, so that
// loops over it become SIMD.
SNIPER_HOST_DEVICE float label_overlap(const Box& gt, float gt_area, const Box& roi, float roi_area,
                                       float least_union) {
  const float inter = intersection(gt, roi);
  const float joint = gt_area + roi_area - inter;
  return inter / (joint > least_union ? joint : FLT_MAX);
}

SNIPER_HOST_DEVICE float label_overlap(const Box& gt, float gt_area, const Box& roi, float roi_area,
                                       const TargetRules& rules) {
  return label_overlap(gt, gt_area, roi, roi_area, least_union(rules));
}

// Whether more than a share of a roi lies in a crowd region, a box of many objects of which none is
// annotated. Areas without +1 got one in 2018.
SNIPER_HOST_DEVICE bool is_in_crowd(const Box& crowd, const Box& roi, float share,
                                    const TargetRules& rules) {
  const float area = rules.legacy_areas ? area_plain(roi) + 1.0f : area_inclusive(roi);
  return intersection(crowd, roi) / area > share;
}

// Factor on the class loss of a roi whose largest overlap with an object is `overlap`.
SNIPER_HOST_DEVICE float label_weight(float overlap, const SoftSampling& soft) {
  if (overlap >= kForegroundOverlap) return 1.0f;
  return soft.a + (1.0f - soft.a) * portable_exp(-soft.b * portable_exp(-soft.c * overlap));
}

// Normalised regression target of `roi` towards `gt`, four values.
SNIPER_HOST_DEVICE void encode_target(const Box& gt, const Box& roi, const TargetRules& rules,
                                      float* target) {
  const float gt_width = gt.x2 - gt.x1 + 1.0f;
  const float gt_height = gt.y2 - gt.y1 + 1.0f;
  const float width = roi.x2 - roi.x1 + 1.0f;
  const float height = roi.y2 - roi.y1 + 1.0f;
  const float shift = rules.legacy_gt_centre ? 0.0f : 1.0f;
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
// valid_ranges (N, 2) = limits of sqrt(area) in px, crowd_boxes (N, max_crowd, 5) like gt_boxes with
// any class, or null. Writes rois (N * post, 5), label (N * post), target (N * post, 4), weight (N *
// post, 4) and, unless null, label_weights (N * post) and matches (N * post): the row of gt_boxes
// that gave the label, -1 for none. Without GT all labels are 0 (background); the label of what no
// GT matches is -1 (ignored) in a crowd region.
void multi_proposal_target_cpu(const MultiProposalTargetParams& params, const float* cls_prob,
                               const float* bbox_pred, const float* im_info, const float* gt_boxes,
                               const float* valid_ranges, const float* crowd_boxes, float* rois,
                               float* label, float* target, float* weight, float* label_weights,
                               std::int32_t* matches);

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_H_

// MultiProposalTargetMask: MultiProposalTarget plus the positive rois that the mask head or, with a
// class table, the head of fine classes trains on (2018 GPU behaviour without its race: GT boxes
// are written after the proposals).
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MASK_MULTI_PROPOSAL_TARGET_MASK_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MASK_MULTI_PROPOSAL_TARGET_MASK_H_

#include <cstdint>

#include "common/macros.h"
#include "multi_proposal_target/multi_proposal_target.h"

namespace sniper {

constexpr Range kMaxMasksRange = {1, 100000};
constexpr float kNoMask = -1.0f;  // id of a row without a positive roi

// The rules of 2018.
SNIPER_HOST_DEVICE TargetRules multi_proposal_target_mask_rules() {
  return {true, true, true, true, false, false};
}

struct MultiProposalTargetMaskParams {
  MultiProposalTargetParams target;
  int max_masks;    // rows of mask_rois per image
  bool legacy_cap;  // the batch shares the rows, so that late images may get none
};

// What shares rows of mask_rois: the batch, or each image.
struct MaskGroups {
  std::int64_t count, rois, rows;  // rois and rows of a group
};

SNIPER_HOST_DEVICE MaskGroups mask_groups(const MultiProposalTargetMaskParams& params) {
  const std::int64_t images = params.target.num_images;
  const std::int64_t rois = params.target.limits.post_nms_top_n;
  return params.legacy_cap ? MaskGroups{1, images * rois, images * params.max_masks}
                           : MaskGroups{images, rois, params.max_masks};
}

// Whether a roi with this label and match (row of gt_boxes, -1: none) trains a mask.
SNIPER_HOST_DEVICE bool trains_mask(float label, std::int32_t match) {
  return match >= 0 && label > 0.0f;
}

// What mask_ids says of roi `roi` of the batch: its match, or with a class table its class, from 0.
SNIPER_HOST_DEVICE float mask_id(const MultiProposalTargetMaskParams& params, const float* gt_boxes,
                                 std::int64_t roi, std::int32_t match) {
  if (params.target.classes.num_classes == 0) return static_cast<float>(match);
  const std::int64_t image = roi / params.target.limits.post_nms_top_n;
  const float* row = gt_boxes + 5 * (image * params.target.max_gt + match);
  return static_cast<float>(static_cast<int>(row[4]) - 1);
}

// Row `row` of mask_rois when its group has too few positive rois.
SNIPER_HOST_DEVICE void fill_mask_roi(const MultiProposalTargetMaskParams& params, std::int64_t row,
                                      float* roi) {
  const float corner = static_cast<float>(row % 200);
  roi[0] = static_cast<float>(params.legacy_cap ? row % params.target.num_images
                                                : row / params.max_masks);
  roi[1] = corner;
  roi[2] = corner;
  roi[3] = corner + 100.0f;
  roi[4] = corner + 100.0f;
}

// Writes what MultiProposalTarget writes, and mask_rois (N * max_masks, 5), mask_ids (N *
// max_masks): the rois of each group that train a mask in the order of `rois`, until its rows are
// used up, then fill_mask_roi and kNoMask.
void multi_proposal_target_mask_cpu(const MultiProposalTargetMaskParams& params,
                                    const float* cls_prob, const float* bbox_pred,
                                    const float* im_info, const float* gt_boxes,
                                    const float* valid_ranges, const float* crowd_boxes,
                                    float* rois, float* label, float* target, float* weight,
                                    float* mask_rois, float* mask_ids, float* label_weights);

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MASK_MULTI_PROPOSAL_TARGET_MASK_H_

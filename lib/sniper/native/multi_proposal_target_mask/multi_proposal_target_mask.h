// MultiProposalTargetMask: MultiProposalTarget plus the positive rois that the mask head trains on
// (2018 GPU behaviour without its race: GT boxes are written after the proposals).
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MASK_MULTI_PROPOSAL_TARGET_MASK_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MASK_MULTI_PROPOSAL_TARGET_MASK_H_

#include <cstdint>

#include "common/macros.h"
#include "multi_proposal_target/multi_proposal_target.h"

namespace sniper {

constexpr Range kMaxMasksRange = {1, 100000};
constexpr float kNoMask = -1.0f;  // mask id of a row without a positive roi

// The rules of 2018.
SNIPER_HOST_DEVICE TargetRules multi_proposal_target_mask_rules() {
  return {true, true, true, true, false, false};
}

struct MultiProposalTargetMaskParams {
  MultiProposalTargetParams target;
  int max_masks;  // rows of mask_rois per image; the batch shares them
};

// Whether a roi with this label and match (row of gt_boxes, -1: none) trains a mask.
SNIPER_HOST_DEVICE bool trains_mask(float label, std::int32_t match) {
  return match >= 0 && label > 0.0f;
}

// Row `row` of mask_rois when the batch has too few positive rois.
SNIPER_HOST_DEVICE void fill_mask_roi(std::int64_t row, int num_images, float* roi) {
  const float corner = static_cast<float>(row % 200);
  roi[0] = static_cast<float>(row % num_images);
  roi[1] = corner;
  roi[2] = corner;
  roi[3] = corner + 100.0f;
  roi[4] = corner + 100.0f;
}

// Writes what MultiProposalTarget writes, and mask_rois (N * max_masks, 5), mask_ids (N *
// max_masks) = row of gt_boxes: the rois that train a mask in the order of `rois`, until the rows
// of the batch are used up (early images first, 2018 behaviour), then fill_mask_roi and kNoMask.
void multi_proposal_target_mask_cpu(const MultiProposalTargetMaskParams& params,
                                    const float* cls_prob, const float* bbox_pred,
                                    const float* im_info, const float* gt_boxes,
                                    const float* valid_ranges, float* rois, float* label,
                                    float* target, float* weight, float* mask_rois,
                                    float* mask_ids);

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MASK_MULTI_PROPOSAL_TARGET_MASK_H_

#include <algorithm>
#include <vector>

#include "multi_proposal_target_mask/multi_proposal_target_mask.h"

namespace sniper {

void multi_proposal_target_mask_cpu(const MultiProposalTargetMaskParams& params,
                                    const float* cls_prob, const float* bbox_pred,
                                    const float* im_info, const float* gt_boxes,
                                    const float* valid_ranges, const float* crowd_boxes,
                                    float* rois, float* label, float* target, float* weight,
                                    float* mask_rois, float* mask_ids, float* label_weights) {
  const MaskGroups groups = mask_groups(params);
  std::vector<std::int32_t> matches(static_cast<std::size_t>(groups.count * groups.rois));
  multi_proposal_target_cpu(params.target, cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges,
                            crowd_boxes, rois, label, target, weight, label_weights,
                            matches.data());
  for (std::int64_t group = 0; group < groups.count; ++group) {
    std::int64_t row = group * groups.rows;
    const std::int64_t end = row + groups.rows;
    for (std::int64_t i = group * groups.rois; i < (group + 1) * groups.rois && row < end; ++i) {
      if (!trains_mask(label[i], matches[i])) continue;
      std::copy_n(rois + 5 * i, 5, mask_rois + 5 * row);
      mask_ids[row++] = mask_id(params, gt_boxes, i, matches[i]);
    }
    for (; row < end; ++row) {
      fill_mask_roi(params, row, mask_rois + 5 * row);
      mask_ids[row] = kNoMask;
    }
  }
}

}  // namespace sniper

#include <algorithm>
#include <vector>

#include "multi_proposal_target_mask/multi_proposal_target_mask.h"

namespace sniper {

void multi_proposal_target_mask_cpu(const MultiProposalTargetMaskParams& params,
                                    const float* cls_prob, const float* bbox_pred,
                                    const float* im_info, const float* gt_boxes,
                                    const float* valid_ranges, float* rois, float* label,
                                    float* target, float* weight, float* mask_rois,
                                    float* mask_ids) {
  const std::int64_t num_images = params.target.num_images;
  const std::int64_t num_rois = num_images * params.target.limits.post_nms_top_n;
  const std::int64_t num_masks = num_images * params.max_masks;
  std::vector<std::int32_t> matches(static_cast<std::size_t>(num_rois));
  multi_proposal_target_cpu(params.target, cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges,
                            rois, label, target, weight, matches.data());
  std::int64_t used = 0;
  for (std::int64_t i = 0; i < num_rois && used < num_masks; ++i) {
    if (!trains_mask(label[i], matches[i])) continue;
    std::copy_n(rois + 5 * i, 5, mask_rois + 5 * used);
    mask_ids[used++] = static_cast<float>(matches[i]);
  }
  for (; used < num_masks; ++used) {
    fill_mask_roi(used, params.target.num_images, mask_rois + 5 * used);
    mask_ids[used] = kNoMask;
  }
}

}  // namespace sniper

// Launchers of MultiProposalTargetMask in libsniper_cuda.so; common/cuda_api.h says what they
// promise.
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MASK_MULTI_PROPOSAL_TARGET_MASK_CUDA_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MASK_MULTI_PROPOSAL_TARGET_MASK_CUDA_H_

#include "common/cuda_api.h"
#include "multi_proposal_target_mask/multi_proposal_target_mask.h"

SNIPER_CUDA_API int sniper_multi_proposal_target_mask_workspace(
    const sniper::MultiProposalTargetMaskParams* params, std::size_t* bytes);

// As multi_proposal_target_mask_cpu, with the same bits but for the logarithms in `target`.
SNIPER_CUDA_API int sniper_multi_proposal_target_mask_forward(
    const sniper::MultiProposalTargetMaskParams* params, const float* cls_prob,
    const float* bbox_pred, const float* im_info, const float* gt_boxes, const float* valid_ranges,
    const float* crowd_boxes, float* rois, float* label, float* target, float* weight,
    float* mask_rois, float* mask_ids, float* label_weights, void* workspace, void* stream);

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MASK_MULTI_PROPOSAL_TARGET_MASK_CUDA_H_

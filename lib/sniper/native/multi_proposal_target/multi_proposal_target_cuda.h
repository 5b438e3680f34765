// Launchers of MultiProposalTarget in libsniper_cuda.so; common/cuda_api.h says what they promise.
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_CUDA_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_CUDA_H_

#include "common/cuda_api.h"
#include "multi_proposal_target/multi_proposal_target.h"

SNIPER_CUDA_API int sniper_multi_proposal_target_workspace(
    const sniper::MultiProposalTargetParams* params, std::size_t* bytes);

// As multi_proposal_target_cpu, with the same bits but for the logarithms in `target`.
SNIPER_CUDA_API int sniper_multi_proposal_target_forward(
    const sniper::MultiProposalTargetParams* params, const float* cls_prob, const float* bbox_pred,
    const float* im_info, const float* gt_boxes, const float* valid_ranges,
    const float* crowd_boxes, float* rois, float* label, float* target, float* weight,
    float* label_weights, void* workspace, void* stream);

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_CUDA_H_

// Launchers of AnchorMiningTarget in libsniper_cuda.so; common/cuda_api.h says what they promise.
#ifndef SNIPER_NATIVE_ANCHOR_MINING_TARGET_ANCHOR_MINING_TARGET_CUDA_H_
#define SNIPER_NATIVE_ANCHOR_MINING_TARGET_ANCHOR_MINING_TARGET_CUDA_H_

#include "anchor_mining_target/anchor_mining_target.h"
#include "common/cuda_api.h"

SNIPER_CUDA_API int sniper_anchor_mining_target_workspace(
    const sniper::AnchorMiningTargetParams* params, std::size_t* bytes);

// As anchor_mining_target_cpu, with the same bits but for the logarithms in `target`.
SNIPER_CUDA_API int sniper_anchor_mining_target_forward(
    const sniper::AnchorMiningTargetParams* params, const float* cls_prob, const float* im_info,
    const float* gt_boxes, const float* ignore_boxes, float* label, float* target, float* weight,
    float* count, void* workspace, void* stream);

#endif  // SNIPER_NATIVE_ANCHOR_MINING_TARGET_ANCHOR_MINING_TARGET_CUDA_H_

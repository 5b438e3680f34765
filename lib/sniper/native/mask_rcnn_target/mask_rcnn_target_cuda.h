// Launchers of MaskRcnnTarget in libsniper_cuda.so; common/cuda_api.h says what they promise.
#ifndef SNIPER_NATIVE_MASK_RCNN_TARGET_MASK_RCNN_TARGET_CUDA_H_
#define SNIPER_NATIVE_MASK_RCNN_TARGET_MASK_RCNN_TARGET_CUDA_H_

#include "common/cuda_api.h"
#include "mask_rcnn_target/mask_rcnn_target.h"

SNIPER_CUDA_API int sniper_mask_rcnn_target_workspace(const sniper::MaskRcnnTargetParams* params,
                                                      std::size_t* bytes);

// As mask_rcnn_target_cpu, with the same bits.
SNIPER_CUDA_API int sniper_mask_rcnn_target_forward(const sniper::MaskRcnnTargetParams* params,
                                                    const float* rois, const float* mask_polys,
                                                    const float* mask_ids, float* targets,
                                                    float* classes, void* workspace, void* stream);

#endif  // SNIPER_NATIVE_MASK_RCNN_TARGET_MASK_RCNN_TARGET_CUDA_H_

// Launchers of MultiScaleNMS in libsniper_cuda.so; common/cuda_api.h says what they promise.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_MULTI_SCALE_NMS_CUDA_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_MULTI_SCALE_NMS_CUDA_H_

#include "common/cuda_api.h"
#include "multi_scale_nms/multi_scale_nms.h"

SNIPER_CUDA_API int sniper_multi_scale_nms_workspace(const sniper::MultiScaleNmsParams* params,
                                                     std::size_t* bytes);

// The graph operator, whose tensors all hold float32.
SNIPER_CUDA_API int sniper_multi_scale_nms_forward(const sniper::MultiScaleNmsParams* params,
                                                   const float* dets, const float* levels,
                                                   const float* classes, const float* images,
                                                   const float* valid_ranges, float* out_dets,
                                                   float* out_classes, float* out_images,
                                                   float* out_count, void* workspace, void* stream);

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_MULTI_SCALE_NMS_CUDA_H_

// Launchers of ROIMaxMeanPooling in libsniper_cuda.so; common/cuda_api.h says what they promise.
#ifndef SNIPER_NATIVE_ROI_MAX_MEAN_POOLING_ROI_MAX_MEAN_POOLING_CUDA_H_
#define SNIPER_NATIVE_ROI_MAX_MEAN_POOLING_ROI_MAX_MEAN_POOLING_CUDA_H_

#include "common/cuda_api.h"
#include "roi_max_mean_pooling/roi_max_mean_pooling.h"

SNIPER_CUDA_API int sniper_roi_max_mean_pooling_workspace(const sniper::RoiMaxMeanParams* params,
                                                          std::size_t* bytes);

// As roi_max_mean_forward_cpu, with the same bits.
SNIPER_CUDA_API int sniper_roi_max_mean_pooling_forward(const sniper::RoiMaxMeanParams* params,
                                                        const float* data, const float* rois,
                                                        float* output, void* workspace,
                                                        void* stream);

SNIPER_CUDA_API int sniper_roi_max_mean_pooling_backward_workspace(
    const sniper::RoiMaxMeanParams* params, std::size_t* bytes);

// As roi_max_mean_backward_cpu, with the same bits.
SNIPER_CUDA_API int sniper_roi_max_mean_pooling_backward(const sniper::RoiMaxMeanParams* params,
                                                         const float* output_grad,
                                                         const float* data, const float* rois,
                                                         float* data_grad, void* workspace,
                                                         void* stream);

#endif  // SNIPER_NATIVE_ROI_MAX_MEAN_POOLING_ROI_MAX_MEAN_POOLING_CUDA_H_

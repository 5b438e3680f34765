// Launchers of DeformablePSROIPooling in libsniper_cuda.so; common/cuda_api.h says what they
// promise.
#ifndef SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_DEFORMABLE_PSROI_POOLING_CUDA_H_
#define SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_DEFORMABLE_PSROI_POOLING_CUDA_H_

#include "common/cuda_api.h"
#include "deformable_psroi_pooling/deformable_psroi_pooling.h"

SNIPER_CUDA_API int sniper_deformable_psroi_pooling_workspace(const sniper::PsRoiShape* params,
                                                              std::size_t* bytes);

// As psroi_forward_cpu, with the same bits.
SNIPER_CUDA_API int sniper_deformable_psroi_pooling_forward(const sniper::PsRoiShape* params,
                                                            const float* data, const float* rois,
                                                            const float* trans, float* output,
                                                            void* workspace, void* stream);

SNIPER_CUDA_API int sniper_deformable_psroi_pooling_backward_workspace(
    const sniper::PsRoiShape* params, std::size_t* bytes);

// As psroi_backward_cpu.
SNIPER_CUDA_API int sniper_deformable_psroi_pooling_backward(const sniper::PsRoiShape* params,
                                                             const float* output_grad,
                                                             const float* data, const float* rois,
                                                             const float* trans, float* data_grad,
                                                             float* trans_grad, void* workspace,
                                                             void* stream);

#endif  // SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_DEFORMABLE_PSROI_POOLING_CUDA_H_

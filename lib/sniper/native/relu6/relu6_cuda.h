// Launchers of ReLU6 in libsniper_cuda.so; common/cuda_api.h says what they promise.
#ifndef SNIPER_NATIVE_RELU6_RELU6_CUDA_H_
#define SNIPER_NATIVE_RELU6_RELU6_CUDA_H_

#include "common/cuda_api.h"
#include "relu6/relu6.h"

SNIPER_CUDA_API int sniper_relu6_workspace(const sniper::Relu6Params* params, std::size_t* bytes);

// As relu6_forward_cpu, with the same bits.
SNIPER_CUDA_API int sniper_relu6_forward(const sniper::Relu6Params* params, const float* data,
                                         float* output, void* workspace, void* stream);

// As relu6_backward_cpu, with the same bits.
SNIPER_CUDA_API int sniper_relu6_backward(const sniper::Relu6Params* params,
                                          const float* output_grad, const float* data,
                                          float* data_grad, void* workspace, void* stream);

#endif  // SNIPER_NATIVE_RELU6_RELU6_CUDA_H_

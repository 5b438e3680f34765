// CUDA kernels of ReLU6.

#include "common/cuda.cuh"
#include "relu6/relu6_cuda.h"

namespace sniper {
namespace {

constexpr int kThreads = 256;

// relu6() without its chain of comparisons: ptxas makes a minimum instruction of that (seen on
// sm_90), which turns every NaN into another one.
__device__ float relu6_exact(float value) {
  const bool below = value < 0.0f;
  const bool above = value > kRelu6Limit;
  const std::uint32_t limit = below ? 0u : __float_as_uint(kRelu6Limit);
  return __uint_as_float(below || above ? limit : __float_as_uint(value));
}

__global__ void relu6_values(const float* data, std::int64_t size, float* output) {
  for (std::int64_t i = global_thread(); i < size; i += global_threads()) {
    output[i] = relu6_exact(data[i]);
  }
}

__global__ void relu6_gradients(const float* output_grad, const float* data, std::int64_t size,
                                float* data_grad) {
  for (std::int64_t i = global_thread(); i < size; i += global_threads()) {
    data_grad[i] = relu6_gradient(data[i], output_grad[i]);
  }
}

}  // namespace
}  // namespace sniper

SNIPER_CUDA_API int sniper_relu6_workspace(const sniper::Relu6Params*, std::size_t* bytes) {
  *bytes = 0;
  return cudaSuccess;
}

SNIPER_CUDA_API int sniper_relu6_forward(const sniper::Relu6Params* params, const float* data,
                                         float* output, void*, void* stream) {
  SNIPER_LAUNCH(sniper::relu6_values, sniper::blocks_for(params->size, sniper::kThreads),
                sniper::kThreads, 0, stream, data, params->size, output);
  return cudaGetLastError();
}

SNIPER_CUDA_API int sniper_relu6_backward(const sniper::Relu6Params* params,
                                          const float* output_grad, const float* data,
                                          float* data_grad, void*, void* stream) {
  SNIPER_LAUNCH(sniper::relu6_gradients, sniper::blocks_for(params->size, sniper::kThreads),
                sniper::kThreads, 0, stream, output_grad, data, params->size, data_grad);
  return cudaGetLastError();
}

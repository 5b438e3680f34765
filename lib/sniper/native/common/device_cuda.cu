// What the MXNet glue needs of the CUDA runtime, so that it can be compiled without CUDA's headers.
#include "common/cuda.cuh"

SNIPER_CUDA_API int sniper_cuda_select(int device) { return cudaSetDevice(device); }

SNIPER_CUDA_API int sniper_cuda_zero(void* target, std::size_t bytes, void* stream) {
  return cudaMemsetAsync(target, 0, bytes, static_cast<cudaStream_t>(stream));
}

SNIPER_CUDA_API const char* sniper_cuda_error_text(int status) {
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

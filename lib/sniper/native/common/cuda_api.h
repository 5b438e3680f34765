// How the launchers of libsniper_cuda.so are declared, for the library and for its callers.
//
//     SNIPER_CUDA_API int sniper_<op>_workspace(const <Op>Params* params, std::size_t* bytes);
//     SNIPER_CUDA_API int sniper_<op>_forward(const <Op>Params* params, const float* input, ...,
//                                             float* output, ..., void* workspace, void* stream);
//
// `params` is in host memory and may go away on return; every other pointer is device memory. A
// launcher enqueues its work on `stream`, waits for nothing, and returns a cudaError_t (0: fine).
// The workspace has as many bytes as the first function says, aligned to 256 bytes.
#ifndef SNIPER_NATIVE_COMMON_CUDA_API_H_
#define SNIPER_NATIVE_COMMON_CUDA_API_H_

#include <cstddef>

// A function that libsniper_cuda.so exports: C linkage, nothing thrown.
#define SNIPER_CUDA_API extern "C" __attribute__((visibility("default")))

// Makes `device` the current one of the calling thread, for this library's copy of the runtime.
SNIPER_CUDA_API int sniper_cuda_select(int device);
// Enqueues zeros.
SNIPER_CUDA_API int sniper_cuda_zero(void* target, std::size_t bytes, void* stream);
// The words for what a function returned.
SNIPER_CUDA_API const char* sniper_cuda_error_text(int status);

#endif  // SNIPER_NATIVE_COMMON_CUDA_API_H_

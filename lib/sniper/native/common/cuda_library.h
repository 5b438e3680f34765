// Finds libsniper_cuda.so at run time, so that the glue is compiled without CUDA and the operators
// run on machines without it.
#ifndef SNIPER_NATIVE_COMMON_CUDA_LIBRARY_H_
#define SNIPER_NATIVE_COMMON_CUDA_LIBRARY_H_

#include <cstddef>

#include "common/cuda_api.h"

namespace sniper {

// Address of a function of the library, which lies beside the one that holds this code and is
// loaded on the first call. Throws std::runtime_error with the way out when the library is missing,
// does not load or is older than this code. `op` begins the sentence. Thread-safe.
void* cuda_symbol(const char* op, const char* name);

// The same with its type:
//     SNIPER_CUDA_FUNCTION(kName, sniper_cuda_zero)(target, bytes, stream);
#define SNIPER_CUDA_FUNCTION(op, name) \
  reinterpret_cast<decltype(&name)>(sniper::cuda_symbol(op, #name))

// Throws std::runtime_error with CUDA's words unless `status` is 0.
void check_cuda(const char* op, int status);

// `bytes` as the int that MXNet's allocator wants; throws when it does not fit.
int cuda_scratch_bytes(const char* op, std::size_t bytes);

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_CUDA_LIBRARY_H_

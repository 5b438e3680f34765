// Compiler switches that every kernel shares.
#ifndef SNIPER_NATIVE_COMMON_MACROS_H_
#define SNIPER_NATIVE_COMMON_MACROS_H_

// Arithmetic that the CPU loops and the CUDA kernels share.
#ifdef __CUDACC__
#define SNIPER_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SNIPER_HOST_DEVICE inline
#endif

// A function that becomes part of its callers: of each copy for an instruction set (common/isa.h).
#define SNIPER_ALWAYS_INLINE inline __attribute__((always_inline))

#endif  // SNIPER_NATIVE_COMMON_MACROS_H_

// Compiler switches that every kernel shares.
#ifndef SNIPER_NATIVE_COMMON_MACROS_H_
#define SNIPER_NATIVE_COMMON_MACROS_H_

// Arithmetic that the CPU loops and the CUDA kernels share.
#ifdef __CUDACC__
#define SNIPER_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SNIPER_HOST_DEVICE inline
#endif

// One copy of a hot, plain helper function per instruction set; the loader picks at start. The
// wheel stays portable, and contraction is off, so all copies give the same bits. Not for functions
// that hold an OpenMP region, lambdas or templates. Needs ifunc: GNU compiler, x86-64 and glibc.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__) && defined(__x86_64__) && \
    defined(__gnu_linux__)
#include <features.h>
#ifdef __GLIBC__
#define SNIPER_TARGET_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef SNIPER_TARGET_CLONES
#define SNIPER_TARGET_CLONES
#endif

#endif  // SNIPER_NATIVE_COMMON_MACROS_H_

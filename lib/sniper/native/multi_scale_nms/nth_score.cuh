// The score that so many rows reach, found by a block.
#ifndef SNIPER_NATIVE_NTH_SCORE_CUH_
#define SNIPER_NATIVE_NTH_SCORE_CUH_

#include <cstdint>

#include "common/cuda.cuh"
#include "multi_scale_nms/soft_nms.cuh"

namespace sniper {

// Inverse of ordered_bits.
__device__ __forceinline__ float score_of_bits(unsigned ordered) {
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7FFFFFFFu : ~ordered);
}

// The `wanted`-th largest score of the kept rows begin .. end - 1; -infinity when there are no more
// rows than that. Radix selection, eight bits at a time, by all threads of the block.
template <int kThreads>
__device__ float nth_score(const float* scores, const std::int32_t* keep, int begin, int end,
                           std::int64_t wanted) {
  __shared__ int histogram[256];
  __shared__ int digit;  // -1: all rows stay
  __shared__ std::int64_t left;
  unsigned found = 0;
  if (threadIdx.x == 0) left = wanted;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int k = static_cast<int>(threadIdx.x); k < 256; k += kThreads) histogram[k] = 0;
    __syncthreads();
    for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) {
      const std::uint64_t key = ordered_bits(scores[i]);
      if (keep[i] && key >> (shift + 8) == found) atomicAdd(&histogram[key >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      for (digit = 255; digit >= 0 && histogram[digit] < left; --digit) left -= histogram[digit];
    }
    __syncthreads();
    if (digit < 0) return -INFINITY;
    found = found << 8 | static_cast<unsigned>(digit);
  }
  return score_of_bits(found);
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_NTH_SCORE_CUH_

// Transposition in patches, for maps whose channels should lie side by side.
#ifndef SNIPER_NATIVE_COMMON_TRANSPOSE_CUH_
#define SNIPER_NATIVE_COMMON_TRANSPOSE_CUH_

#include <cstdint>

#include "common/cuda.cuh"

namespace sniper {

constexpr int kPatch = kWarpSize;  // side of a transposed patch
constexpr int kPatchRows = 8;      // threads along the second side of a patch

// target[column * target_stride + row] = source[row * source_stride + column] for at most kPatch
// rows and columns, by a block of kPatch x kPatchRows threads.
inline __device__ void transpose_patch(const float* source, std::int64_t source_stride,
                                       std::int64_t rows, std::int64_t columns, float* target,
                                       std::int64_t target_stride) {
  __shared__ float patch[kPatch][kPatch + 1];
  const int lane = static_cast<int>(threadIdx.x);
  for (int row = static_cast<int>(threadIdx.y); row < kPatch; row += kPatchRows) {
    if (row < rows && lane < columns) patch[row][lane] = source[row * source_stride + lane];
  }
  __syncthreads();
  for (int column = static_cast<int>(threadIdx.y); column < kPatch; column += kPatchRows) {
    if (column < columns && lane < rows) {
      target[column * target_stride + lane] = patch[lane][column];
    }
  }
  __syncthreads();
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_TRANSPOSE_CUH_

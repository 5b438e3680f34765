// PSROI pooling without offsets on the device: see psroi_plain.h.
#ifndef SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_PLAIN_CUH_
#define SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_PLAIN_CUH_

#include "common/cuda.cuh"
#include "deformable_psroi_pooling/psroi_plain.h"

namespace sniper {

// Whether a plane of the map fits into the shared memory that every block may have.
inline bool psroi_plain_fits(const PsRoiShape& shape) {
  constexpr int64_t kSharedFloats = 12288;
  return shape.height * shape.width <= kSharedFloats;
}

void enqueue_plain_forward(const PsRoiShape& shape, const float* data, const float* rois,
                           float* output, void* stream);

// Where psroi_plain_fits.
void enqueue_plain_backward(const PsRoiShape& shape, const float* output_grad, const float* rois,
                            float* data_grad, void* stream);

}  // namespace sniper

#endif  // SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_PLAIN_CUH_

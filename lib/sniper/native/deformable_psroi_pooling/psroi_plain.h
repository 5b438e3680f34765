// PSROI pooling without offsets of few channels per group, as the position-sensitive score maps of
// R-FCN need it (Dai et al. 2016, section 2): every bin reads channels of its own, so that there is
// nothing to put side by side, and the taps of a row or column of bins serve all its bins. Straight
// from the map as it lies, with the bits of the general path.
#ifndef SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_PLAIN_H_
#define SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_PLAIN_H_

#include <cstdint>

#include "deformable_psroi_pooling/deformable_psroi_pooling.h"

namespace sniper {

constexpr int kPsRoiPlainChannels = 8;  // of the output; more fill the lanes of the general path
constexpr int kPsRoiPlainSamples = 4;   // per side of a bin

SNIPER_HOST_DEVICE bool psroi_is_plain(const PsRoiShape& shape, bool with_offsets) {
  return !with_offsets && shape.output_dim <= kPsRoiPlainChannels &&
         shape.samples <= kPsRoiPlainSamples;
}

// Taps of a row or a column of bins.
struct PsRoiLine {
  PsRoiTap taps[2 * kPsRoiPlainSamples];
  int count, valid_samples;
};

SNIPER_HOST_DEVICE PsRoiLine psroi_line(int bin, float start, float side, int64_t size,
                                        const PsRoiShape& shape) {
  PsRoiLine line;
  const float bin_size = side / shape.pooled;
  line.count = psroi_axis(static_cast<float>(bin) * bin_size + start, bin_size, shape.samples, size,
                          line.taps, &line.valid_samples);
  return line;
}

SNIPER_HOST_DEVICE PsRoiLine psroi_row(int ph, const PsRoiFrame& frame, const PsRoiShape& shape) {
  return psroi_line(ph, frame.start_y, frame.height, shape.height, shape);
}

SNIPER_HOST_DEVICE PsRoiLine psroi_column(int pw, const PsRoiFrame& frame,
                                          const PsRoiShape& shape) {
  return psroi_line(pw, frame.start_x, frame.width, shape.width, shape);
}

// 1 / samples of the bin that count, 0 when there are none.
SNIPER_HOST_DEVICE float psroi_inverse_count(const PsRoiLine& row, const PsRoiLine& column) {
  const float count =
      static_cast<float>(column.valid_samples) * static_cast<float>(row.valid_samples);
  return count > 0.0f ? 1.0f / count : 0.0f;
}

// psroi_forward_cpu and psroi_backward_cpu where psroi_is_plain.
void psroi_plain_forward_cpu(const PsRoiShape& shape, const float* data, const float* rois,
                             float* output);
void psroi_plain_backward_cpu(const PsRoiShape& shape, const float* output_grad, const float* rois,
                              float* data_grad);

}  // namespace sniper

#endif  // SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_PLAIN_H_

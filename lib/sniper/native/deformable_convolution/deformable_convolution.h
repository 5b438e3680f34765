// Deformable convolution (Dai et al. 2017, section 2.1) on the CPU, with the numbers of MXNet's
// contrib.DeformableConvolution. On GPUs networks keep that operator.
#ifndef SNIPER_NATIVE_DEFORMABLE_CONVOLUTION_DEFORMABLE_CONVOLUTION_H_
#define SNIPER_NATIVE_DEFORMABLE_CONVOLUTION_DEFORMABLE_CONVOLUTION_H_

#include <cmath>
#include <cstdint>

#include "common/macros.h"

namespace sniper {

// One axis of the window: y or x.
struct DeformableAxis {
  std::int64_t in, out;  // cells of the map and of the output
  std::int64_t kernel, stride, pad, dilate;
};

// A deformable convolution and its tensors, float32 and dense:
//   data    images x channels x y.in x x.in
//   offset  images x (groups x y.kernel x x.kernel x (y, x)) x y.out x x.out, in cells
//   weight  filters x (channels / conv_groups) x y.kernel x x.kernel
//   bias    filters
//   output  images x filters x y.out x x.out
struct DeformableShape {
  std::int64_t images, channels, filters;
  std::int64_t groups;       // of channels that share their offsets; divides channels
  std::int64_t conv_groups;  // of channels and filters; divides both
  DeformableAxis y, x;

  std::int64_t taps() const { return y.kernel * x.kernel; }
  std::int64_t cells_in() const { return y.in * x.in; }
  std::int64_t cells_out() const { return y.out * x.out; }
};

// Cells of the output along an axis; less than 1 where the window does not fit.
inline std::int64_t deformable_cells(const DeformableAxis& axis) {
  return (axis.in + 2 * axis.pad - (axis.dilate * (axis.kernel - 1) + 1)) / axis.stride + 1;
}

// Where a tap reads along an axis: `low` and its neighbour, with weights 1 - fraction and fraction.
struct DeformablePlace {
  std::int32_t low;   // -1: outside of the map, the value is 0
  std::int32_t step;  // to the neighbour: 1, or 0 in the last cell
  float fraction;
};

// 2018 behaviour: a sample in [in - 1, in) has the value of the last cell, one outside of [0, in)
// counts 0. An offset that is not finite lies outside.
SNIPER_ALWAYS_INLINE DeformablePlace deformable_place(const DeformableAxis& axis, std::int64_t cell,
                                                      std::int64_t tap, float offset) {
  const std::int64_t start = cell * axis.stride - axis.pad;
  const float position = static_cast<float>(start + tap * axis.dilate) + offset;
  if (!(position >= 0.0f && position < static_cast<float>(axis.in))) return {-1, 0, 0.0f};
  // From the window's own start, as MXNet rounds it.
  const float place = static_cast<float>(tap * axis.dilate) + offset;
  const float floor = std::floor(place);
  const std::int64_t low = start + static_cast<std::int64_t>(floor);
  if (low >= axis.in - 1) return {static_cast<std::int32_t>(axis.in - 1), 0, 0.0f};
  // Rounding may have moved a position across 0.
  if (low < 0) return {0, 0, 0.0f};
  return {static_cast<std::int32_t>(low), 1, place - floor};
}

// `bias` may be null.
void deformable_convolution_cpu(const DeformableShape& shape, const float* data,
                                const float* offset, const float* weight, const float* bias,
                                float* output);

// The gradients of data, offset, weight and bias (null without bias). The same bits for any number
// of threads.
void deformable_gradients_cpu(const DeformableShape& shape, const float* output_grad,
                              const float* data, const float* offset, const float* weight,
                              float* data_grad, float* offset_grad, float* weight_grad,
                              float* bias_grad);

// What the convolution multiplies by its weights: `columns`, images x (channels x taps) x y.out x
// x.out. `filters` and `conv_groups` have no effect.
void deformable_columns_cpu(const DeformableShape& shape, const float* data, const float* offset,
                            float* columns);

}  // namespace sniper

#endif  // SNIPER_NATIVE_DEFORMABLE_CONVOLUTION_DEFORMABLE_CONVOLUTION_H_

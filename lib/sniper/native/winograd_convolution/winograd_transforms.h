// The linear maps of F(4x4, 3x3) along one axis, with the interpolation points 0, 1, -1, 2, -2 and
// infinity. Along both axes they turn a 6x6 patch or a 3x3 filter into 36 numbers, whose products,
// summed over the channels, become a 4x4 tile of the output.
//
// `Vector` is a float or several; arrays go from `from` by `step`.
#ifndef SNIPER_NATIVE_WINOGRAD_CONVOLUTION_WINOGRAD_TRANSFORMS_H_
#define SNIPER_NATIVE_WINOGRAD_CONVOLUTION_WINOGRAD_TRANSFORMS_H_

#include "common/macros.h"

namespace sniper {

constexpr int kWinogradTile = 4;   // cells of the output along an axis
constexpr int kWinogradPatch = 6;  // cells of the map under them
constexpr int kWinogradProducts = kWinogradPatch * kWinogradPatch;

template <class Vector>
SNIPER_ALWAYS_INLINE void winograd_patch(const Vector (&in)[6], Vector (&out)[6]) {
  const Vector even = in[4] - 4.0f * in[2], odd = in[3] - 4.0f * in[1];
  const Vector outer = in[4] - in[2], inner = 2.0f * (in[3] - in[1]);
  out[0] = (4.0f * in[0] - 5.0f * in[2]) + in[4];
  out[1] = even + odd;
  out[2] = even - odd;
  out[3] = outer + inner;
  out[4] = outer - inner;
  out[5] = (4.0f * in[1] - 5.0f * in[3]) + in[5];
}

template <class Vector>
SNIPER_ALWAYS_INLINE void winograd_filter(const Vector (&in)[3], Vector (&out)[6]) {
  const Vector ends = (-1.0f / 6) * (in[0] + in[2]), middle = (1.0f / 6) * in[1];
  const Vector far = (1.0f / 24) * in[0] + (1.0f / 6) * in[2], near = (1.0f / 12) * in[1];
  out[0] = 0.25f * in[0];
  out[1] = ends - middle;
  out[2] = ends + middle;
  out[3] = far + near;
  out[4] = far - near;
  out[5] = in[2];
}

template <class Vector>
SNIPER_ALWAYS_INLINE void winograd_tile(const Vector (&in)[6], Vector (&out)[4]) {
  const Vector sum = in[1] + in[2], difference = in[1] - in[2];
  const Vector far_sum = in[3] + in[4], far_difference = in[3] - in[4];
  out[0] = (in[0] + sum) + far_sum;
  out[1] = difference + 2.0f * far_difference;
  out[2] = sum + 4.0f * far_sum;
  out[3] = (difference + 8.0f * far_difference) + in[5];
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_WINOGRAD_CONVOLUTION_WINOGRAD_TRANSFORMS_H_

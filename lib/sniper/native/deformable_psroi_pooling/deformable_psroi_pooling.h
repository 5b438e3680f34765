// Arithmetic of deformable position-sensitive RoI pooling (Dai et al. 2017, section 2.2), with the
// roundings of the stock MXNet operator.
//
// A bin is the mean of samples x samples bilinear reads on a regular grid. Whether a sample counts
// and how it weighs its pixels separates into x and y, so a bin is described by two short lists of
// taps: sum over samples = sum_y sum_x weight_y * weight_x * map[y][x]. The derivative with respect
// to the bin's offset uses the same lists with `slope` in the place of `weight` on one axis.
#ifndef SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_H_
#define SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_H_

#include <cmath>
#include <cstdint>

#include "common/macros.h"
#include "common/range.h"

namespace sniper {

constexpr Range kPsRoiCellRange = {1, 1024};  // keeps every product of sizes far from overflow
constexpr Range kPsRoiChannelRange = {1, 1 << 24};
constexpr Range kPsRoiScaleRange = {1e-6, 1e6};

// Sizes of one call. `classes` is the number of offset fields (1 without offsets).
struct PsRoiShape {
  int64_t images, height, width;  // data: (images, output_dim * group * group, height, width)
  int64_t rois;                   // rois: (rois, 5) batch index, x1, y1, x2, y2 in image px
  int64_t output_dim;             // output: (rois, output_dim, pooled, pooled)
  int group, pooled, part, samples;
  int64_t classes;  // trans: (rois, 2 * classes, part, part)
  float spatial_scale, trans_std;

  SNIPER_HOST_DEVICE int64_t bins() const { return static_cast<int64_t>(pooled) * pooled; }
  SNIPER_HOST_DEVICE int64_t channels() const { return output_dim * group * group; }
  SNIPER_HOST_DEVICE int64_t class_channels() const { return output_dim / classes; }
};

// One pixel of one axis: its total bilinear weight, and the derivative of it with respect to a
// shift of the bin.
struct PsRoiTap {
  int32_t index;
  float weight, slope;
};

// A RoI on the feature map. `image` is -1 when the batch index is not one of the batch.
struct PsRoiFrame {
  int64_t image;
  float start_x, start_y, width, height;
};

SNIPER_HOST_DEVICE PsRoiFrame psroi_frame(const float* roi, const PsRoiShape& shape) {
  PsRoiFrame frame;
  // Written so that NaN fails the test too.
  const bool inside = roi[0] > -1.0f && roi[0] < static_cast<float>(shape.images);
  frame.image = inside ? static_cast<int64_t>(roi[0]) : -1;
  frame.start_x = roundf(roi[1]) * shape.spatial_scale - 0.5f;
  frame.start_y = roundf(roi[2]) * shape.spatial_scale - 0.5f;
  const float end_x = (roundf(roi[3]) + 1.0f) * shape.spatial_scale - 0.5f;
  const float end_y = (roundf(roi[4]) + 1.0f) * shape.spatial_scale - 0.5f;
  frame.width = fmaxf(end_x - frame.start_x, 0.1f);
  frame.height = fmaxf(end_y - frame.start_y, 0.1f);
  return frame;
}

// Cell of the offset field (part x part) that shifts row or column `bin` of the output.
SNIPER_HOST_DEVICE int psroi_part(int bin, const PsRoiShape& shape) {
  return static_cast<int>(floorf(static_cast<float>(bin) / shape.pooled * shape.part));
}

// Channel group (0 .. group - 1) that row or column `bin` of the output reads.
SNIPER_HOST_DEVICE int psroi_group(int bin, const PsRoiShape& shape) {
  const int group = static_cast<int>(floorf(static_cast<float>(bin) * shape.group / shape.pooled));
  return group < 0 ? 0 : (group > shape.group - 1 ? shape.group - 1 : group);
}

// Adds one pixel to a list of taps. Samples ascend, so a pixel met before is one of the last two.
SNIPER_HOST_DEVICE int psroi_add_tap(PsRoiTap* taps, int count, int32_t index, float weight,
                                     float slope) {
  for (int back = 1; back <= 2 && back <= count; ++back) {
    if (taps[count - back].index == index) {
      taps[count - back].weight += weight;
      taps[count - back].slope += slope;
      return count;
    }
  }
  taps[count].index = index;
  taps[count].weight = weight;
  taps[count].slope = slope;
  return count + 1;
}

// Taps of one axis of a bin that begins at `start` (feature px) and is `bin_size` long.
// `taps` has room for 2 * samples. Samples outside (-1/2, size - 1/2), NaN included, are skipped;
// the others are clamped to the map. Writes the number of samples that count, returns the taps'.
SNIPER_HOST_DEVICE int psroi_axis(float start, float bin_size, int samples, int64_t size,
                                  PsRoiTap* taps, int* valid_samples) {
  const float step = bin_size / samples;
  const float last = static_cast<float>(size) - 1.0f;
  int count = 0, valid = 0;
  for (int k = 0; k < samples; ++k) {
    float position = start + k * step;
    if (!(position >= -0.5f && position <= static_cast<float>(size) - 0.5f)) continue;
    position = fminf(fmaxf(position, 0.0f), last);
    const float low = floorf(position);
    const float fraction = position - low;
    const int32_t index = static_cast<int32_t>(low);
    ++valid;
    if (fraction > 0.0f) {
      count = psroi_add_tap(taps, count, index, 1.0f - fraction, -1.0f);
      count = psroi_add_tap(taps, count, index + 1, fraction, 1.0f);
    } else {
      count = psroi_add_tap(taps, count, index, 1.0f, 0.0f);
    }
  }
  *valid_samples = valid;
  return count;
}

// What a bin needs besides its taps.
struct PsRoiBin {
  int32_t taps_x, taps_y;  // numbers of taps
  int32_t group;           // gh * group + gw
  float inverse_count;     // 1 / samples that count, 0 when there are none
};

// Row `ph`, column `pw` of the bins of a RoI. `field` holds the offsets of the bin's class, all x
// before all y, or is null. `taps_x` and `taps_y` have room for 2 * samples each.
SNIPER_HOST_DEVICE PsRoiBin psroi_bin(const PsRoiFrame& frame, const PsRoiShape& shape, int ph,
                                      int pw, const float* field, PsRoiTap* taps_x,
                                      PsRoiTap* taps_y) {
  const float bin_width = frame.width / shape.pooled;
  const float bin_height = frame.height / shape.pooled;
  float x = static_cast<float>(pw) * bin_width + frame.start_x;
  float y = static_cast<float>(ph) * bin_height + frame.start_y;
  if (field) {
    const int64_t part_plane = static_cast<int64_t>(shape.part) * shape.part;
    const int64_t cell =
        static_cast<int64_t>(psroi_part(ph, shape)) * shape.part + psroi_part(pw, shape);
    x += field[cell] * shape.trans_std * frame.width;
    y += field[part_plane + cell] * shape.trans_std * frame.height;
  }
  PsRoiBin bin;
  int valid_x = 0, valid_y = 0;
  bin.taps_x = psroi_axis(x, bin_width, shape.samples, shape.width, taps_x, &valid_x);
  bin.taps_y = psroi_axis(y, bin_height, shape.samples, shape.height, taps_y, &valid_y);
  const float count = static_cast<float>(valid_x) * static_cast<float>(valid_y);
  bin.inverse_count = count > 0.0f ? 1.0f / count : 0.0f;
  bin.group = psroi_group(ph, shape) * shape.group + psroi_group(pw, shape);
  return bin;
}

// Gradient of an offset from the derivative with respect to a shift of the bin; `side` is the
// RoI's width or height. A RoI of infinite size has no samples, and 0 * infinity must not be added.
SNIPER_HOST_DEVICE float psroi_offset_grad(float shift, float side, const PsRoiShape& shape) {
  return shift != 0.0f ? shift * shape.trans_std * side : 0.0f;
}

// Pools `rois` from `data` into `output`. `trans` may be null. Rows with a batch index outside the
// batch give zeros.
void psroi_forward_cpu(const PsRoiShape& shape, const float* data, const float* rois,
                       const float* trans, float* output);

// Overwrites `data_grad` and, when `trans` is not null, `trans_grad`. The result does not depend
// on the number of threads.
void psroi_backward_cpu(const PsRoiShape& shape, const float* output_grad, const float* data,
                        const float* rois, const float* trans, float* data_grad, float* trans_grad);

}  // namespace sniper

#endif  // SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_H_

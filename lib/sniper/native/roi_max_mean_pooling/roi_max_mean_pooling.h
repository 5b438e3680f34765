// ROIMaxMeanPooling: RoI max-pooling (Girshick 2015, section 2.1) followed by the mean over the
// bins, in one pass: (R, C) without the (R, C, bins, bins) between the two, which for the 3130
// classes of R-FCN-3000 and 1800 RoIs has 1.1 GB, and as much again of argmax. Roundings and ties
// are those of MXNet's ROIPooling. Backward looks for the maxima again instead of keeping them.
#ifndef SNIPER_NATIVE_ROI_MAX_MEAN_POOLING_ROI_MAX_MEAN_POOLING_H_
#define SNIPER_NATIVE_ROI_MAX_MEAN_POOLING_ROI_MAX_MEAN_POOLING_H_

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "common/macros.h"
#include "common/range.h"

namespace sniper {

constexpr Range kPooledSizeRange = {1, 64};
constexpr Range kRoiScaleRange = {1e-6, 1e6};
constexpr float kLargestCell = 1e8f;    // of a corner, in cells of the map
constexpr float kNoMaximum = -FLT_MAX;  // every value is larger
constexpr std::int32_t kNoPixel = -1;   // argmax of a bin without a value

struct RoiMaxMeanParams {
  std::int64_t images, channels, height, width;  // data
  std::int64_t rois;                             // (rois, 5) image, x1, y1, x2, y2 in px
  int pooled;                                    // bins per side
  float spatial_scale;                           // cells per px

  SNIPER_HOST_DEVICE int bins() const { return pooled * pooled; }
  SNIPER_HOST_DEVICE std::int64_t pixels() const { return height * width; }
};

// A RoI in cells of the map. `image` is -1 when the RoI is not finite, far out, or of no image.
struct RoiOnMap {
  std::int64_t image;
  std::int32_t x, y;
  float bin_width, bin_height;
};

SNIPER_HOST_DEVICE RoiOnMap roi_on_map(const float* roi, const RoiMaxMeanParams& params) {
  // Written so that NaN fails the tests too.
  bool usable = roi[0] > -1.0f && roi[0] < static_cast<float>(params.images);
  float corner[4];
  for (int k = 0; k < 4; ++k) {
    corner[k] = roundf(roi[1 + k] * params.spatial_scale);
    usable = usable && fabsf(corner[k]) <= kLargestCell;
  }
  if (!usable) return {-1, 0, 0, 0.0f, 0.0f};
  const std::int32_t x = static_cast<std::int32_t>(corner[0]);
  const std::int32_t y = static_cast<std::int32_t>(corner[1]);
  const std::int32_t width = static_cast<std::int32_t>(corner[2]) - x + 1;
  const std::int32_t height = static_cast<std::int32_t>(corner[3]) - y + 1;
  return {static_cast<std::int64_t>(roi[0]), x, y,
          static_cast<float>(width > 1 ? width : 1) / static_cast<float>(params.pooled),
          static_cast<float>(height > 1 ? height : 1) / static_cast<float>(params.pooled)};
}

// Cells first .. end - 1 of one axis.
struct BinCells {
  std::int32_t first, end;
};

// Those of bin `bin`; `start` is the RoI's first cell, `size` the map's.
SNIPER_HOST_DEVICE BinCells bin_cells(int bin, std::int32_t start, float bin_size,
                                       std::int64_t size) {
  const std::int32_t limit = static_cast<std::int32_t>(size);
  const std::int32_t first =
      start + static_cast<std::int32_t>(floorf(static_cast<float>(bin) * bin_size));
  const std::int32_t end =
      start + static_cast<std::int32_t>(ceilf(static_cast<float>(bin + 1) * bin_size));
  return {first < 0 ? 0 : (first > limit ? limit : first),
          end < 0 ? 0 : (end > limit ? limit : end)};
}

// data (images, channels, height, width), rois (rois, 5); writes output (rois, channels). A bin
// without a cell of the map counts as 0, a value that is no number as none.
void roi_max_mean_forward_cpu(const RoiMaxMeanParams& params, const float* data, const float* rois,
                              float* output);

// Overwrites data_grad. Of equal maxima the first one, row by row, takes the gradient. The result
// does not depend on the number of threads.
void roi_max_mean_backward_cpu(const RoiMaxMeanParams& params, const float* output_grad,
                               const float* data, const float* rois, float* data_grad);

}  // namespace sniper

#endif  // SNIPER_NATIVE_ROI_MAX_MEAN_POOLING_ROI_MAX_MEAN_POOLING_H_

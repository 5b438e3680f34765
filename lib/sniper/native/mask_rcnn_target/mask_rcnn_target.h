// MaskRcnnTarget: rasterised mask targets of positive rois (2018 behaviour).
//
// A polygon becomes the pixels that the COCO polygon-to-RLE routine gives it. That routine traces
// the boundary in integer steps on a lattice five times finer than the mask, and a pixel is inside
// when the boundary crosses its scan row an odd number of times at or before it. Every scan row is
// crossed an even number of times, so rows are independent, and an edge is a closed-form function
// of the row that it crosses: nothing is traced, sorted or run-length encoded, and an edge costs
// the rows inside the mask that it crosses, however long it is.
#ifndef SNIPER_NATIVE_MASK_RCNN_TARGET_MASK_RCNN_TARGET_H_
#define SNIPER_NATIVE_MASK_RCNN_TARGET_MASK_RCNN_TARGET_H_

#include <cstdint>

#include "common/box.h"
#include "common/macros.h"
#include "common/range.h"

namespace sniper {

constexpr Range kMaskSizeRange = {1, 1024};  // px
constexpr Range kIgnoreLabelRange = {-1e6, 1e6};
constexpr std::int64_t kMaxMaskPixels = 1 << 29;  // of all masks

constexpr int kMaskLattice = 5;       // lattice steps per pixel
constexpr double kMaskFar = 1 << 29;  // lattice coordinates saturate here: differences fit int32

// Plain data; every size comes from a shape.
struct MaskRcnnTargetParams {
  std::int64_t num_rois;    // rows of rois and mask_ids
  std::int64_t num_images;  // mask_polys is (num_images, num_polygons, row_length)
  std::int64_t num_polygons;
  std::int64_t row_length;
  int mask_size;       // px; the targets are mask_size x mask_size
  float ignore_label;  // target of every pixel of a roi without a usable polygon
};

// The polygon of a roi: one row of mask_polys, which holds
//     class - 1, n, length_1 .. length_n, x, y, x, y, ... (all segments), padding.
struct MaskPolygon {
  const float* lengths;  // numbers (twice the vertices) of each segment
  const float* points;   // x, y in image px, segment after segment
  int segments;          // 0: nothing to rasterise, the target is ignored
  float cls;             // class - 1
};

// The integer that `value` is, when it lies in [low, high]; else -1. NaN and fractions give -1.
SNIPER_HOST_DEVICE std::int64_t mask_integer(float value, std::int64_t low, std::int64_t high) {
  if (!(value >= static_cast<float>(low) && value <= static_cast<float>(high))) return -1;
  const std::int64_t whole = static_cast<std::int64_t>(value);
  return static_cast<float>(whole) == value && whole <= high ? whole : -1;
}

// Finds and checks the polygon of a roi. A roi that is not finite, an image or polygon that does
// not exist, a negative class, a number of segments below 1 (padding has -1), and lengths that are
// odd or exceed the row give a polygon with 0 segments; nothing outside the row is ever read.
SNIPER_HOST_DEVICE MaskPolygon mask_polygon(const MaskRcnnTargetParams& params,
                                            const float* mask_polys, const float* roi, float id) {
  const MaskPolygon none = {nullptr, nullptr, 0, 0.0f};
  const std::int64_t image = mask_integer(roi[0], 0, params.num_images - 1);
  const std::int64_t polygon = mask_integer(id, 0, params.num_polygons - 1);
  if (image < 0 || polygon < 0 || params.row_length < 2) return none;
  if (!is_finite(Box{roi[1], roi[2], roi[3], roi[4]})) return none;
  const float* row = mask_polys + (image * params.num_polygons + polygon) * params.row_length;
  const std::int64_t segments = mask_integer(row[1], 1, params.row_length - 2);
  if (segments < 0 || !(row[0] >= 0.0f && is_finite(row[0]))) return none;
  std::int64_t room = params.row_length - 2 - segments;
  for (std::int64_t i = 0; i < segments; ++i) {
    const std::int64_t length = mask_integer(row[2 + i], 2, room);
    if (length < 0 || length % 2 != 0) return none;
    room -= length;
  }
  return {row + 2, row + 2 + segments, static_cast<int>(segments), row[0]};
}

// Where a roi lies in its image; sides are at least 1 px.
struct MaskFrame {
  float x1, y1, width, height;
};

SNIPER_HOST_DEVICE MaskFrame mask_frame(const float* roi) {
  return {roi[1], roi[2], larger(roi[3] - roi[1], 1.0f), larger(roi[4] - roi[2], 1.0f)};
}

// A polygon vertex on the lattice, and the number of scan rows that lie before it.
struct MaskVertex {
  std::int32_t row, column;
  std::int32_t rows_before;
};

// Pixels whose start lies at or before a lattice coordinate: scan row (or column) k begins between
// the lattice coordinates 5 k + 2 and 5 k + 3.
SNIPER_HOST_DEVICE std::int32_t mask_pixels_before(std::int32_t lattice, int mask_size) {
  if (lattice < 0) return 0;
  const std::int32_t pixels = (lattice + kMaskLattice / 2) / kMaskLattice;
  return pixels < mask_size ? pixels : mask_size;
}

// Lattice coordinate of a mask coordinate, truncated towards zero; NaN gives the lower bound.
SNIPER_HOST_DEVICE std::int32_t mask_lattice(float pixel) {
  const double lattice = static_cast<double>(pixel) * kMaskLattice + 0.5;
  const double above = lattice > -kMaskFar ? lattice : -kMaskFar;
  return static_cast<std::int32_t>(above < kMaskFar ? above : kMaskFar);
}

// Maps a point from image px to the lattice; false when it is not finite there, which makes the
// whole target ignored (the vertex is then defined, but meaningless).
SNIPER_HOST_DEVICE bool mask_vertex(const MaskFrame& frame, int mask_size, float x, float y,
                                    MaskVertex* vertex) {
  const float column = (x - frame.x1) * mask_size / frame.width;
  const float row = (y - frame.y1) * mask_size / frame.height;
  vertex->row = mask_lattice(row);
  vertex->column = mask_lattice(column);
  vertex->rows_before = mask_pixels_before(vertex->row, mask_size);
  return is_finite(column) & is_finite(row);
}

// Whether the edge between two vertices crosses scan row `row`.
SNIPER_HOST_DEVICE bool mask_crosses(const MaskVertex& a, const MaskVertex& b, int row) {
  return (a.rows_before <= row) != (b.rows_before <= row);
}

// Whether `step` of a column-stepping edge lies beyond its crossing of the lattice row `above`:
// false up to some step, true from there on.
SNIPER_HOST_DEVICE bool mask_step_beyond(const MaskVertex& low, double slope, std::int32_t above,
                                         std::int32_t step) {
  return (low.row + slope * step + 0.5 >= above) == (slope > 0.0);
}

// Lattice column where an edge that steps along the columns (low.column < high.column) crosses the
// lattice row `above`: the last step before its rounded row reaches it (rising edge) or falls below
// it.
SNIPER_HOST_DEVICE std::int32_t mask_column_of_step(const MaskVertex& low, const MaskVertex& high,
                                                    std::int32_t above) {
  const std::int32_t steps = high.column - low.column;
  const double slope = static_cast<double>(high.row - low.row) / steps;
  // The quotient is right up to a rounding. Bisection covers edges so long and flat that one
  // rounding of the row is many steps.
  const double guess = (above - 0.5 - low.row) / slope;
  std::int32_t after = guess > 1.0 ? (guess < steps ? static_cast<std::int32_t>(guess) : steps) : 1;
  if (!mask_step_beyond(low, slope, above, after)) ++after;
  std::int32_t before = after - 1;
  if (after > steps || !mask_step_beyond(low, slope, above, after) ||
      mask_step_beyond(low, slope, above, before)) {
    before = 0;
    after = steps;
    while (after - before > 1) {
      const std::int32_t middle = before + (after - before) / 2;
      (mask_step_beyond(low, slope, above, middle) ? after : before) = middle;
    }
  }
  return low.column + before;
}

// The pixel of scan row `row` (0 .. mask_size - 1) from which on the edge toggles the mask;
// mask_size when it lies to the right of it. The edge must cross the row.
SNIPER_HOST_DEVICE int mask_crossing(const MaskVertex& a, const MaskVertex& b, int row,
                                     int mask_size) {
  const std::int32_t height = a.row < b.row ? b.row - a.row : a.row - b.row;
  const std::int32_t width = a.column < b.column ? b.column - a.column : a.column - b.column;
  const std::int32_t last_before = kMaskLattice * row + kMaskLattice / 2;
  if (height < width) {
    const bool ordered = a.column < b.column;
    const std::int32_t column =
        mask_column_of_step(ordered ? a : b, ordered ? b : a, last_before + 1);
    return mask_pixels_before(column, mask_size);
  }
  const MaskVertex& low = a.row < b.row ? a : b;
  const MaskVertex& high = a.row < b.row ? b : a;
  const double slope = static_cast<double>(high.column - low.column) / height;
  // Of the two steps around the crossing the one with the smaller column counts.
  const std::int32_t step = last_before - low.row + (slope < 0.0 ? 1 : 0);
  const double column = low.column + slope * step + 0.5;
  return column < 0.0 ? 0 : mask_pixels_before(static_cast<std::int32_t>(column), mask_size);
}

// rois (R, 5) = image, x1, y1, x2, y2 in image px, mask_polys (N, G, L), mask_ids (R) = polygon
// rows or -1. Writes targets and classes, both (R, mask_size, mask_size): 0 or 1 and the polygon's
// class - 1; the targets of a roi without a usable polygon are ignore_label and its classes 0.
void mask_rcnn_target_cpu(const MaskRcnnTargetParams& params, const float* rois,
                          const float* mask_polys, const float* mask_ids, float* targets,
                          float* classes);

}  // namespace sniper

#endif  // SNIPER_NATIVE_MASK_RCNN_TARGET_MASK_RCNN_TARGET_H_

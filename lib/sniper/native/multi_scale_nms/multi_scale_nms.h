// Merging of detections from several pyramid levels: valid-range filter, then Gaussian soft-NMS
// (Bodla et al. 2017) or hard NMS per image and class (2018 behaviour).
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_H_

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/box.h"
#include "common/macros.h"
#include "common/range.h"

namespace sniper {

constexpr Range kSigmaRange = {1e-6, 1e6};
constexpr Range kMergeThresholdRange = {-1e6, 1};  // IoU; what is not above 0 selects soft-NMS
constexpr Range kMinScoreRange = {-1e30, 1e30};

// Floats per detection: x1, y1, x2, y2, score.
constexpr int64_t kDetection = 5;

// Whether a box belongs to a level whose valid range is [low, high] px of square-root area (sides
// without +1, image px). A bound that is not positive is no bound.
SNIPER_HOST_DEVICE bool in_valid_range(const Box& box, float low, float high) {
  const float area = area_plain(box);
  return (!(low > 0.0f) || area > low * low) && (!(high > 0.0f) || area <= high * high);
}

// Overlap with a selected box multiplies a score by exp(-overlap^2 / sigma); this is the positive
// exponent, capped so that the power stays a normal number.
SNIPER_HOST_DEVICE float soft_exponent(float overlap, float inverse_sigma) {
  return smaller(overlap * overlap * inverse_sigma, 87.0f);
}

// Overlap (IoU) of a row with a selected one, from the intersection and the areas (+1 sides); 0 for
// an empty union.
SNIPER_HOST_DEVICE float soft_overlap(float inter, float chosen_area, float area) {
  const float ratio = inter / (chosen_area + area - inter);
  return ratio > 0.0f ? ratio : 0.0f;
}

constexpr float kMaxNmsIndex = 16777216.0f;  // float32 counts exactly up to here

// The level, class or image that a float32 tensor of the graph holds; -1 for anything but an
// integer from 0 to kMaxNmsIndex.
SNIPER_HOST_DEVICE int32_t nms_index(float value) {
  if (!(value >= 0.0f && value <= kMaxNmsIndex)) return -1;
  const int32_t index = static_cast<int32_t>(value);
  return static_cast<float>(index) == value ? index : -1;
}

struct NmsSettings {
  float sigma;          // of soft-NMS; used when nms_threshold <= 0
  float nms_threshold;  // of hard NMS; used when > 0
  float min_score;      // soft-NMS drops a row whose decayed score is lower
};

// Detections of one image at one level.
struct NmsPart {
  const float* dets;       // (count, 5), image px
  const int32_t* classes;  // (count,)
  int64_t count;
  int32_t level;  // row of valid_ranges
  int32_t image;
};

struct NmsRequest {
  const NmsPart* parts;  // their rows are numbered one after the other
  int64_t num_parts;
  const float* valid_ranges;  // (num_levels, 2)
  int64_t num_levels;
  NmsSettings settings;
  int64_t max_per_image;  // <= 0: no limit
};

// Of all detections that are left; everything has room for all rows of the request.
struct NmsResult {
  float* dets;       // (n, 5)
  int32_t* classes;  // (n,)
  int32_t* images;   // (n,)
  int64_t* rows;     // (n,) the row of the request that it was, or null
  int32_t* parts;    // (n,) the part that this row is in, or null
};

// One call of the graph's operator.
struct MultiScaleNmsParams {
  int64_t count, num_levels;
  NmsSettings settings;
  int64_t max_per_image;  // <= 0: no limit
};

// Gaussian soft-NMS of one class: rows in the order of selection, in place. Returns how many.
//
// Repeatedly the row with the highest score (the first one on ties) changes places with the first
// remaining row; every later row that overlaps it decays by exp(-overlap^2 / sigma), and when its
// score falls below min_score the last row takes its place.
// Rows that are not finite are dropped first. `sources`, if there is one, gets for each row the one
// that it was on input; it has room for `count`. With a `limit` > 0 rows may be left out whose
// scores are lower than the limit-th: who keeps the best `limit` only need not wait for them.
// Throws std::invalid_argument for 2^31 rows.
int64_t soft_nms_cpu(float* dets, int64_t count, float sigma, float min_score,
                     int64_t* sources = nullptr, int64_t limit = 0);

// Greedy NMS of one class: the kept rows, best first, ties by row; at most `max_output` when that
// is not negative. A row is suppressed when its IoU (+1 sides) with a kept row is greater than
// `threshold`. Rows that are not finite are dropped.
std::vector<int64_t> hard_nms_cpu(const float* dets, int64_t count, float threshold,
                                  int64_t max_output);

// Rows as parts: runs of one level and image. Arrays as of the parts, and (count,) indices.
std::vector<NmsPart> nms_parts(const float* dets, const int32_t* levels, const int32_t* classes,
                               const int32_t* images, int64_t count);

// Filters, suppresses and limits the detections of many images and classes. What is left is grouped
// by image, then class, then order of selection. Returns how many. Rows that are not finite are
// dropped. The limit keeps, per image, the scores >= the max_per_image-th largest, so ties may
// exceed it. Throws std::invalid_argument on a level without a valid range.
int64_t multi_scale_nms_cpu(const NmsRequest& request, const NmsResult& result);

// The same for the graph, whose tensors have a fixed size and hold float32 only: dets (count, 5),
// levels, classes and images (count,), where a negative image is padding. Writes as many rows,
// padded with -1, and how many there are. Throws std::runtime_error when a number is no index.
void multi_scale_nms_padded_cpu(const MultiScaleNmsParams& params, const float* dets,
                                const float* levels, const float* classes, const float* images,
                                const float* valid_ranges, float* out_dets, float* out_classes,
                                float* out_images, float* out_count);

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_H_

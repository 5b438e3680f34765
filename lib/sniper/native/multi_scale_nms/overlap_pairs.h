// Which boxes overlap which.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_OVERLAP_PAIRS_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_OVERLAP_PAIRS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "multi_scale_nms/radix_sort.h"

namespace sniper {

// Two boxes, by their places.
struct OverlapPair {
  int32_t a, b;
};

// Boxes that a sweep has met in one band of the image, and may meet again.
struct SweepBand {
  static constexpr int32_t kMostActive = 512;
  alignas(64) float x2[kMostActive], y1[kMostActive], y2[kMostActive];
  int32_t place[kMostActive], first_band[kMostActive];
  int32_t count, full;  // boxes; how many make it worth to look for those that are passed
};

// The pairs of boxes that intersect, and some that only nearly do. Boxes get places in which
// neighbours in the image are neighbours: bands from top to bottom, each from left to right.
class OverlapPairs {
 public:
  // Searches `dets` (count > 0, 5: x1, y1, x2, y2, score), whose corners are finite. False, and
  // that early, where there are many pairs per box.
  bool find(const float* dets, int32_t count);

  // The row of `dets` that has a place.
  int32_t row(int32_t place) const { return rows_[at(place)]; }
  // Places of the boxes that overlap that of a place.
  const int32_t* begin(int32_t place) const { return others_.data() + begins_[at(place)]; }
  const int32_t* end(int32_t place) const { return others_.data() + begins_[at(place) + 1]; }

 private:
  static std::size_t at(int32_t index) { return static_cast<std::size_t>(index); }
  bool sweep(const float* dets, int32_t count, float top, float bottom);
  void group_by_place(int32_t count);

  std::vector<KeyedRow> by_x1_, sorted_;
  std::vector<SweepBand> bands_;
  std::vector<OverlapPair> pairs_;
  std::vector<int32_t> rows_;
  std::vector<int32_t> begins_, others_;  // those of place n: others_ from begins_[n] on
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_OVERLAP_PAIRS_H_

// Which boxes overlap which.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_OVERLAP_PAIRS_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_OVERLAP_PAIRS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "multi_scale_nms/radix_sort.h"

namespace sniper {

// Two boxes, by their rows.
struct OverlapPair {
  int32_t a, b;
};

// Boxes that a sweep has met in one band of the image, and may meet again.
struct SweepBand {
  static constexpr int32_t kMostActive = 512;
  alignas(64) float x2[kMostActive], y1[kMostActive], y2[kMostActive];
  int32_t row[kMostActive], first_band[kMostActive];
  int32_t count, full;  // boxes; how many make it worth to look for those that are passed
};

// The pairs of boxes that intersect, and some that only nearly do.
class OverlapPairs {
 public:
  // Searches `dets` (count > 0, 5: x1, y1, x2, y2, score), whose corners are finite. False, and
  // that early, where there are many pairs per box.
  bool find(const float* dets, int32_t count);

  const int32_t* begin(int32_t row) const { return others_.data() + begins_[at(row)]; }
  const int32_t* end(int32_t row) const { return others_.data() + begins_[at(row) + 1]; }

 private:
  static std::size_t at(int32_t index) { return static_cast<std::size_t>(index); }
  bool sweep(const float* dets, int32_t count, float top, float bottom);
  void group_by_row(int32_t count);

  std::vector<KeyedRow> by_x1_, sorted_;
  std::vector<SweepBand> bands_;
  std::vector<OverlapPair> pairs_;
  std::vector<int32_t> begins_, others_;  // rows that overlap row n: others_ from begins_[n] on
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_OVERLAP_PAIRS_H_

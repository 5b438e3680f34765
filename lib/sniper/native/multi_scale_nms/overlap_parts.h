// Boxes in parts that share no pixel.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_OVERLAP_PARTS_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_OVERLAP_PARTS_H_

#include <cstdint>
#include <vector>

#include "common/box.h"
#include "multi_scale_nms/radix_sort.h"

namespace sniper {

// The connected components of "intersects". Boxes that only nearly touch may get into one part.
class OverlapParts {
 public:
  // Cuts `dets` (count > 0, 5: x1, y1, x2, y2, score), whose corners are finite. False, and that
  // early, where the boxes lie too close for parts to be worth the search.
  bool find(const float* dets, int32_t count);

  int32_t count() const { return static_cast<int32_t>(begins_.size()) - 1; }
  int32_t size(int32_t part) const { return begins_[at(part) + 1] - begins_[at(part)]; }
  // Rows of a part, by x1.
  const int32_t* rows(int32_t part) const { return rows_.data() + begins_[at(part)]; }

 private:
  static std::size_t at(int32_t index) { return static_cast<std::size_t>(index); }

  std::vector<KeyedRow> items_, sorted_;
  std::vector<Box> boxes_;       // by x1
  std::vector<int32_t> parent_;  // of a box by x1: one before it in the same part, or itself
  std::vector<int32_t> part_, begins_, rows_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_OVERLAP_PARTS_H_

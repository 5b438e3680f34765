// Greedy non-maximum suppression against the kept boxes only (host).
#ifndef SNIPER_NATIVE_COMMON_NMS_H_
#define SNIPER_NATIVE_COMMON_NMS_H_

#include <vector>

#include "common/box.h"

namespace sniper {

// The boxes that a greedy pass has kept so far, as padded columns for SIMD. Offer the candidates
// best first:
//     KeptBoxes kept(threshold);
//     if (kept.offer(box, area_inclusive(box))) selected.push_back(row);
// A candidate is suppressed when intersection / union > threshold with any kept box. The
// intersection has +1 sides; the areas are the caller's, so that both 2018 conventions fit. A
// negative union (possible with plain areas of tiny boxes) suppresses nothing, as the 2018
// division did.
class KeptBoxes {
 public:
  explicit KeptBoxes(float threshold) : threshold_(threshold) {}

  int size() const { return count_; }
  // Forgets all boxes, keeps the memory.
  void reset(float threshold);
  // Whether a kept box with index >= `first` suppresses `box`. `first` lets a caller test against
  // the early boxes in parallel and against the late ones in order; it is rounded down to a block.
  bool suppresses(const Box& box, float area, int first = 0) const;
  void keep(const Box& box, float area);
  // Keeps the box unless it is suppressed; true when kept.
  bool offer(const Box& box, float area) {
    if (suppresses(box, area)) return false;
    keep(box, area);
    return true;
  }

 private:
  float threshold_;
  int count_ = 0;
  std::vector<float> columns_;  // blocks of 5 x kBlock: x1, y1, x2, y2, area
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_NMS_H_

// Greedy non-maximum suppression against the kept boxes only (host).
#ifndef SNIPER_NATIVE_COMMON_NMS_H_
#define SNIPER_NATIVE_COMMON_NMS_H_

#include <vector>

#include "common/box.h"

namespace sniper {

// The boxes that a greedy pass has kept so far, as padded columns for SIMD. Offer the candidates
// best first:
//     KeptBoxes kept;
//     kept.reset(threshold, false);
//     if (!kept.suppresses(box, area)) kept.keep(box, area);
// A candidate is suppressed when intersection / union > threshold with any kept box. The
// intersection has +1 sides; the areas are the caller's, so that both 2018 conventions fit. A
// negative union (possible with plain areas of tiny boxes) suppresses nothing, as the 2018
// division did.
class KeptBoxes {
 public:
  // Forgets all boxes, keeps the memory. `sort_by_area` spares a candidate the boxes whose size
  // alone rules suppression out: worth it for many boxes, and right only when the areas have +1
  // sides too (else a tiny intersection may exceed them).
  void reset(float threshold, bool sort_by_area);
  bool suppresses(const Box& box, float area) const;
  void keep(const Box& box, float area);

 private:
  struct Bin {
    int count = 0;
    std::vector<float> columns;  // blocks of 5 x kBlock: x1, y1, x2, y2, area
  };

  int bin_of(float area) const;

  float threshold_ = 0.0f;
  bool sort_by_area_ = false;
  std::vector<Bin> bins_;
  std::vector<int> used_;  // bins that hold boxes
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_NMS_H_

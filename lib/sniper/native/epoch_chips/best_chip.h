// Which chip of a level holds the largest share of a box. Private to this folder.
#ifndef SNIPER_NATIVE_BEST_CHIP_H_
#define SNIPER_NATIVE_BEST_CHIP_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "chip_generator/rect_grid.h"
#include "epoch_chips/epoch_chips.h"

namespace sniper {

// Without +1; negative where there is no overlap.
inline double overlap_width(const float* box, const ChipRect& rect) {
  return std::min<double>(box[2], rect[2]) - std::max<double>(box[0], rect[0]);
}

inline double overlap_height(const float* box, const ChipRect& rect) {
  return std::min<double>(box[3], rect[3]) - std::max<double>(box[1], rect[1]);
}

// Finds the chip that holds the largest share of a box. Keeps its memory from use to use.
class BestChip {
 public:
  // Of chips with sides of about `side` image px in an image.
  void reset(double width, double height, double side, const std::vector<ChipRect>& rects);

  // One of the chips that `reset` had, the first one of equals; -1 for a box of which none holds
  // anything (+1 convention).
  int32_t of(const float* box, const std::vector<ChipRect>& rects) const;

 private:
  RectGrid grid_;  // of many chips; few ones are compared one by one
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_BEST_CHIP_H_

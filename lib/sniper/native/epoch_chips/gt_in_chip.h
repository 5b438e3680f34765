// How many ground truth boxes a batch holds for a chip. Private to this folder.
#ifndef SNIPER_NATIVE_GT_IN_CHIP_H_
#define SNIPER_NATIVE_GT_IN_CHIP_H_

#include <cstdint>

#include "chip_generator/rect_grid.h"
#include "epoch_chips/epoch_chips.h"

namespace sniper {

// Looks at one record after the other and keeps its memory in between: one per thread.
class GtInChip {
 public:
  // `request` is kept by reference.
  explicit GtInChip(const EpochRequest& request) : request_(request) {}

  // Takes the ground truth of a record.
  void reset(const ChipRecord& record);

  // How many of its boxes sniper.targets.gt.gt_in_chip, which rounds and clips in float32, finds
  // large enough inside the chip at `rect` of a level with this factor.
  int32_t count(const ChipRect& rect, double factor) const;

 private:
  bool holds(const ChipRect& rect, float scale, const float* box) const;

  const EpochRequest& request_;
  ChipRecord record_{};
  RectGrid grid_;  // image px
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_GT_IN_CHIP_H_

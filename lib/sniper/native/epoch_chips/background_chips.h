// Where background chips lie: at candidates drawn by chance, of which other chips show little. All
// parts of the pyramid are about as likely: a level as often as chips fit into it.
#ifndef SNIPER_NATIVE_BACKGROUND_CHIPS_H_
#define SNIPER_NATIVE_BACKGROUND_CHIPS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "chip_generator/chip_generator.h"
#include "chip_generator/rect_grid.h"
#include "epoch_chips/epoch_chips.h"

namespace sniper {

// Draws chips in one image after the other and keeps its memory in between: one per thread.
class BackgroundChips {
 public:
  // Begins an image.
  void clear() { num_levels_ = 0; }

  // The next level of the image's pyramid; its chips are `rects`.
  void add_level(const ChipRequest& request, const std::vector<ChipRect>& rects);

  // One more chip, which counts as shown for those to come. False when none of a few candidates is
  // mostly new: the image is full.
  bool draw(uint64_t* random, int* level, ChipRect* rect);

 private:
  struct Level {
    ChipRequest request;
    ChipLattice lattice;
    std::vector<ChipRect> shown;
    RectGrid shown_grid;  // image px
    uint64_t weight;
  };

  double shown_area(const Level& level, const ChipRect& rect);
  int draw_level(uint64_t* random) const;

  std::vector<Level> levels_;  // more than num_levels_ keep their memory
  std::size_t num_levels_ = 0;
  std::vector<int32_t> near_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_BACKGROUND_CHIPS_H_

#include <cstddef>

#include "epoch_chips/best_chip.h"

namespace sniper {
namespace {

// So many chips are compared with a box one by one.
constexpr std::size_t kFewChips = 64;
// Image px around a box in which a chip that overlaps it (+1 convention) must begin or end.
constexpr double kOverlapMargin = 2;

// With +1, never negative.
double overlap_area(const float* box, const ChipRect& rect) {
  return std::max(overlap_width(box, rect) + 1, 0.0) * std::max(overlap_height(box, rect) + 1, 0.0);
}

}  // namespace

void BestChip::reset(double width, double height, double side, const std::vector<ChipRect>& rects) {
  if (rects.size() <= kFewChips) return;
  grid_.reset(width, height, side, rects.size());
  for (const ChipRect& rect : rects) grid_.add({rect[0], rect[1], rect[2], rect[3]});
}

int32_t BestChip::of(const float* box, const std::vector<ChipRect>& rects) const {
  const double area =
      (static_cast<double>(box[2]) - box[0] + 1) * (static_cast<double>(box[3]) - box[1] + 1);
  int32_t best = -1;
  double best_share = 0, best_overlap = 0;
  const auto compare = [&](int32_t k) {
    const double overlap = overlap_area(box, rects[static_cast<std::size_t>(k)]);
    // No larger overlap, no larger share: saves most of the divisions.
    if (k > best && overlap <= best_overlap) return;
    const double share = overlap / area;
    if (share < best_share || (share == best_share && k > best)) return;
    best = k;
    best_share = share;
    best_overlap = overlap;
  };
  if (rects.size() > kFewChips) {
    grid_.visit_near(widened(box, kOverlapMargin), compare);
  } else {
    const int32_t count = static_cast<int32_t>(rects.size());
    // No share is larger than that of a chip with the whole box.
    for (int32_t k = 0; k < count && (best < 0 || best_overlap < area); ++k) compare(k);
  }
  return best;
}

}  // namespace sniper

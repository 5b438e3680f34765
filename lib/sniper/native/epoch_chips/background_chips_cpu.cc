#include "epoch_chips/background_chips.h"

#include <algorithm>
#include <cmath>

namespace sniper {
namespace {

constexpr int kTries = 16;
// Of a new chip's area, that other chips of its level show at most.
constexpr double kMostShown = 0.5;

// Chips that cover one side of a level.
uint64_t chips_along(int64_t length_im, const ChipRequest& request) {
  const double length = static_cast<double>(length_im) * request.factor;
  const double chips = length / static_cast<double>(request.chip_size);
  return static_cast<uint64_t>(std::max(std::ceil(chips), 1.0));
}

double area_of(const ChipRect& rect) { return (rect[2] - rect[0]) * (rect[3] - rect[1]); }

double common_area(const ChipRect& a, const ChipRect& b) {
  const double width = std::min(a[2], b[2]) - std::max(a[0], b[0]);
  const double height = std::min(a[3], b[3]) - std::max(a[1], b[1]);
  return std::max(width, 0.0) * std::max(height, 0.0);
}

GridRect grid_rect(const ChipRect& rect) { return {rect[0], rect[1], rect[2], rect[3]}; }

}  // namespace

void BackgroundChips::add_level(const ChipRequest& request, const std::vector<ChipRect>& rects) {
  const uint64_t columns = chips_along(request.width_im, request);
  const uint64_t weight = columns * chips_along(request.height_im, request);
  if (levels_.size() == num_levels_) levels_.emplace_back();
  Level& level = levels_[num_levels_++];
  level.request = request;
  level.lattice = level_lattice(request);
  level.shown = rects;
  level.weight = weight;
  RectGrid& grid = level.shown_grid;
  const double chip = static_cast<double>(request.chip_size + 1) / request.factor;
  grid.reset(static_cast<double>(request.width_im), static_cast<double>(request.height_im), chip,
             rects.size() + static_cast<std::size_t>(weight));
  for (const ChipRect& rect : rects) grid.add(grid_rect(rect));
}

bool BackgroundChips::draw(uint64_t* random, int* level, ChipRect* rect) {
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const int index = draw_level(random);
    Level& drawn = levels_[static_cast<std::size_t>(index)];
    const uint64_t candidate = draw_below(static_cast<uint64_t>(drawn.lattice.count()), random);
    chip_to_image(drawn.request, drawn.lattice, static_cast<int64_t>(candidate), rect->data());
    if (!(shown_area(drawn, *rect) <= kMostShown * area_of(*rect))) continue;
    drawn.shown.push_back(*rect);
    drawn.shown_grid.add(grid_rect(*rect));
    *level = index;
    return true;
  }
  return false;
}

// Summed in the order in which the chips were added: sums in another order differ in the last bit.
double BackgroundChips::shown_area(const Level& level, const ChipRect& rect) {
  near_.clear();
  level.shown_grid.visit_near(grid_rect(rect), [&](int32_t other) { near_.push_back(other); });
  std::sort(near_.begin(), near_.end());
  double shown = 0;
  for (const int32_t other : near_) {
    shown += common_area(rect, level.shown[static_cast<std::size_t>(other)]);
  }
  return shown;
}

int BackgroundChips::draw_level(uint64_t* random) const {
  uint64_t total = 0;
  for (std::size_t k = 0; k < num_levels_; ++k) total += levels_[k].weight;
  uint64_t place = draw_below(total, random);
  int index = 0;
  for (; place >= levels_[static_cast<std::size_t>(index)].weight; ++index) {
    place -= levels_[static_cast<std::size_t>(index)].weight;
  }
  return index;
}

}  // namespace sniper

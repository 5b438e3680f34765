#include "epoch_chips/random_crop.h"

#include <algorithm>

namespace sniper {
namespace {

constexpr int kTries = 25;

// Begin and end of a window on a side of `length` scaled px, in image px.
void draw_side(int64_t length, const ChipRequest& request, uint64_t* random, double* begin,
               double* end) {
  const int64_t places = std::max<int64_t>(length - request.chip_size, 0) + 1;
  const int64_t first = static_cast<int64_t>(draw_below(static_cast<uint64_t>(places), random));
  const int64_t last = std::min(first + request.chip_size, length) - 1;
  *begin = static_cast<double>(first) / request.factor;
  *end = static_cast<double>(last) / request.factor;
}

}  // namespace

bool holds_centre(const ChipRect& rect, const float* box) {
  const double x = (static_cast<double>(box[0]) + box[2]) / 2;
  const double y = (static_cast<double>(box[1]) + box[3]) / 2;
  return x >= rect[0] && x <= rect[2] && y >= rect[1] && y <= rect[3];
}

ChipRect random_crop(const ChipRequest& request, const float* boxes, int64_t count,
                     uint64_t* random) {
  const ChipLattice lattice = level_lattice(request);
  ChipRect rect{};
  for (int attempt = 0; attempt < kTries; ++attempt) {
    draw_side(lattice.width, request, random, &rect[0], &rect[2]);
    draw_side(lattice.height, request, random, &rect[1], &rect[3]);
    if (count == 0) break;
    for (int64_t row = 0; row < count; ++row) {
      if (holds_centre(rect, boxes + row * 4)) return rect;
    }
  }
  return rect;
}

}  // namespace sniper

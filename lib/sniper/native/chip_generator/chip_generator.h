// Candidate chips of one pyramid level and the seeded order in which they compete (SNIPER, section
// 3.1; 2018 behaviour). Coordinates are inclusive and in scaled px unless a name says otherwise.
#ifndef SNIPER_NATIVE_CHIP_GENERATOR_H_
#define SNIPER_NATIVE_CHIP_GENERATOR_H_

#include <cstdint>
#include <vector>

#include "common/box.h"
#include "common/macros.h"

namespace sniper {

constexpr int64_t kChipCorners = 3;

// The candidates of one level: three corners, then a lattice with a step of `stride` px, column by
// column, then the chips at the right edge, then those at the bottom edge. The corner and edge
// chips are one pixel longer than `size` on a side that leaves room for it, as in 2018.
struct ChipLattice {
  int64_t width, height;  // of the level
  int64_t size, stride;

  SNIPER_HOST_DEVICE int64_t steps(int64_t length) const {
    return length > size ? (length - size + stride - 1) / stride : 0;
  }
  SNIPER_HOST_DEVICE int64_t columns() const { return steps(width); }
  SNIPER_HOST_DEVICE int64_t rows() const { return steps(height); }
  SNIPER_HOST_DEVICE int64_t first_lattice() const { return kChipCorners; }
  SNIPER_HOST_DEVICE int64_t first_right() const { return kChipCorners + columns() * rows(); }
  SNIPER_HOST_DEVICE int64_t first_bottom() const { return first_right() + rows(); }
  SNIPER_HOST_DEVICE int64_t count() const { return first_bottom() + columns(); }
};

// x (or y) where a chip begins that ends at the last pixel of a side of `length` px; `extra` is 1
// for the edge chips.
SNIPER_HOST_DEVICE int64_t last_start(int64_t length, int64_t size, int64_t extra) {
  const int64_t start = length - size - extra;
  return start > 0 ? start : 0;
}

SNIPER_HOST_DEVICE Box make_chip(int64_t x1, int64_t y1, int64_t x2, int64_t y2) {
  return {static_cast<float>(x1), static_cast<float>(y1), static_cast<float>(x2),
          static_cast<float>(y2)};
}

// Candidate `index` of the unshuffled order.
SNIPER_HOST_DEVICE Box chip_at(const ChipLattice& lattice, int64_t index) {
  const int64_t size = lattice.size, right = lattice.width - 1, bottom = lattice.height - 1;
  if (index < kChipCorners) {
    const int64_t x = last_start(lattice.width, size, 0), y = last_start(lattice.height, size, 0);
    if (index == 0) return make_chip(x, 0, right, size < bottom ? size : bottom);
    if (index == 1) return make_chip(0, y, size < right ? size : right, bottom);
    return make_chip(x, y, right, bottom);
  }
  if (index < lattice.first_right()) {
    const int64_t cell = index - lattice.first_lattice();
    const int64_t x = cell / lattice.rows() * lattice.stride;
    const int64_t y = cell % lattice.rows() * lattice.stride;
    return make_chip(x, y, x + size - 1, y + size - 1);
  }
  if (index < lattice.first_bottom()) {
    const int64_t y = (index - lattice.first_right()) * lattice.stride;
    return make_chip(last_start(lattice.width, size, 1), y, right, y + size - 1);
  }
  const int64_t x = (index - lattice.first_bottom()) * lattice.stride;
  return make_chip(x, last_start(lattice.height, size, 1), x + size - 1, bottom);
}

// The same as IOB(chip, box) == 1: the clamped intersection reproduces the box's own corners.
SNIPER_HOST_DEVICE bool contains(const Box& chip, const Box& box) {
  return chip.x1 <= box.x1 && chip.y1 <= box.y1 && chip.x2 >= box.x2 && chip.y2 >= box.y2;
}

// Generator of the candidates' order (SplitMix64, Steele et al. 2014).
SNIPER_HOST_DEVICE uint64_t splitmix64(uint64_t* state) {
  *state += 0x9E3779B97F4A7C15ull;
  uint64_t z = *state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Fisher-Yates from the back: element i changes places with element (upper 32 bits * (i + 1))
// >> 32. order[position] = candidate.
SNIPER_HOST_DEVICE void chip_permutation(int64_t count, uint64_t seed, int32_t* order) {
  for (int64_t i = 0; i < count; ++i) order[i] = static_cast<int32_t>(i);
  for (int64_t i = count - 1; i > 0; --i) {
    const uint64_t bits = splitmix64(&seed) >> 32;
    const int64_t j = static_cast<int64_t>((bits * static_cast<uint64_t>(i + 1)) >> 32);
    const int32_t moved = order[i];
    order[i] = order[j];
    order[j] = moved;
  }
}

struct ChipRequest {
  int64_t width_im, height_im;  // image px
  double factor;                // of the pyramid level
  int64_t chip_size, stride;    // scaled px
  uint64_t seed;
};

// Throws std::invalid_argument when a number makes no sense or the lattice would not fit in memory.
ChipLattice make_lattice(int64_t width, int64_t height, int64_t chip_size, int64_t stride);
ChipLattice level_lattice(const ChipRequest& request);

// Greedy cover: candidate numbers in the order of selection. Each step takes the candidate that
// contains the most boxes not contained yet; ties go to the first in the permuted order. Boxes with
// a corner that is not finite and boxes without an area are left out. boxes_im: (count, 4).
std::vector<int32_t> chip_cover_cpu(const ChipRequest& request, const float* boxes_im,
                                    int64_t count);

// Corners of a candidate in image px: x1, y1, x2, y2.
void chip_to_image(const ChipRequest& request, const ChipLattice& lattice, int64_t index,
                   double* rectangle_im);

}  // namespace sniper

#endif  // SNIPER_NATIVE_CHIP_GENERATOR_H_

// Candidate chips of one pyramid level and the seeded order in which they compete (SNIPER, section
// 3.1; 2018 behaviour). Coordinates are inclusive and in scaled px unless a name says otherwise.
#ifndef SNIPER_NATIVE_CHIP_GENERATOR_H_
#define SNIPER_NATIVE_CHIP_GENERATOR_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "common/box.h"
#include "common/macros.h"
#include "common/range.h"
#include "common/splitmix.h"

namespace sniper {

constexpr Range kChipSideRange = {1, 1 << 24};  // px, of images, chips and steps: exact in float32
constexpr Range kChipFactorRange = {1e-6, 1e6};
constexpr Range kMaxChipsRange = {1, 1 << 24};
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

// Closed range of lattice steps; empty when last < first.
struct ChipSteps {
  int32_t first, last;

  SNIPER_HOST_DEVICE int32_t count() const { return last < first ? 0 : last - first + 1; }
};

// A box in scaled px and the candidates that contain it: a rectangle of lattice indices, stretches
// of the edge chips with the same rows and columns, and some corners.
struct CoveredBox {
  Box box;
  ChipSteps columns, rows;
  bool right, bottom, corner[kChipCorners];
};

// Scales a box in image px (four floats) in float32 and clips it to the level: to its last pixel, or
// for `legacy_clip` to the one before, as in 2018. False for a box with a corner that is not finite
// and for one without an area.
SNIPER_HOST_DEVICE bool box_on_level(const ChipLattice& lattice, float factor, bool legacy_clip,
                                     const float* row, Box* box) {
  const Box scaled = {row[0] * factor, row[1] * factor, row[2] * factor, row[3] * factor};
  const int64_t margin = legacy_clip ? 1 : 0;
  *box = clip_box(scaled, static_cast<float>(lattice.height - margin),
                  static_cast<float>(lattice.width - margin));
  return is_finite(scaled) && box->x2 - box->x1 > -1.0f && box->y2 - box->y1 > -1.0f;
}

// Steps k with k * stride <= low and k * stride + size - 1 >= high; low is not negative. Exact:
// both quotients are far enough from integers in double precision. Casts truncate: they are the
// floor of what is not negative, and much cheaper than ceil() and floor() without SSE4.
SNIPER_HOST_DEVICE ChipSteps steps_that_hold(float low, float high, int64_t steps,
                                             const ChipLattice& lattice) {
  const double stride = static_cast<double>(lattice.stride);
  const double begin = (static_cast<double>(high) - static_cast<double>(lattice.size - 1)) / stride;
  int32_t first = begin > 0.0 ? static_cast<int32_t>(begin) : 0;
  first += first < begin;
  const int32_t last = static_cast<int32_t>(static_cast<double>(low) / stride);
  const int32_t end = static_cast<int32_t>(steps - 1);
  return {first, last < end ? last : end};
}

SNIPER_HOST_DEVICE CoveredBox find_chips(const ChipLattice& lattice, const Box& box) {
  CoveredBox found{};
  found.box = box;
  found.columns = steps_that_hold(box.x1, box.x2, lattice.columns(), lattice);
  found.rows = steps_that_hold(box.y1, box.y2, lattice.rows(), lattice);
  found.right = box.x1 >= static_cast<float>(last_start(lattice.width, lattice.size, 1));
  found.bottom = box.y1 >= static_cast<float>(last_start(lattice.height, lattice.size, 1));
  for (int64_t k = 0; k < kChipCorners; ++k) found.corner[k] = contains(chip_at(lattice, k), box);
  return found;
}

SNIPER_HOST_DEVICE bool has_chip(const CoveredBox& found) {
  bool corner = false;
  for (int64_t k = 0; k < kChipCorners; ++k) corner |= found.corner[k];
  const bool in_rows = found.rows.count() > 0, in_columns = found.columns.count() > 0;
  return corner || (in_rows && (in_columns || found.right)) || (in_columns && found.bottom);
}

// Fisher-Yates from the back: element i = count - 1 .. 1 changes places with element
// (upper 32 bits * (i + 1)) >> 32. The generator's state is a counter, so the partner of every
// element is known without those before it.
SNIPER_HOST_DEVICE int64_t swap_partner(int64_t count, uint64_t seed, int64_t i) {
  uint64_t state = seed + static_cast<uint64_t>(count - 1 - i) * kSplitMixStep;
  return static_cast<int64_t>(draw_below(static_cast<uint64_t>(i) + 1, &state));
}

// order[position] = candidate.
SNIPER_HOST_DEVICE void chip_permutation(int64_t count, uint64_t seed, int32_t* order) {
  for (int64_t i = 0; i < count; ++i) order[i] = static_cast<int32_t>(i);
  for (int64_t i = count - 1; i > 0; --i) {
    const int64_t j = swap_partner(count, seed, i);
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
  bool legacy_clip;  // boxes end one px before the border of the level (2018 behaviour)
};

// Corners of a candidate in image px: x1, y1, x2, y2.
SNIPER_HOST_DEVICE void chip_to_image(const ChipRequest& request, const ChipLattice& lattice,
                                      int64_t index, double* rectangle_im) {
  const Box chip = chip_at(lattice, index);
  rectangle_im[0] = static_cast<double>(chip.x1) / request.factor;
  rectangle_im[1] = static_cast<double>(chip.y1) / request.factor;
  rectangle_im[2] = static_cast<double>(chip.x2) / request.factor;
  rectangle_im[3] = static_cast<double>(chip.y2) / request.factor;
}

// One call of the graph's operator; `lattice` is level_lattice(request).
struct ChipGeneratorParams {
  ChipRequest request;
  ChipLattice lattice;
  int64_t num_boxes, max_chips;
};

// Whether a row of the graph's tensor is a box: a tensor of fixed size is padded with -1, so a row
// that lies wholly to the left of or above the image is none.
SNIPER_HOST_DEVICE bool is_real_box(const float* row) { return row[2] >= 0.0f && row[3] >= 0.0f; }

// Throws std::invalid_argument when a number makes no sense or the lattice would not fit in memory.
ChipLattice make_lattice(int64_t width, int64_t height, int64_t chip_size, int64_t stride);
ChipLattice level_lattice(const ChipRequest& request);

// Greedy cover: candidate numbers in the order of selection. Each step takes the candidate that
// contains the most boxes not contained yet; ties go to the first in the permuted order. Boxes with
// a corner that is not finite and boxes without an area are left out. boxes_im: (count, 4).
std::vector<int32_t> chip_cover_cpu(const ChipRequest& request, const float* boxes_im,
                                    int64_t count);

// The same for the graph: boxes (num_boxes, 4), of which those that are not real are left out.
// Writes chips (max_chips, 4) in image px, padded with -1, and how many there are.
void chip_generator_cpu(const ChipGeneratorParams& params, const float* boxes, float* chips,
                        float* count);

}  // namespace sniper

#endif  // SNIPER_NATIVE_CHIP_GENERATOR_H_

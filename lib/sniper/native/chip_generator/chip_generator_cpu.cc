// Greedy chip cover.
//
// The candidates that contain a box form a rectangle of lattice indices (plus stretches of the edge
// chips and some corners), so a box is added to and taken from the candidates' counts without a
// single containment test. Every box is added once and taken once; a selection costs one pass over
// the counts.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>

#include "chip_generator/chip_generator.h"

namespace sniper {
namespace {

constexpr int64_t kMaxCandidates = 1 << 24;
constexpr int64_t kMaxSide = 1 << 24;  // exact in float32

void add_stretch(int32_t* counts, const ChipSteps& steps, int32_t change) {
  for (int32_t k = steps.first; k <= steps.last; ++k) counts[k] += change;
}

void count_box(const ChipLattice& lattice, const CoveredBox& found, int32_t change,
               int32_t* counts) {
  for (int64_t k = 0; k < kChipCorners; ++k) counts[k] += found.corner[k] ? change : 0;
  int32_t* grid = counts + lattice.first_lattice();
  for (int64_t i = found.columns.first; i <= found.columns.last; ++i) {
    add_stretch(grid + i * lattice.rows(), found.rows, change);
  }
  if (found.right) add_stretch(counts + lattice.first_right(), found.rows, change);
  if (found.bottom) add_stretch(counts + lattice.first_bottom(), found.columns, change);
}

// Boxes scaled in float32 and clipped to the level.
std::vector<CoveredBox> locate_boxes(const ChipRequest& request, const ChipLattice& lattice,
                                     const float* boxes_im, int64_t count) {
  std::vector<CoveredBox> located;
  located.reserve(static_cast<std::size_t>(count));
  const float factor = static_cast<float>(request.factor);
  for (int64_t n = 0; n < count; ++n) {
    Box box;
    if (box_on_level(lattice, factor, boxes_im + n * 4, &box)) {
      located.push_back(find_chips(lattice, box));
    }
  }
  return located;
}

// The candidate with the largest count, ties by rank; -1 when all counts are 0.
int64_t best_candidate(const std::vector<int32_t>& counts, const std::vector<int32_t>& rank) {
  int32_t most = 0;
  for (const int32_t count : counts) most = std::max(most, count);
  if (most == 0) return -1;
  int64_t best = -1;
  int32_t best_rank = std::numeric_limits<int32_t>::max();
  for (std::size_t k = 0; k < counts.size(); ++k) {
    if (counts[k] == most && rank[k] < best_rank) {
      best = static_cast<int64_t>(k);
      best_rank = rank[k];
    }
  }
  return best;
}

std::vector<int32_t> ranks(int64_t count, uint64_t seed) {
  std::vector<int32_t> order(static_cast<std::size_t>(count));
  chip_permutation(count, seed, order.data());
  std::vector<int32_t> rank(order.size());
  for (std::size_t position = 0; position < order.size(); ++position) {
    rank[static_cast<std::size_t>(order[position])] = static_cast<int32_t>(position);
  }
  return rank;
}

void require(bool holds, const char* what, double got, const char* expected) {
  if (holds) return;
  throw std::invalid_argument(std::string("Chip generation: ") + what + " is " +
                              std::to_string(got) + ", expected " + expected + ".");
}

}  // namespace

ChipLattice make_lattice(int64_t width, int64_t height, int64_t chip_size, int64_t stride) {
  require(width >= 0 && width <= kMaxSide, "the level's width", static_cast<double>(width),
          "0 to 16777216 px");
  require(height >= 0 && height <= kMaxSide, "the level's height", static_cast<double>(height),
          "0 to 16777216 px");
  require(chip_size >= 1 && chip_size <= kMaxSide, "the chip size", static_cast<double>(chip_size),
          "1 to 16777216 px");
  require(stride >= 1 && stride <= kMaxSide, "the stride", static_cast<double>(stride),
          "1 to 16777216 px");
  const ChipLattice lattice{width, height, chip_size, stride};
  require(lattice.count() <= kMaxCandidates, "the number of candidate chips",
          static_cast<double>(lattice.count()), "at most 16777216: use a larger stride");
  return lattice;
}

ChipLattice level_lattice(const ChipRequest& request) {
  require(request.width_im >= 1 && request.width_im <= kMaxSide, "the image width",
          static_cast<double>(request.width_im), "1 to 16777216 px");
  require(request.height_im >= 1 && request.height_im <= kMaxSide, "the image height",
          static_cast<double>(request.height_im), "1 to 16777216 px");
  require(request.factor > 0.0 && request.factor <= kMaxSide, "the scale factor", request.factor,
          "a finite number above 0");
  const double width = static_cast<double>(request.width_im) * request.factor;
  const double height = static_cast<double>(request.height_im) * request.factor;
  return make_lattice(static_cast<int64_t>(width), static_cast<int64_t>(height), request.chip_size,
                      request.stride);
}

std::vector<int32_t> chip_cover_cpu(const ChipRequest& request, const float* boxes_im,
                                    int64_t count) {
  const ChipLattice lattice = level_lattice(request);
  if (lattice.width == 0 || lattice.height == 0) return {};  // less than one pixel: no chip
  std::vector<CoveredBox> open = locate_boxes(request, lattice, boxes_im, count);
  std::vector<int32_t> selected;
  if (open.empty()) return selected;
  std::vector<int32_t> counts(static_cast<std::size_t>(lattice.count()), 0);
  for (const CoveredBox& box : open) count_box(lattice, box, 1, counts.data());
  const std::vector<int32_t> rank = ranks(lattice.count(), request.seed);
  for (;;) {
    const int64_t best = best_candidate(counts, rank);
    if (best < 0) return selected;
    selected.push_back(static_cast<int32_t>(best));
    const Box chip = chip_at(lattice, best);
    std::size_t kept = 0;
    for (std::size_t n = 0; n < open.size(); ++n) {
      if (contains(chip, open[n].box)) {
        count_box(lattice, open[n], -1, counts.data());
      } else {
        open[kept++] = open[n];
      }
    }
    if (kept == open.size()) throw std::logic_error("Chip generation: a chip covers nothing.");
    open.resize(kept);
  }
}

}  // namespace sniper

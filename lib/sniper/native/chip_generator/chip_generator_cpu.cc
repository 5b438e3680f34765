// Greedy chip cover.
//
// The candidates that contain a box form a rectangle of lattice indices (plus stretches of the edge
// chips and some corners), so boxes are added to and taken from the candidates' counts without a
// single containment test: few boxes rectangle by rectangle, many boxes through the differences of
// the counts, four numbers a box, that one pass sums up.
//
// The first chips of a small lattice cost a pass over the counts and the open boxes each, which is
// least work where a few chips do. All others come out of an index. Counts only fall: candidates
// lie in buckets by count, in the order that ties are taken in; the buckets are gone through from
// the highest, and a candidate whose count has fallen meanwhile moves to a lower one when its turn
// comes. A selection looks at the boxes near its chip. So all of it grows with candidates and
// boxes, however many chips there are.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "chip_generator/chip_cover.h"
#include "common/isa.h"

namespace sniper {
namespace {

constexpr int64_t kMaxCandidates = 1 << 24;
constexpr int64_t kMaxSide = static_cast<int64_t>(kChipSideRange.high);
constexpr float kPadding = -1.0f;
constexpr char kUseless[] = "Chip generation: a chip covers nothing.";
// The candidates of a large lattice do not fit into a cache, and their order is random: so many of
// them are asked for before their turn.
constexpr int64_t kAhead = 64;
// An index costs as much as about so many passes, as long as these stay in a cache.
constexpr int kPasses = 24;
constexpr std::size_t kSmallLattice = 1 << 14;

void add_stretch(int32_t* counts, const ChipSteps& steps, int32_t change) {
  for (int32_t k = steps.first; k <= steps.last; ++k) counts[k] += change;
}

// The differences of a stretch: +change where it begins, -change behind its end.
void mark_stretch(int32_t* differences, const ChipSteps& steps, int32_t change) {
  differences[steps.first] += change;
  differences[steps.last + 1] -= change;
}

void add_running_sum(const int32_t* differences, int64_t count, int32_t* counts) {
  int32_t sum = 0;
  for (int64_t k = 0; k < count; ++k) {
    sum += differences[k];
    counts[k] += sum;
  }
}

SNIPER_ALWAYS_INLINE int32_t largest(const int32_t* values, int64_t count) {
  int32_t most = 0;
  for (int64_t k = 0; k < count; ++k) most = values[k] > most ? values[k] : most;
  return most;
}

// The lowest rank among the candidates whose count is `wanted`.
SNIPER_ALWAYS_INLINE int32_t lowest_rank(const int32_t* counts, const int32_t* rank, int64_t count,
                                         int32_t wanted) {
  int32_t lowest = std::numeric_limits<int32_t>::max();
  for (int64_t k = 0; k < count; ++k) {
    const int32_t own = counts[k] == wanted ? rank[k] : std::numeric_limits<int32_t>::max();
    lowest = own < lowest ? own : lowest;
  }
  return lowest;
}

// chip_permutation, which asks for the places of the next exchanges ahead.
void permute(int64_t count, uint64_t seed, int32_t* order) {
  int64_t partners[kAhead];
  std::iota(order, order + count, 0);
  for (int64_t i = count - 1; i > 0; i -= kAhead) {
    const int64_t ahead = std::min(i, kAhead);
    for (int64_t k = 0; k < ahead; ++k) {
      partners[k] = swap_partner(count, seed, i - k);
      __builtin_prefetch(order + partners[k], 1);
    }
    for (int64_t k = 0; k < ahead; ++k) std::swap(order[i - k], order[partners[k]]);
  }
}

GridRect grid_rect(const Box& box) { return {box.x1, box.y1, box.x2, box.y2}; }

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

const std::vector<int32_t>& ChipCover::select(const ChipRequest& request, const float* boxes_im,
                                              int64_t count) {
  selected_.clear();
  lattice_ = level_lattice(request);
  if (lattice_.width == 0 || lattice_.height == 0) return selected_;  // not one pixel: no chip
  locate(request, boxes_im, count);
  if (boxes_.empty()) return selected_;
  counts_.assign(static_cast<std::size_t>(lattice_.count()), 0);
  change_counts(boxes_.data(), static_cast<int64_t>(boxes_.size()), 1);
  order_.resize(counts_.size());
  permute(lattice_.count(), request.seed, order_.data());
  if (counts_.size() <= kSmallLattice) select_by_passes();
  if (!boxes_.empty()) select_by_index();
  return selected_;
}

// Boxes scaled in float32 and clipped to the level.
void ChipCover::locate(const ChipRequest& request, const float* boxes_im, int64_t count) {
  const ChipLattice lattice = lattice_;  // copies: nothing that is written here can change them
  const float factor = static_cast<float>(request.factor);
  const bool legacy_clip = request.legacy_clip;
  boxes_.resize(static_cast<std::size_t>(count));
  std::size_t kept = 0;
  for (int64_t n = 0; n < count; ++n) {
    Box box;
    if (!box_on_level(lattice, factor, legacy_clip, boxes_im + n * 4, &box)) continue;
    boxes_[kept] = find_chips(lattice, box);
    kept += has_chip(boxes_[kept]);
  }
  boxes_.resize(kept);
}

// Takes the first chips, and their boxes out of `boxes_`.
void ChipCover::select_by_passes() {
  rank_.resize(order_.size());
  for (std::size_t position = 0; position < order_.size(); ++position) {
    rank_[static_cast<std::size_t>(order_[position])] = static_cast<int32_t>(position);
  }
  for (int pass = 0; pass < kPasses && !boxes_.empty(); ++pass) {
    const int64_t count = lattice_.count();
    const int32_t most = per_isa<largest>(counts_.data(), count);
    const int32_t position = per_isa<lowest_rank>(counts_.data(), rank_.data(), count, most);
    selected_.push_back(order_[static_cast<std::size_t>(position)]);
    const Box chip = chip_at(lattice_, selected_.back());
    const auto covered = std::partition(boxes_.begin(), boxes_.end(), [&](const CoveredBox& found) {
      return !contains(chip, found.box);
    });
    if (covered == boxes_.end()) throw std::logic_error(kUseless);
    change_counts(&*covered, boxes_.end() - covered, -1);
    boxes_.erase(covered, boxes_.end());
  }
}

void ChipCover::select_by_index() {
  num_open_ = boxes_.size();
  // Half a chip: a quarter of the boxes that are looked at in vain, beside cells of a whole one.
  open_.reset(static_cast<double>(lattice_.width), static_cast<double>(lattice_.height),
              static_cast<double>(lattice_.size) / 2, num_open_);
  for (const CoveredBox& found : boxes_) open_.add(grid_rect(found.box));
  for (std::size_t held = fill_buckets(); held > 0 && num_open_ > 0; --held) select_from(held);
  if (num_open_ > 0) throw std::logic_error("Chip generation: boxes are left without a chip.");
}

// Returns the largest count.
std::size_t ChipCover::fill_buckets() {
  const std::size_t most =
      static_cast<std::size_t>(per_isa<largest>(counts_.data(), lattice_.count()));
  if (buckets_.size() <= most) buckets_.resize(most + 1);
  for (std::size_t held = 1; held <= most; ++held) buckets_[held].positions.clear();
  for (std::size_t position = 0; position < order_.size(); ++position) {
    const std::size_t ahead = std::min(position + kAhead, order_.size() - 1);
    __builtin_prefetch(&counts_[static_cast<std::size_t>(order_[ahead])]);
    const int32_t held = counts_[static_cast<std::size_t>(order_[position])];
    if (held == 0) continue;
    buckets_[static_cast<std::size_t>(held)].positions.push_back(static_cast<int32_t>(position));
  }
  for (std::size_t held = 1; held <= most; ++held) {
    buckets_[held].in_order = buckets_[held].positions.size();
  }
  return most;
}

// Takes the candidates that contain `held` open boxes; none contains more.
void ChipCover::select_from(std::size_t held) {
  std::vector<int32_t>& positions = buckets_[held].positions;
  const auto moved_here = positions.begin() + static_cast<std::ptrdiff_t>(buckets_[held].in_order);
  std::sort(moved_here, positions.end());
  std::inplace_merge(positions.begin(), moved_here, positions.end());
  for (const int32_t position : positions) {
    const int32_t candidate = order_[static_cast<std::size_t>(position)];
    const std::size_t now = static_cast<std::size_t>(counts_[static_cast<std::size_t>(candidate)]);
    if (now == held) {
      selected_.push_back(candidate);
      take_covered(chip_at(lattice_, candidate));
      if (num_open_ == 0) return;
    } else if (now > 0) {
      buckets_[now].positions.push_back(position);
    }
  }
}

void ChipCover::take_covered(const Box& chip) {
  covered_.clear();
  open_.take_inside(grid_rect(chip), [&](int32_t number) {
    const CoveredBox& found = boxes_[static_cast<std::size_t>(number)];
    const bool is_covered = contains(chip, found.box);
    if (is_covered) covered_.push_back(found);
    return is_covered;
  });
  if (covered_.empty()) throw std::logic_error(kUseless);
  num_open_ -= covered_.size();
  change_counts(covered_.data(), static_cast<int64_t>(covered_.size()), -1);
}

void ChipCover::change_counts(const CoveredBox* boxes, int64_t count, int32_t change) {
  // A small box has so many candidates on each axis; larger boxes have fewer.
  const int64_t steps = lattice_.size / lattice_.stride + 1;
  const int64_t of_box =
      (std::min(steps, lattice_.columns()) + 1) * (std::min(steps, lattice_.rows()) + 1);
  if (count * of_box > 2 * lattice_.count()) {
    change_by_differences(boxes, count, change);
  } else {
    change_one_by_one(boxes, count, change);
  }
}

void ChipCover::change_one_by_one(const CoveredBox* boxes, int64_t count, int32_t change) {
  const ChipLattice lattice = lattice_;
  int32_t* counts = counts_.data();
  for (int64_t n = 0; n < count; ++n) {
    const CoveredBox& found = boxes[n];
    for (int64_t k = 0; k < kChipCorners; ++k) counts[k] += found.corner[k] ? change : 0;
    int32_t* grid = counts + lattice.first_lattice();
    for (int64_t i = found.columns.first; i <= found.columns.last; ++i) {
      add_stretch(grid + i * lattice.rows(), found.rows, change);
    }
    if (found.right) add_stretch(counts + lattice.first_right(), found.rows, change);
    if (found.bottom) add_stretch(counts + lattice.first_bottom(), found.columns, change);
  }
}

void ChipCover::change_by_differences(const CoveredBox* boxes, int64_t count, int32_t change) {
  const int64_t pitch = lattice_.rows() + 1;  // room for the end behind the last row and column
  grid_difference_.assign(static_cast<std::size_t>((lattice_.columns() + 1) * pitch), 0);
  right_difference_.assign(static_cast<std::size_t>(pitch), 0);
  bottom_difference_.assign(static_cast<std::size_t>(lattice_.columns() + 1), 0);
  for (int64_t n = 0; n < count; ++n) {
    const CoveredBox& found = boxes[n];
    const bool in_rows = found.rows.count() > 0, in_columns = found.columns.count() > 0;
    for (int64_t k = 0; k < kChipCorners; ++k) counts_[k] += found.corner[k] ? change : 0;
    if (in_rows && in_columns) {
      int32_t* grid = grid_difference_.data();
      mark_stretch(grid + found.columns.first * pitch, found.rows, change);
      mark_stretch(grid + (found.columns.last + 1) * pitch, found.rows, -change);
    }
    if (in_rows && found.right) mark_stretch(right_difference_.data(), found.rows, change);
    if (in_columns && found.bottom) mark_stretch(bottom_difference_.data(), found.columns, change);
  }
  add_differences();
}

void ChipCover::add_differences() {
  const int64_t rows = lattice_.rows(), columns = lattice_.columns(), pitch = rows + 1;
  int32_t* counts = counts_.data();
  int32_t* column = grid_difference_.data();
  for (int64_t i = 0; i < columns; ++i, column += pitch) {
    add_running_sum(column, rows, counts + lattice_.first_lattice() + i * rows);
    for (int64_t j = 0; j < rows; ++j) column[pitch + j] += column[j];
  }
  add_running_sum(right_difference_.data(), rows, counts + lattice_.first_right());
  add_running_sum(bottom_difference_.data(), columns, counts + lattice_.first_bottom());
}

std::vector<int32_t> chip_cover_cpu(const ChipRequest& request, const float* boxes_im,
                                    int64_t count) {
  ChipCover cover;
  return cover.select(request, boxes_im, count);
}

void chip_generator_cpu(const ChipGeneratorParams& params, const float* boxes, float* chips,
                        float* count) {
  std::vector<float> real;
  for (int64_t n = 0; n < params.num_boxes; ++n) {
    const float* box = boxes + n * 4;
    if (is_real_box(box)) real.insert(real.end(), box, box + 4);
  }
  const std::vector<int32_t> selected =
      chip_cover_cpu(params.request, real.data(), static_cast<int64_t>(real.size()) / 4);
  const int64_t kept = std::min(static_cast<int64_t>(selected.size()), params.max_chips);
  std::fill(chips, chips + params.max_chips * 4, kPadding);
  for (int64_t k = 0; k < kept; ++k) {
    double chip[4];
    chip_to_image(params.request, params.lattice, selected[static_cast<std::size_t>(k)], chip);
    std::copy(chip, chip + 4, chips + k * 4);
  }
  *count = static_cast<float>(kept);
}

}  // namespace sniper

// The rules of one record, step by step as sniper.chips.sampler describes them.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "epoch_chips/random_crop.h"
#include "epoch_chips/record_chips.h"

namespace sniper {
namespace {

// Kinds of random streams; sniper.chips.streams has the other ones.
constexpr uint64_t kPositiveCover = 2, kNegativeCover = 3, kNegativePick = 4, kBackground = 5,
                   kCrop = 6;

// The stream of sniper.chips.streams.stream_seeds with one more key.
uint64_t mix_key(uint64_t stream, uint64_t key) {
  uint64_t state = stream ^ key;
  return splitmix64(&state);
}

// Towards zero; the smallest integer for what no integer holds, as NumPy converts on x86.
int64_t truncate(float length) {
  constexpr float kEnd = 9223372036854775808.0f;
  return length >= -kEnd && length < kEnd ? static_cast<int64_t>(length)
                                          : std::numeric_limits<int64_t>::min();
}

// Square root of the area. The product wraps around for sides that no image has.
double side_of(int64_t width, int64_t height) {
  const uint64_t area = static_cast<uint64_t>(width) * static_cast<uint64_t>(height);
  return std::sqrt(static_cast<double>(std::max<int64_t>(static_cast<int64_t>(area), 0)));
}

// Whether the part of a box inside its chip is large and small enough. The upper end belongs to the
// range for positive chips only (2018 behaviour).
bool part_counts(const float* box, const ChipRect& rect, const RecordLevel& level, bool positive) {
  const double width = overlap_width(box, rect), height = overlap_height(box, rect);
  if (!(width >= 1 && height >= 1)) return false;
  const double size = std::sqrt(std::fabs(width * height));
  if (level.coarsest) return size >= level.range.low || std::max(width, height) >= level.side_from;
  // A part's sides need no limit: they are no longer than those of its box.
  return positive ? size <= level.range.high : size < level.range.high;
}

}  // namespace

int32_t RecordChips::make(const ChipRecord& record, ChipList* out) {
  record_ = record;
  measure();
  gt_in_chip_.reset(record_);
  negatives_.clear();
  negative_rows_.clear();
  background_.clear();
  const std::size_t before = out->rects.size();
  for (int index = 0; index < request_.num_levels; ++index) {
    const RecordLevel level = level_at(index);
    find_rows(level);
    if (request_.crops > 0) continue;
    add_positives(level, out);
    if (request_.background > 0) background_.add_level(request_at(level, 0), rects_);
    if (request_.use_negatives) find_negatives(level);
  }
  const std::size_t positives = out->rects.size() - before;
  negative_candidates_ += static_cast<int64_t>(negatives_.size());
  add_picked_negatives(out);
  if (request_.crops == 0) add_background(positives, out);
  add_crops(out);
  add_fates(out);
  return static_cast<int32_t>(out->rects.size() - before);
}

void RecordChips::measure() {
  const std::size_t count = static_cast<std::size_t>(record_.num_boxes);
  side_.resize(count);
  longer_.resize(count);
  finite_.resize(count);
  thick_.resize(count);
  chip_of_.resize(count);
  covered_.assign(count, 0);
  for (std::size_t row = 0; row < count; ++row) {
    const float* box = box_at(row);
    const int64_t width = truncate(box[2] - box[0]), height = truncate(box[3] - box[1]);
    side_[row] = side_of(width, height);
    longer_[row] = static_cast<double>(std::max(width, height));
    finite_[row] = is_finite(Box{box[0], box[1], box[2], box[3]});
    thick_[row] = width >= 2 && height >= 2;
  }
}

RecordLevel RecordChips::level_at(int index) const {
  const double factor = record_.factors[index];
  const double room = static_cast<double>(request_.chip_size - request_.stride - 1);
  const double* limit = request_.side_limits + index;
  const double side_from = index > 0 ? limit[-1] : std::numeric_limits<double>::infinity();
  const bool coarsest = index + 1 == request_.num_levels;
  return {index, coarsest, request_.ranges[index], *limit, side_from, factor, room / factor};
}

// Boxes that may be assigned to chips of the level, and ground truth that chips are made for.
void RecordChips::find_rows(const RecordLevel& level) {
  eligible_.clear();
  wanted_.clear();
  LevelCounts& counts = levels_[static_cast<std::size_t>(level.index)];
  for (std::size_t row = 0; row < side_.size(); ++row) {
    if (is_eligible(level, row)) eligible_.push_back(static_cast<int32_t>(row));
  }
  for (std::size_t row = 0; row < num_gt(); ++row) {
    if (is_wanted(level, row)) wanted_.push_back(static_cast<int32_t>(row));
    if (!is_in_range(level, row)) continue;
    ++counts.gt_in_range;
    counts.gt_too_long += !level.coarsest && longer_[row] >= level.size_limit;
  }
  counts.gt_wanted += static_cast<int64_t>(wanted_.size());
}

bool RecordChips::is_small_enough(const RecordLevel& level, std::size_t row) const {
  return level.coarsest || (side_[row] < level.range.high && longer_[row] < level.side_limit);
}

bool RecordChips::is_large_enough(const RecordLevel& level, std::size_t row) const {
  return side_[row] >= level.range.low || longer_[row] >= level.side_from;
}

// The coarsest level takes all boxes that are large enough. Every other level takes all boxes that
// are small enough and surely fit into a chip, without a lower bound.
bool RecordChips::is_eligible(const RecordLevel& level, std::size_t row) const {
  if (level.coarsest) return finite_[row] && is_large_enough(level, row);
  return finite_[row] && thick_[row] && is_small_enough(level, row) &&
         longer_[row] < level.size_limit;
}

bool RecordChips::is_in_range(const RecordLevel& level, std::size_t row) const {
  const bool no_lower_end = level.index == 0 && !level.coarsest;
  return is_small_enough(level, row) && (no_lower_end || is_large_enough(level, row));
}

// Intermediate levels have a lower bound here, and no least width, unlike in is_eligible.
bool RecordChips::is_wanted(const RecordLevel& level, std::size_t row) const {
  if (level.coarsest || level.index == 0) return is_eligible(level, row);
  return finite_[row] && is_in_range(level, row) && longer_[row] < level.size_limit;
}

void RecordChips::add_positives(const RecordLevel& level, ChipList* out) {
  cover(level, wanted_, kPositiveCover);
  assign(level, eligible_, true);
  LevelCounts& counts = levels_[static_cast<std::size_t>(level.index)];
  uncovered_.clear();
  for (const int32_t row : eligible_) {
    const std::size_t n = static_cast<std::size_t>(row);
    if (chip_of_[n] < 0) {
      uncovered_.push_back(row);
    } else {
      covered_[n] = 1;
      counts.gt_covered += n < num_gt();
    }
  }
  for (std::size_t k = 0; k < rects_.size(); ++k) {
    add_chip(rects_[k], level, false, box_counts_[k], rows_of_chip(k), out);
  }
  counts.positive += static_cast<int64_t>(rects_.size());
  counts.images += !rects_.empty();
}

// Chips around the boxes that no positive chip of the level is trained on.
void RecordChips::find_negatives(const RecordLevel& level) {
  cover(level, uncovered_, kNegativeCover);
  assign(level, uncovered_, false);
  const double too_few = most_without_alarm(level);
  for (std::size_t k = 0; k < rects_.size(); ++k) {
    if (box_counts_[k] <= too_few) continue;
    const RowSpan rows = rows_of_chip(k);
    const std::size_t first = negative_rows_.size();
    negative_rows_.insert(negative_rows_.end(), rows.begin, rows.end);
    negatives_.push_back({rects_[k], level.index, box_counts_[k], first, negative_rows_.size()});
  }
}

// A negative chip is kept with more boxes than this.
double RecordChips::most_without_alarm(const RecordLevel& level) const {
  const double boxes = level.index == 0 ? request_.alarms_finest : request_.alarms_others;
  if (request_.alarms_per_proposals <= 0) return boxes;
  const double proposals = static_cast<double>(record_.num_boxes - record_.num_gt);
  const double width = static_cast<double>(record_.width) * level.factor;
  const double height = static_cast<double>(record_.height) * level.factor;
  const double side = static_cast<double>(request_.chip_size);
  const double share = side * side / (width * height);
  const double usual =
      level.index == 0 ? request_.alarms_share_finest : request_.alarms_share_others;
  return boxes * proposals / request_.alarms_per_proposals * std::min(share / usual, 1.0);
}

// Chips that contain the boxes of some rows, into rects_.
void RecordChips::cover(const RecordLevel& level, const std::vector<int32_t>& rows, uint64_t kind) {
  rects_.clear();
  if (rows.empty()) return;
  boxes_to_cover_.clear();
  for (const int32_t row : rows) {
    const float* box = box_at(static_cast<std::size_t>(row));
    boxes_to_cover_.insert(boxes_to_cover_.end(), box, box + 4);
  }
  const ChipRequest request = request_at(level, seed(kind, static_cast<uint64_t>(level.index)));
  const std::vector<int32_t>& chosen =
      cover_.select(request, boxes_to_cover_.data(), static_cast<int64_t>(rows.size()));
  rects_.resize(chosen.size());
  for (std::size_t k = 0; k < chosen.size(); ++k) {
    chip_to_image(request, cover_.lattice(), chosen[k], rects_[k].data());
  }
  best_chip_.reset(static_cast<double>(record_.width), static_cast<double>(record_.height),
                   static_cast<double>(request_.chip_size + 1) / level.factor, rects_);
}

// Gives each box to the chip that holds the largest share of it, and collects the chips' rows.
void RecordChips::assign(const RecordLevel& level, const std::vector<int32_t>& rows,
                         bool positive) {
  box_counts_.assign(rects_.size(), 0);
  row_ends_.assign(rects_.size() + 1, 0);
  for (const int32_t row : rows) {
    const std::size_t n = static_cast<std::size_t>(row);
    const float* box = box_at(n);
    const int32_t best = best_chip_.of(box, rects_);
    const std::size_t k = static_cast<std::size_t>(best);
    chip_of_[n] = best >= 0 && part_counts(box, rects_[k], level, positive) ? best : -1;
    if (chip_of_[n] < 0) continue;
    ++box_counts_[k];
    row_ends_[k + 1] += keeps_row(n);
  }
  group_rows(rows);
}

// rows_: the assigned rows chip by chip, ascending; row_ends_ comes in as the number of rows of
// chip k - 1 and leaves as the end of the rows of chip k - 1, which is where chip k begins.
void RecordChips::group_rows(const std::vector<int32_t>& rows) {
  std::partial_sum(row_ends_.begin(), row_ends_.end(), row_ends_.begin());
  rows_.resize(row_ends_.back());
  next_row_.assign(row_ends_.begin(), row_ends_.end());
  for (const int32_t row : rows) {
    const std::size_t n = static_cast<std::size_t>(row);
    if (chip_of_[n] < 0 || !keeps_row(n)) continue;
    rows_[next_row_[static_cast<std::size_t>(chip_of_[n])]++] = row;
  }
}

RecordChips::RowSpan RecordChips::rows_of_chip(std::size_t chip) const {
  return {rows_.data() + row_ends_[chip], rows_.data() + row_ends_[chip + 1]};
}

// At most `max_negatives` of the negative chips: the smallest of independent random numbers are a
// draw without replacement.
void RecordChips::add_picked_negatives(ChipList* out) {
  picked_.resize(negatives_.size());
  for (std::size_t k = 0; k < picked_.size(); ++k) picked_[k] = {0, k};
  if (static_cast<int64_t>(picked_.size()) > request_.max_negatives) {
    for (std::size_t k = 0; k < picked_.size(); ++k) picked_[k].first = seed(kNegativePick, k);
    std::sort(picked_.begin(), picked_.end());
    picked_.resize(static_cast<std::size_t>(request_.max_negatives));
  }
  for (const auto& draw : picked_) {
    const Negative& chip = negatives_[draw.second];
    const int32_t* rows = negative_rows_.data();
    add_chip(chip.rect, level_at(chip.level), true, chip.box_count,
             {rows + chip.first_row, rows + chip.end_row}, out);
    ++levels_[static_cast<std::size_t>(chip.level)].negative;
  }
}

// The expected number is a share of the positive chips; an image with fewer of them than levels,
// perhaps without objects, counts as if it had one at each.
void RecordChips::add_background(std::size_t positives, ChipList* out) {
  if (!(request_.background > 0)) return;
  uint64_t random = seed(kBackground, 0);
  const double chance = static_cast<double>(splitmix64(&random) >> 11) * 0x1p-53;
  const std::size_t levels = static_cast<std::size_t>(request_.num_levels);
  const double wanted = request_.background * static_cast<double>(std::max(positives, levels));
  const int64_t count = static_cast<int64_t>(wanted + chance);
  int level = 0;
  ChipRect rect;
  for (int64_t k = 0; k < count && background_.draw(&random, &level, &rect); ++k) {
    add_chip(rect, level_at(level), true, 0, {nullptr, nullptr}, out);
    ++levels_[static_cast<std::size_t>(level)].negative;
    ++levels_[static_cast<std::size_t>(level)].background;
  }
}

// Each at a level drawn by chance; its objects are those whose centre is inside.
void RecordChips::add_crops(ChipList* out) {
  std::vector<bool> has_crop(levels_.size());
  for (int64_t crop = 0; crop < request_.crops; ++crop) {
    uint64_t random = seed(kCrop, static_cast<uint64_t>(crop));
    const uint64_t levels = static_cast<uint64_t>(request_.num_levels);
    const RecordLevel level = level_at(static_cast<int>(draw_below(levels, &random)));
    const ChipRect rect = random_crop(request_at(level, 0), record_.boxes, record_.num_gt, &random);
    rows_.clear();
    for (std::size_t row = 0; row < num_gt(); ++row) {
      if (!holds_centre(rect, box_at(row))) continue;
      rows_.push_back(static_cast<int32_t>(row));
      covered_[row] = 1;
    }
    const bool empty = rows_.empty();
    const int32_t count = static_cast<int32_t>(rows_.size());
    add_chip(rect, level, empty, count, {rows_.data(), rows_.data() + rows_.size()}, out);
    const std::size_t index = static_cast<std::size_t>(level.index);
    LevelCounts& counts = levels_[index];
    counts.positive += !empty;
    counts.images += !empty && !has_crop[index];
    counts.gt_covered += count;
    counts.negative += empty;
    counts.background += empty;
    if (!empty) has_crop[index] = true;
  }
}

void RecordChips::add_chip(const ChipRect& rect, const RecordLevel& level, bool negative,
                           int32_t box_count, const RowSpan& rows, ChipList* out) {
  out->rects.push_back(rect);
  out->levels.push_back(static_cast<uint8_t>(level.index));
  out->negative.push_back(negative);
  out->row_counts.push_back(static_cast<int32_t>(rows.end - rows.begin));
  out->rows.insert(out->rows.end(), rows.begin, rows.end);
  out->box_counts.push_back(box_count);
  out->gt_counts.push_back(gt_in_chip_.count(rect, level.factor));
}

void RecordChips::add_fates(ChipList* out) {
  for (std::size_t row = 0; row < num_gt(); ++row) {
    out->fates.push_back(covered_[row] ? kCovered : fate_of_uncovered(row));
  }
}

GtFate RecordChips::fate_of_uncovered(std::size_t row) const {
  if (request_.crops > 0) return kNotDrawn;
  bool in_range = false, wanted = false, short_enough = false;
  for (int index = 0; index < request_.num_levels; ++index) {
    const RecordLevel level = level_at(index);
    in_range |= is_in_range(level, row);
    if (!is_wanted(level, row)) continue;
    if (is_in_a_candidate(level, row)) return kNotHeld;
    wanted = true;
    short_enough |= longer_[row] * level.factor < static_cast<double>(request_.chip_size);
  }
  if (wanted) return short_enough ? kNoCandidate : kTooLong;
  if (!in_range) return kNoRange;
  return thick_[row] ? kTooLong : kTooThin;
}

bool RecordChips::is_in_a_candidate(const RecordLevel& level, std::size_t row) const {
  const ChipLattice lattice = level_lattice(request_at(level, 0));
  if (lattice.width == 0 || lattice.height == 0) return false;
  Box box;
  const float factor = static_cast<float>(level.factor);
  if (!box_on_level(lattice, factor, request_.legacy_boxes, box_at(row), &box)) return false;
  return has_chip(find_chips(lattice, box));
}

ChipRequest RecordChips::request_at(const RecordLevel& level, uint64_t seed) const {
  return {record_.width,   record_.height, level.factor,         request_.chip_size,
          request_.stride, seed,           request_.legacy_boxes};
}

// Not negative, so that it fits every integer type.
uint64_t RecordChips::seed(uint64_t kind, uint64_t detail) const {
  uint64_t stream = 0;
  const uint64_t keys[] = {request_.seed,   request_.epoch, static_cast<uint64_t>(record_.image_id),
                           record_.flipped, kind,           detail};
  for (const uint64_t key : keys) stream = mix_key(stream, key);
  return stream >> 1;
}

}  // namespace sniper

// All chips of many records for one epoch: which boxes need chips, the cover, which chip each box
// is trained in, negative chips (SNIPER, section 3; 2018 behaviour). No MXNet, no Python.
#ifndef SNIPER_NATIVE_EPOCH_CHIPS_H_
#define SNIPER_NATIVE_EPOCH_CHIPS_H_

#include <array>
#include <cstdint>
#include <vector>

namespace sniper {

// One image. All lengths are in image px.
struct ChipRecord {
  const float* boxes;  // (num_boxes, 4) inclusive corners, ground truth first
  int64_t num_boxes, num_gt;
  int64_t width, height;
  int64_t image_id;
  bool flipped;
  const double* factors;  // (num_levels,) image px -> scaled px
};

// Bounds of the square root of a box's area, image px.
struct SizeRange {
  double low, high;
};

// What the chips of all records depend on.
struct EpochRequest {
  const SizeRange* ranges;  // (num_levels,), finest first
  // (num_levels,) image px: a box whose longer side reaches it belongs to the next coarser level,
  // whatever its area; infinity: no limit, which holds for the coarsest level in any case.
  const double* side_limits;
  int64_t num_levels;
  int64_t chip_size, stride;  // scaled px
  uint64_t seed, epoch;
  bool use_negatives;
  int64_t max_negatives;  // of a record
  // A negative chip holds more false alarms than these, at the finest level and at the others.
  double alarms_finest, alarms_others;
  // When this is 0. Else they hold for so many proposals of a record and chips that are these shares
  // of their level; fewer proposals, or smaller shares, need as many fewer.
  double alarms_per_proposals, alarms_share_finest, alarms_share_others;
  double background;  // background chips per positive chip of the record
  int64_t crops;      // of a record: random crops instead of all other chips; 0: none
  bool gt_rows_only;      // leave proposals out of the chips' rows
  float min_gt_side;      // shorter sides in chip px (+1 convention) drop a box from `num_gt`
  bool legacy_boxes;      // ChipRequest::legacy_clip, and boxes in chips that end as in 2018
};

// What became of a ground truth box; the numbers are those of sniper.chips.stats.GtFate.
enum GtFate : uint8_t {
  kCovered,
  kNoRange,
  kTooThin,
  kTooLong,
  kNoCandidate,
  kNotHeld,
  kNotDrawn,
};

// Counts of one level.
struct LevelCounts {
  int64_t positive, negative, images;  // chips, chips, records with positive chips
  int64_t gt_in_range;                 // ground truth that belongs to the level
  int64_t gt_too_long;                 // of these, longer than what surely fits into a chip
  int64_t gt_wanted, gt_covered;       // positive chips were made for; assigned to one
  int64_t background;                  // of the negative chips, those at random places
};

using ChipRect = std::array<double, 4>;  // x1, y1, x2, y2, image px

// Chips of records in order, the chips of a record in order: positive ones level by level, then
// negative ones, then background chips, which are negative ones without boxes. Random crops with an
// object's centre inside count as positive, the others as background.
struct ChipList {
  std::vector<ChipRect> rects;
  std::vector<uint8_t> levels, negative;
  std::vector<int32_t> row_counts;  // rows of each chip, ascending, one chip after the other:
  std::vector<int32_t> rows;
  std::vector<int32_t> box_counts;  // boxes assigned to each chip, proposals included
  std::vector<int32_t> gt_counts;   // ground truth boxes that are large enough inside each chip
  std::vector<uint8_t> fates;       // of the ground truth boxes of all records
};

struct EpochChips {
  ChipList list;
  std::vector<int32_t> chip_counts;  // of each record that is done
  std::vector<LevelCounts> levels;
  int64_t negative_candidates;
};

// Makes the chips of the first records: of all of them, or of as many as were begun within
// `budget_s` (at least one), so that the caller can look at signals in between. The results do not
// depend on the number of threads. Throws std::invalid_argument for sizes that make no sense.
EpochChips epoch_chips_cpu(const EpochRequest& request, const ChipRecord* records, int64_t count,
                           double budget_s);

}  // namespace sniper

#endif  // SNIPER_NATIVE_EPOCH_CHIPS_H_

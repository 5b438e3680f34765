// The chips of one record. Private to this folder.
#ifndef SNIPER_NATIVE_RECORD_CHIPS_H_
#define SNIPER_NATIVE_RECORD_CHIPS_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "chip_generator/chip_cover.h"
#include "epoch_chips/background_chips.h"
#include "epoch_chips/best_chip.h"
#include "epoch_chips/epoch_chips.h"
#include "epoch_chips/gt_in_chip.h"

namespace sniper {

// One level of the record at hand.
struct RecordLevel {
  int index;
  bool coarsest;
  SizeRange range;
  double side_limit;  // longer sides must be below this, image px
  double side_from;   // the finer level's limit: longer sides from here on belong to this level
  double factor;
  double size_limit;  // longer sides must be below this: longer boxes may fit into no candidate
};

// Makes the chips of one record after the other; keeps its memory in between: one per thread.
class RecordChips {
 public:
  // `request` is kept by reference.
  explicit RecordChips(const EpochRequest& request)
      : request_(request),
        levels_(static_cast<std::size_t>(request.num_levels)),
        gt_in_chip_(request) {}

  // Appends to `out` and returns the number of chips.
  int32_t make(const ChipRecord& record, ChipList* out);

  // Of all records so far.
  const std::vector<LevelCounts>& levels() const { return levels_; }
  int64_t negative_candidates() const { return negative_candidates_; }

 private:
  struct RowSpan {
    const int32_t *begin, *end;
  };
  struct Negative {
    ChipRect rect;
    int level;
    int32_t box_count;
    std::size_t first_row, end_row;  // in negative_rows_
  };

  void measure();
  RecordLevel level_at(int index) const;
  void find_rows(const RecordLevel& level);
  bool is_small_enough(const RecordLevel& level, std::size_t row) const;
  bool is_large_enough(const RecordLevel& level, std::size_t row) const;
  bool is_eligible(const RecordLevel& level, std::size_t row) const;
  bool is_in_range(const RecordLevel& level, std::size_t row) const;
  bool is_wanted(const RecordLevel& level, std::size_t row) const;
  void add_positives(const RecordLevel& level, ChipList* out);
  void find_negatives(const RecordLevel& level);
  double most_without_alarm(const RecordLevel& level) const;
  void cover(const RecordLevel& level, const std::vector<int32_t>& rows, uint64_t kind);
  void assign(const RecordLevel& level, const std::vector<int32_t>& rows, bool positive);
  void group_rows(const std::vector<int32_t>& rows);
  RowSpan rows_of_chip(std::size_t chip) const;
  void add_picked_negatives(ChipList* out);
  void add_background(std::size_t positives, ChipList* out);
  void add_crops(ChipList* out);
  void add_chip(const ChipRect& rect, const RecordLevel& level, bool negative, int32_t box_count,
                const RowSpan& rows, ChipList* out);
  void add_fates(ChipList* out);
  GtFate fate_of_uncovered(std::size_t row) const;
  bool is_in_a_candidate(const RecordLevel& level, std::size_t row) const;
  ChipRequest request_at(const RecordLevel& level, uint64_t seed) const;
  uint64_t seed(uint64_t kind, uint64_t detail) const;

  std::size_t num_gt() const { return static_cast<std::size_t>(record_.num_gt); }
  const float* box_at(std::size_t row) const { return record_.boxes + row * 4; }
  bool keeps_row(std::size_t row) const { return !request_.gt_rows_only || row < num_gt(); }

  const EpochRequest& request_;
  std::vector<LevelCounts> levels_;
  int64_t negative_candidates_ = 0;

  // Of the record at hand; one element per box.
  ChipRecord record_{};
  std::vector<double> side_, longer_;    // square root of the area, longer side; truncated px
  std::vector<uint8_t> finite_, thick_;  // thick: 2 px or more on both sides
  std::vector<uint8_t> covered_;         // assigned to a positive chip of any level
  std::vector<int32_t> chip_of_;         // on the level at hand, or -1; eligible rows only
  std::vector<Negative> negatives_;      // of all levels
  std::vector<int32_t> negative_rows_;
  std::vector<std::pair<uint64_t, std::size_t>> picked_;  // random number, negative
  GtInChip gt_in_chip_;
  BackgroundChips background_;

  // Of the level at hand.
  std::vector<int32_t> eligible_, wanted_, uncovered_;
  std::vector<float> boxes_to_cover_;
  ChipCover cover_;
  std::vector<ChipRect> rects_;
  BestChip best_chip_;  // of rects_
  std::vector<int32_t> box_counts_;
  std::vector<int32_t> rows_;          // chip by chip
  std::vector<std::size_t> row_ends_;  // rows_ of chip k: row_ends_[k] ... row_ends_[k + 1]
  std::vector<std::size_t> next_row_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_RECORD_CHIPS_H_

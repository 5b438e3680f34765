// Soft-NMS of many rows of which few overlap.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_PAIRS_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_PAIRS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "multi_scale_nms/overlap_pairs.h"
#include "multi_scale_nms/radix_sort.h"
#include "multi_scale_nms/soft_nms_tree.h"

namespace sniper {

// What soft_nms_cpu is called with.
struct SoftNmsCall {
  float* dets;
  int64_t* sources;  // may be null
  float sigma, min_score;
  int64_t limit;
};

// All pairs of rows that overlap are found first; then a selection costs what its pairs cost.
// Scores that are not negative never grow: rows are sorted once, and those that have decayed when
// their turn comes wait in a heap.
class SoftNmsPairs {
 public:
  // As soft_nms_cpu without a limit, for `count` > 0 finite rows. Returns -1, and has changed
  // nothing, where this way is none: many rows overlap, a score is negative, or very many tie.
  int64_t run(const SoftNmsCall& call, int32_t count);

 private:
  static std::size_t at(int32_t index) { return static_cast<std::size_t>(index); }
  bool start(const float* dets, int32_t count);
  void wait(int32_t row);
  void drop_changed();
  void collect_best();
  int32_t take_first();
  void decay_others(const SoftNmsCall& call, int32_t chosen, float inverse_sigma);
  void move(int32_t from, int32_t to);
  int32_t remove_fallen(int32_t left);

  OverlapPairs pairs_;
  std::vector<uint32_t> key_;                // [row] descends with the score; kGone: not there
  std::vector<float> score_;                 // [row]
  std::vector<KeyedRow> by_score_, sorted_;  // rows and their keys at the start
  std::size_t next_;                         // of by_score_
  std::vector<KeyedRow> heap_;               // rows that have decayed, the best one first
  std::vector<int32_t> best_;                // rows that share the best score
  std::vector<int32_t> row_at_, position_of_;  // where the selections and removals have put rows
  std::vector<Fallen> fallen_;                 // by the last selection
  std::vector<float> out_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_PAIRS_H_

// Soft-NMS of many rows of which few overlap.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_PAIRS_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_PAIRS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/box.h"
#include "multi_scale_nms/fallen.h"
#include "multi_scale_nms/overlap_pairs.h"
#include "multi_scale_nms/radix_sort.h"

namespace sniper {

// What soft_nms_cpu is called with.
struct SoftNmsCall {
  float* dets;
  int64_t* sources;  // may be null
  float sigma, min_score;
  int64_t limit;
};

// All pairs of rows that overlap are found first; then a selection costs what its pairs cost.
// Scores that are not negative never grow: rows lie in buckets by score, which are opened one after
// the other; a row that has decayed when its bucket is opened goes to a later one.
class SoftNmsPairs {
 public:
  // As soft_nms_cpu without a limit, for `count` > 0 finite rows. Returns -1, and has changed
  // nothing, where this way is none: many rows overlap, a score is negative, or very many tie.
  int64_t run(const SoftNmsCall& call, int32_t count);

 private:
  static std::size_t at(int32_t index) { return static_cast<std::size_t>(index); }
  bool start(const float* dets, int32_t count);
  std::size_t bucket_of(uint32_t key) const { return (key - least_key_) >> bucket_shift_; }
  uint32_t key(int32_t row) const { return ~ordered_bits(rows_[at(row)].score); }
  void put(int32_t row);
  void open_buckets();
  int32_t pop();
  void collect_best();
  int32_t take_first();
  void decay_others(const SoftNmsCall& call, int32_t chosen, float inverse_sigma);
  void move(int32_t from, int32_t to);
  int32_t remove_fallen(int32_t left);

  // All that a pair asks for, in one cache line; by the places of the pairs.
  struct alignas(32) Row {
    Box box;
    float area, score;  // kGone: selected or fallen
    int32_t position;   // where the selections and removals have put it
    int32_t following;  // in its bucket
  };

  OverlapPairs pairs_;
  std::vector<Row> rows_;
  uint32_t least_key_;
  int bucket_shift_;
  std::size_t opened_;           // the bucket whose rows are in open_
  std::vector<int32_t> bucket_;  // its first row
  std::vector<KeyedRow> open_;   // a heap, the best row first
  std::vector<int32_t> best_;    // rows that share the best score
  std::vector<int32_t> row_at_;  // [position] place
  std::vector<Fallen> fallen_;   // by the last selection
  std::vector<float> out_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_PAIRS_H_

// Soft-NMS of many rows, part after part of those that share no pixel.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_PARTS_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_PARTS_H_

#include <cstdint>
#include <vector>

#include "multi_scale_nms/overlap_parts.h"
#include "multi_scale_nms/soft_nms_tree.h"
#include "multi_scale_nms/spatial_order.h"

namespace sniper {

// What soft_nms_cpu is called with.
struct SoftNmsCall {
  float* dets;
  int64_t* sources;  // may be null
  float sigma, min_score;
  int64_t limit;
};

// No row changes the scores of another part, and a part never sees the positions of the definition
// unless scores tie. So each part is a small soft-NMS in the cache; then the selections of all are
// put in the order of their scores, and done once more with nothing but the positions, which says
// who is first among parts whose scores tie.
class SoftNmsParts {
 public:
  // As soft_nms_cpu without a limit, for `count` > 0 finite rows. Returns -1, and has changed
  // nothing, where this way is none: boxes lie too close, a score is negative, scores tie within a
  // part, or very many do.
  int64_t run(const SoftNmsCall& call, int32_t count);

 private:
  // A selected row, and the end of its fallen rows in `fallen_`.
  struct Selection {
    int32_t row;
    float score;
    int32_t fallen_end;
  };

  template <int kLanes>
  static bool select(SoftNmsParts* all, const SoftNmsCall& call);
  template <int kLanes>
  bool select_part(ScoreTree* tree, const Decay& decay, const int32_t* rows);
  void order_part(const float* dets, int32_t part);
  void order_selections();
  bool replay(int32_t count);
  void take_first_of_ties(std::size_t begin, std::size_t end);
  void remove(std::size_t selection, int32_t* left);

  OverlapParts parts_;
  TreeMemory trees_;
  SpatialOrder spatial_;
  std::vector<int32_t> order_, part_rows_;
  std::vector<float> part_dets_, out_;
  std::vector<Selection> selections_;
  std::vector<int32_t> fallen_;    // rows
  std::vector<Fallen> part_fallen_;
  std::vector<KeyedRow> by_score_, sorted_;  // selections
  std::vector<int32_t> row_at_, position_of_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_PARTS_H_

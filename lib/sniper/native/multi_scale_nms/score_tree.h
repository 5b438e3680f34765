// Detections in a packed R-tree whose nodes know the best score below them: the best row of all,
// and the rows that overlap a box, are found without a look at the others.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_SCORE_TREE_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_SCORE_TREE_H_

#include <cstdint>
#include <limits>

#include "common/box.h"
#include "common/simd.h"

namespace sniper {

constexpr int kTreeFan = 16;
constexpr float kNoScore = -std::numeric_limits<float>::infinity();
constexpr int32_t kNoPosition = std::numeric_limits<int32_t>::max();
constexpr float kFar = 1e30f;  // corners of a slot without a row, which overlaps nothing

// Sixteen rows, or for a node what its sixteen children hold.
struct alignas(64) TreeBlock {
  float x1[kTreeFan], y1[kTreeFan], x2[kTreeFan], y2[kTreeFan];  // px; around all rows below
  float score[kTreeFan];                                         // the best one below
  int32_t position[kTreeFan];  // of that row; the first of several
  float area[kTreeFan];        // with +1 sides; rows only
};

template <class Join, int kLanes>
SNIPER_ALWAYS_INLINE float fold_slots(const float (&values)[kTreeFan]) {
  typename Simd<kLanes>::Floats folded = Simd<kLanes>::load(values);
  for (int i = kLanes; i < kTreeFan; i += kLanes) {
    folded = Join::join(folded, Simd<kLanes>::load(values + i));
  }
  return reduce_lanes<Join, FloatLanes, kLanes>(folded);
}

struct BestRow {
  float score;
  int32_t position;
};

// The best row of a block: the largest score, and the first position that has it.
template <int kLanes>
SNIPER_ALWAYS_INLINE BestRow best_row(const TreeBlock& block) {
  typedef Simd<kLanes> Lanes;
  const float score = fold_slots<LargerOf, kLanes>(block.score);
  const typename Lanes::Ints none = Lanes::all(kNoPosition);
  typename Lanes::Ints first = none;
  for (int i = 0; i < kTreeFan; i += kLanes) {
    const typename Lanes::Floats scores = Lanes::load(block.score + i);
    first = SmallerOf::join(first, scores == score ? Lanes::load(block.position + i) : none);
  }
  return {score, reduce_lanes<SmallerOf, IntLanes, kLanes>(first)};
}

template <int kLanes>
struct BoxLanes {
  typename Simd<kLanes>::Floats x1, y1, x2, y2;
};

template <int kLanes>
SNIPER_ALWAYS_INLINE BoxLanes<kLanes> all_lanes(const Box& box) {
  typedef Simd<kLanes> Lanes;
  return {Lanes::all(box.x1), Lanes::all(box.y1), Lanes::all(box.x2), Lanes::all(box.y2)};
}

// Intersections of a box with kLanes slots from `first` on, as by `intersection` of common/box.h.
template <int kLanes>
SNIPER_ALWAYS_INLINE auto intersections(const TreeBlock& block, int first,
                                        const BoxLanes<kLanes>& box) {
  typedef Simd<kLanes> Lanes;
  typedef typename Lanes::Floats Floats;
  const Floats width = SmallerOf::join(Lanes::load(block.x2 + first), box.x2) -
                       LargerOf::join(Lanes::load(block.x1 + first), box.x1) + 1.0f;
  const Floats height = SmallerOf::join(Lanes::load(block.y2 + first), box.y2) -
                        LargerOf::join(Lanes::load(block.y1 + first), box.y1) + 1.0f;
  return LargerOf::join(width, Floats{}) * LargerOf::join(height, Floats{});
}

// One bit for each slot of a block that overlaps `box`. Never misses the node of a row that does:
// the roundings of `intersection` are monotonic.
template <int kLanes>
SNIPER_ALWAYS_INLINE uint32_t overlapping_slots(const TreeBlock& block,
                                                const BoxLanes<kLanes>& box) {
  typedef typename Simd<kLanes>::Ints Ints;
  Ints slots{};
  for (int i = 0; i < kTreeFan; i += kLanes) {
    slots |= intersections<kLanes>(block, i, box) > 0.0f ? lane_bits<kLanes>() << i : Ints{};
  }
  return static_cast<uint32_t>(reduce_lanes<BitsOf, IntLanes, kLanes>(slots));
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_SCORE_TREE_H_

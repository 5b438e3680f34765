// The steps of soft-NMS on a tree of rows (score_tree.h): building it, decaying the rows that overlap
// a selected one, and keeping its nodes true.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_TREE_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_TREE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/exp.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/score_tree.h"

namespace sniper {

constexpr int kMaxLevels = 8;  // 16^8 rows are more than there can be
constexpr int32_t kBlocksPerPass = 32;
// One level of the tree, and the blocks that the current selection has met.
struct Level {
  TreeBlock* blocks;
  int32_t count;
  int32_t* met;
  int32_t num_met;
};

// A row that fell below the least score.
struct Fallen {
  int32_t position, slot;
};

struct ScoreTree {
  Level levels[kMaxLevels];
  int num_levels;
  int32_t num_slots;  // of the lowest level, empty ones at the end included

  TreeBlock& block(int32_t slot) const { return levels[0].blocks[slot / kTreeFan]; }
};

// How a selected row weakens those that overlap it.
struct Decay {
  float inverse_sigma, min_score;
  float tied;  // a row with this score stops the decay; NaN for none
};

constexpr int32_t kTied = -1;

inline int64_t blocks_for(int64_t slots) { return (slots + kTreeFan - 1) / kTreeFan; }

// Blocks of a tree of `rows` rows, all levels together.
inline int64_t tree_blocks(int64_t rows) {
  int64_t total = blocks_for(rows);
  for (int64_t level = total; level > 1; level = blocks_for(level)) total += blocks_for(level);
  return total;
}

// Cuts the memory of a tree of `rows` rows into its levels, and clears the slots behind the rows.
inline void lay_out(ScoreTree* tree, int32_t rows) {
  TreeBlock* blocks = tree->levels[0].blocks;
  int32_t* met = tree->levels[0].met;
  int64_t slots = rows;
  tree->num_levels = 0;
  do {
    const int64_t count = blocks_for(slots);
    for (int64_t slot = slots; slot < count * kTreeFan; ++slot) {
      empty_slot(blocks + slot / kTreeFan, static_cast<int>(slot % kTreeFan));
    }
    tree->levels[tree->num_levels++] = {blocks, static_cast<int32_t>(count), met, 0};
    blocks += count;
    met += count;
    slots = count;
  } while (slots > 1);
  tree->num_slots = tree->levels[0].count * kTreeFan;
}

// Fills the nodes above the rows.
template <int kLanes>
SNIPER_ALWAYS_INLINE void build_nodes(ScoreTree* tree) {
  for (int level = 0; level + 1 < tree->num_levels; ++level) {
    const Level& children = tree->levels[level];
    for (int32_t child = 0; child < children.count; ++child) {
      const TreeBlock& block = children.blocks[child];
      TreeBlock* parent = tree->levels[level + 1].blocks + child / kTreeFan;
      const int lane = child % kTreeFan;
      parent->x1[lane] = fold_slots<SmallerOf, kLanes>(block.x1);
      parent->y1[lane] = fold_slots<SmallerOf, kLanes>(block.y1);
      parent->x2[lane] = fold_slots<LargerOf, kLanes>(block.x2);
      parent->y2[lane] = fold_slots<LargerOf, kLanes>(block.y2);
      set_best<kLanes>(parent, lane, best_row<kLanes>(block));
    }
  }
}

// Memory of trees; kept for the next one, because fresh pages cost more than small trees.
class TreeMemory {
 public:
  // A tree for up to `rows` rows, to be filled and laid out.
  ScoreTree take(int64_t rows) {
    const std::size_t blocks = static_cast<std::size_t>(tree_blocks(rows));
    if (blocks_.size() < blocks) blocks_ = std::vector<TreeBlock>(blocks);
    if (met_.size() < blocks) met_.resize(blocks);
    ScoreTree tree{};
    tree.levels[0] = {blocks_.data(), 0, met_.data(), 0};
    return tree;
  }

 private:
  std::vector<TreeBlock> blocks_;
  std::vector<int32_t> met_;
};

inline void put_row(const ScoreTree& tree, int32_t slot, const float* det, int32_t position) {
  const Box box = {det[0], det[1], det[2], det[3]};
  TreeBlock& block = tree.block(slot);
  const int lane = slot % kTreeFan;
  block.x1[lane] = box.x1;
  block.y1[lane] = box.y1;
  block.x2[lane] = box.x2;
  block.y2[lane] = box.y2;
  block.score[lane] = det[4];
  block.position[lane] = position;
  block.area[lane] = area_inclusive(box);
}

// Tells the nodes above a row that its score or its position has changed.
template <int kLanes>
SNIPER_ALWAYS_INLINE void update_nodes(ScoreTree* tree, int32_t slot) {
  int32_t child = slot / kTreeFan;
  for (int level = 0; level + 1 < tree->num_levels; ++level) {
    const BestRow best = best_row<kLanes>(tree->levels[level].blocks[child]);
    const int lane = child % kTreeFan;
    child /= kTreeFan;
    TreeBlock* parent = tree->levels[level + 1].blocks + child;
    if (parent->score[lane] == best.score && parent->position[lane] == best.position) return;
    set_best<kLanes>(parent, lane, best);
  }
}

// Intersection over union of the selected box with the rows of a block.
template <int kLanes>
SNIPER_ALWAYS_INLINE void write_ratios(const TreeBlock& block, const BoxLanes<kLanes>& chosen,
                                       float chosen_area, float* ratios) {
  typedef Simd<kLanes> Lanes;
  for (int i = 0; i < kTreeFan; i += kLanes) {
    const typename Lanes::Floats inter = intersections<kLanes>(block, i, chosen);
    Lanes::store(ratios + i, inter / (chosen_area + Lanes::load(block.area + i) - inter));
  }
}

// Decays the rows of a block as soft_overlap and soft_exponent say. One bit for each that overlaps
// and falls below the least score, and one in the upper half for each that had the tied score.
template <int kLanes>
SNIPER_ALWAYS_INLINE uint32_t decay_rows(TreeBlock* block, const float* ratios, const Decay& decay) {
  typedef Simd<kLanes> Lanes;
  typedef typename Lanes::Floats Floats;
  typedef typename Lanes::Ints Ints;
  Ints bits{};
  for (int i = 0; i < kTreeFan; i += kLanes) {
    // Without overlap the weight is exactly 1.
    const Floats overlap = LargerOf::join(Lanes::load(ratios + i), Floats{});
    const Floats power = SmallerOf::join(overlap * overlap * decay.inverse_sigma, Lanes::all(87.0f));
    const Floats scores = Lanes::load(block->score + i);
    const Floats decayed = scores * portable_exp_within<Floats, typename Lanes::Bits>(-power);
    Lanes::store(block->score + i, decayed);
    const Floats judged = overlap > 0.0f ? decayed : Lanes::all(-kNoScore);
    bits |= judged < decay.min_score ? lane_bits<kLanes>() << i : Ints{};
    bits |= scores == decay.tied ? lane_bits<kLanes>() << (i + kTreeFan) : Ints{};
  }
  return static_cast<uint32_t>(reduce_lanes<BitsOf, IntLanes, kLanes>(bits));
}

// Decays the rows of some blocks, and takes those that fall out of the tree. In three passes: one
// alone has a chain of dependent steps so long that the processor sees no second block.
template <int kLanes>
SNIPER_ALWAYS_INLINE int32_t decay_blocks(ScoreTree* tree, const int32_t* indices, int32_t count,
                                          const BoxLanes<kLanes>& chosen, float chosen_area,
                                          const Decay& decay, Fallen* fallen) {
  alignas(64) float ratios[kBlocksPerPass * kTreeFan];
  uint32_t slots[kBlocksPerPass], any = 0;
  TreeBlock* blocks = tree->levels[0].blocks;
  for (int32_t i = 0; i < count; ++i) {
    write_ratios<kLanes>(blocks[indices[i]], chosen, chosen_area, ratios + i * kTreeFan);
  }
  for (int32_t i = 0; i < count; ++i) {
    slots[i] = decay_rows<kLanes>(blocks + indices[i], ratios + i * kTreeFan, decay);
    any |= slots[i];
  }
  if (any == 0) return 0;
  if (any >> kTreeFan != 0) return kTied;
  int32_t num_fallen = 0;
  for (int32_t i = 0; i < count; ++i) {
    for (uint32_t bits = slots[i]; bits != 0; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      TreeBlock* block = blocks + indices[i];
      fallen[num_fallen++] = {block->position[lane], indices[i] * kTreeFan + lane};
      clear_slot<kLanes>(block, lane);
    }
  }
  return num_fallen;
}

// Decays the rows that overlap the selected one; returns how many of them have fallen, which are
// gone from the tree but keep their positions, or kTied.
template <int kLanes>
SNIPER_ALWAYS_INLINE int32_t decay_overlapping(ScoreTree* tree, const Box& chosen,
                                               const Decay& decay, Fallen* fallen) {
  const BoxLanes<kLanes> box = all_lanes<kLanes>(chosen);
  const float area = area_inclusive(chosen);
  Level* levels = tree->levels;
  levels[tree->num_levels - 1].met[0] = 0;
  levels[tree->num_levels - 1].num_met = 1;
  for (int level = tree->num_levels - 1; level > 0; --level) {
    int32_t* met = levels[level - 1].met;
    for (int32_t i = 0; i < levels[level].num_met; ++i) {
      const int32_t node = levels[level].met[i];
      uint32_t slots = overlapping_slots<kLanes>(levels[level].blocks[node], box);
      for (; slots != 0; slots &= slots - 1) *met++ = node * kTreeFan + __builtin_ctz(slots);
    }
    levels[level - 1].num_met = static_cast<int32_t>(met - levels[level - 1].met);
  }
  int32_t num_fallen = 0;
  for (int32_t first = 0; first < levels[0].num_met; first += kBlocksPerPass) {
    const int32_t count = std::min(kBlocksPerPass, levels[0].num_met - first);
    const int32_t more = decay_blocks<kLanes>(tree, levels[0].met + first, count, box, area, decay,
                                              fallen + num_fallen);
    if (more == kTied) return kTied;
    num_fallen += more;
  }
  for (int level = 0; level + 1 < tree->num_levels; ++level) {
    for (int32_t i = 0; i < levels[level].num_met; ++i) {
      const int32_t child = levels[level].met[i];
      set_best<kLanes>(levels[level + 1].blocks + child / kTreeFan, child % kTreeFan,
                       best_row<kLanes>(levels[level].blocks[child]));
    }
  }
  return num_fallen;
}

inline void sort_fallen(Fallen* fallen, int32_t count) {
  std::sort(fallen, fallen + count,
            [](const Fallen& a, const Fallen& b) { return a.position < b.position; });
}

// Puts the last of `left` rows in the place of every fallen one, by move(from, to), which are
// positions; a last row that has fallen too just goes.
template <class Move>
SNIPER_ALWAYS_INLINE void fill_gaps(Fallen* fallen, int32_t num_fallen, int32_t* left,
                                    const Move& move) {
  if (num_fallen > 1) sort_fallen(fallen, num_fallen);
  for (int32_t next = 0; next < num_fallen; ++next) {
    while (next < num_fallen && fallen[num_fallen - 1].position == *left - 1) {
      --*left;
      --num_fallen;
    }
    if (next == num_fallen) return;
    move(--*left, fallen[next].position);
  }
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_TREE_H_

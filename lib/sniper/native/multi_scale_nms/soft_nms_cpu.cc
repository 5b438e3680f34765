// Soft-NMS on a tree of rows: a selection looks at the rows that overlap the selected one, and
// nowhere else. Rows stay in their slots; the positions that the selections and removals of the
// definition give them are numbers of their own, because ties go to the first position.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/exp.h"
#include "common/isa.h"
#include "multi_scale_nms/fallen.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/score_tree.h"
#include "multi_scale_nms/soft_nms_pairs.h"
#include "multi_scale_nms/spatial_order.h"

namespace sniper {
namespace {

constexpr int kMaxLevels = 8;  // 16^8 rows are more than there can be
constexpr int32_t kBlocksPerPass = 32;
constexpr int64_t kFewRows = 64;    // sorting so few costs more than it saves
constexpr int64_t kManyRows = 128;  // worth a search for pairs
constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max() - kTreeFan;

// One level of the tree, and the blocks that the current selection has met.
struct Level {
  TreeBlock* blocks;
  int32_t count;
  int32_t* met;
  int32_t num_met;
};

struct SoftNms {
  Level levels[kMaxLevels];
  int num_levels;
  int32_t num_slots;   // of the lowest level, empty ones at the end included
  int32_t* slot_of;    // [position] of the rows that are left
  int32_t* source_of;  // [slot] position on input
  Fallen* fallen;      // room for all rows
  int32_t count;       // rows that are selected or left: positions 0 .. count - 1

  TreeBlock& block(int32_t slot) const { return levels[0].blocks[slot / kTreeFan]; }
};

// Kept for the next call of the same thread: fresh pages cost more than small calls.
struct Memory {
  std::vector<TreeBlock> blocks;
  std::vector<int32_t> met, slots, sources, rows;
  std::vector<Fallen> fallen;
  SpatialOrder order;
  SoftNmsPairs pairs;
};

void clear_slot(TreeBlock* block, int lane) {
  block->x1[lane] = block->y1[lane] = kFar;
  block->x2[lane] = block->y2[lane] = -kFar;
  block->score[lane] = kNoScore;
  block->position[lane] = kNoPosition;
  block->area[lane] = 0.0f;
}

void copy_slot(const TreeBlock& from, int from_lane, TreeBlock* to, int to_lane) {
  to->x1[to_lane] = from.x1[from_lane];
  to->y1[to_lane] = from.y1[from_lane];
  to->x2[to_lane] = from.x2[from_lane];
  to->y2[to_lane] = from.y2[from_lane];
  to->score[to_lane] = from.score[from_lane];
  to->position[to_lane] = from.position[from_lane];
  to->area[to_lane] = from.area[from_lane];
}

Box box_of(const TreeBlock& block, int lane) {
  return {block.x1[lane], block.y1[lane], block.x2[lane], block.y2[lane]};
}

void set_best(TreeBlock* block, int lane, const BestRow& best) {
  block->score[lane] = best.score;
  block->position[lane] = best.position;
}

int64_t blocks_for(int64_t slots) { return (slots + kTreeFan - 1) / kTreeFan; }

// Blocks of a tree of `rows` rows, all levels together.
int64_t tree_blocks(int64_t rows) {
  int64_t total = blocks_for(rows);
  for (int64_t level = total; level > 1; level = blocks_for(level)) total += blocks_for(level);
  return total;
}

// Cuts the memory of a tree of `rows` rows into its levels, and clears the slots behind the rows.
void lay_out(SoftNms* nms, int32_t rows) {
  TreeBlock* blocks = nms->levels[0].blocks;
  int32_t* met = nms->levels[0].met;
  int64_t slots = rows;
  nms->num_levels = 0;
  do {
    const int64_t count = blocks_for(slots);
    for (int64_t slot = slots; slot < count * kTreeFan; ++slot) {
      clear_slot(blocks + slot / kTreeFan, static_cast<int>(slot % kTreeFan));
    }
    nms->levels[nms->num_levels++] = {blocks, static_cast<int32_t>(count), met, 0};
    blocks += count;
    met += count;
    slots = count;
  } while (slots > 1);
  nms->num_slots = nms->levels[0].count * kTreeFan;
}

// Fills the nodes above the rows.
template <int kLanes>
SNIPER_ALWAYS_INLINE void build_nodes(SoftNms* nms) {
  for (int level = 0; level + 1 < nms->num_levels; ++level) {
    const Level& children = nms->levels[level];
    for (int32_t child = 0; child < children.count; ++child) {
      const TreeBlock& block = children.blocks[child];
      TreeBlock* parent = nms->levels[level + 1].blocks + child / kTreeFan;
      const int lane = child % kTreeFan;
      parent->x1[lane] = fold_slots<SmallerOf, kLanes>(block.x1);
      parent->y1[lane] = fold_slots<SmallerOf, kLanes>(block.y1);
      parent->x2[lane] = fold_slots<LargerOf, kLanes>(block.x2);
      parent->y2[lane] = fold_slots<LargerOf, kLanes>(block.y2);
      set_best(parent, lane, best_row<kLanes>(block));
    }
  }
}

// Closes the gaps of the rows that are gone.
template <int kLanes>
SNIPER_ALWAYS_INLINE void rebuild(SoftNms* nms) {
  int32_t kept = 0;
  for (int32_t slot = 0; slot < nms->num_slots; ++slot) {
    const TreeBlock& from = nms->block(slot);
    const int32_t position = from.position[slot % kTreeFan];
    if (position == kNoPosition) continue;
    copy_slot(from, slot % kTreeFan, &nms->block(kept), kept % kTreeFan);
    nms->source_of[kept] = nms->source_of[slot];
    nms->slot_of[position] = kept++;
  }
  lay_out(nms, kept);
  build_nodes<kLanes>(nms);
}

// Tells the nodes above a row that its score or its position has changed.
template <int kLanes>
SNIPER_ALWAYS_INLINE void update_nodes(SoftNms* nms, int32_t slot) {
  int32_t child = slot / kTreeFan;
  for (int level = 0; level + 1 < nms->num_levels; ++level) {
    const BestRow best = best_row<kLanes>(nms->levels[level].blocks[child]);
    const int lane = child % kTreeFan;
    child /= kTreeFan;
    TreeBlock* parent = nms->levels[level + 1].blocks + child;
    if (parent->score[lane] == best.score && parent->position[lane] == best.position) return;
    set_best(parent, lane, best);
  }
}

// Puts the row of a slot at another position.
template <int kLanes>
SNIPER_ALWAYS_INLINE void move_row(SoftNms* nms, int32_t slot, int32_t position) {
  TreeBlock& block = nms->block(slot);
  const int lane = slot % kTreeFan;
  block.position[lane] = position;
  nms->slot_of[position] = slot;
  if (nms->num_levels == 1) return;
  const int32_t child = slot / kTreeFan;
  const TreeBlock& parent = nms->levels[1].blocks[child / kTreeFan];
  if (block.score[lane] == parent.score[child % kTreeFan]) update_nodes<kLanes>(nms, slot);
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

// Decays the rows of a block as soft_overlap and soft_exponent say; one bit for each that overlaps
// and falls below the least score.
template <int kLanes>
SNIPER_ALWAYS_INLINE uint32_t decay_rows(TreeBlock* block, const float* ratios, float inverse_sigma,
                                         float min_score) {
  typedef Simd<kLanes> Lanes;
  typedef typename Lanes::Floats Floats;
  typename Lanes::Ints fallen{};
  for (int i = 0; i < kTreeFan; i += kLanes) {
    // Without overlap the weight is exactly 1.
    const Floats overlap = LargerOf::join(Lanes::load(ratios + i), Floats{});
    const Floats power = SmallerOf::join(overlap * overlap * inverse_sigma, Lanes::all(87.0f));
    const Floats decayed =
        Lanes::load(block->score + i) * portable_exp_within<Floats, typename Lanes::Bits>(-power);
    Lanes::store(block->score + i, decayed);
    const Floats judged = overlap > 0.0f ? decayed : Lanes::all(-kNoScore);
    fallen |= judged < min_score ? lane_bits<kLanes>() << i : typename Lanes::Ints{};
  }
  return static_cast<uint32_t>(reduce_lanes<BitsOf, IntLanes, kLanes>(fallen));
}

// Decays the rows of some blocks, and takes those that fall out of the tree. In three passes: one
// alone has a chain of dependent steps so long that the processor sees no second block.
template <int kLanes>
SNIPER_ALWAYS_INLINE int32_t decay_blocks(SoftNms* nms, const int32_t* indices, int32_t count,
                                          const BoxLanes<kLanes>& chosen, float chosen_area,
                                          float inverse_sigma, float min_score, Fallen* fallen) {
  alignas(64) float ratios[kBlocksPerPass * kTreeFan];
  uint32_t slots[kBlocksPerPass], any = 0;
  TreeBlock* blocks = nms->levels[0].blocks;
  for (int32_t i = 0; i < count; ++i) {
    write_ratios<kLanes>(blocks[indices[i]], chosen, chosen_area, ratios + i * kTreeFan);
  }
  for (int32_t i = 0; i < count; ++i) {
    slots[i] =
        decay_rows<kLanes>(blocks + indices[i], ratios + i * kTreeFan, inverse_sigma, min_score);
    any |= slots[i];
  }
  if (any == 0) return 0;
  int32_t num_fallen = 0;
  for (int32_t i = 0; i < count; ++i) {
    for (uint32_t bits = slots[i]; bits != 0; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      TreeBlock* block = blocks + indices[i];
      fallen[num_fallen++] = {block->position[lane], indices[i] * kTreeFan + lane};
      clear_slot(block, lane);
    }
  }
  return num_fallen;
}

// Decays the rows that overlap the selected one; returns how many of them have fallen, which are
// gone from the tree but keep their positions.
template <int kLanes>
SNIPER_ALWAYS_INLINE int32_t decay_overlapping(SoftNms* nms, const Box& chosen, float inverse_sigma,
                                               float min_score) {
  const BoxLanes<kLanes> box = all_lanes<kLanes>(chosen);
  const float area = area_inclusive(chosen);
  Level* levels = nms->levels;
  levels[nms->num_levels - 1].met[0] = 0;
  levels[nms->num_levels - 1].num_met = 1;
  for (int level = nms->num_levels - 1; level > 0; --level) {
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
    num_fallen += decay_blocks<kLanes>(nms, levels[0].met + first, count, box, area, inverse_sigma,
                                       min_score, nms->fallen + num_fallen);
  }
  for (int level = 0; level + 1 < nms->num_levels; ++level) {
    for (int32_t i = 0; i < levels[level].num_met; ++i) {
      const int32_t child = levels[level].met[i];
      set_best(levels[level + 1].blocks + child / kTreeFan, child % kTreeFan,
               best_row<kLanes>(levels[level].blocks[child]));
    }
  }
  return num_fallen;
}

// `move_row` of the row at a position, for fill_gaps.
template <int kLanes>
struct RowMover {
  SoftNms* nms;

  SNIPER_ALWAYS_INLINE void operator()(int32_t from, int32_t to) const {
    move_row<kLanes>(nms, nms->slot_of[from], to);
  }
};

// Selects rows, best first; see soft_nms_cpu.
template <int kLanes>
SNIPER_ALWAYS_INLINE int64_t select_rows(SoftNms* nms, const SoftNmsCall& call) {
  build_nodes<kLanes>(nms);
  const float inverse_sigma = 1.0f / call.sigma;
  for (int32_t chosen = 0; chosen < nms->count; ++chosen) {
    if (2 * (nms->count - chosen) < nms->num_slots && nms->num_levels > 1) rebuild<kLanes>(nms);
    const BestRow best = best_row<kLanes>(nms->levels[nms->num_levels - 1].blocks[0]);
    if (chosen >= call.limit && call.limit > 0) {
      // Positive scores never grow, and the others stay below.
      const float least = call.dets[(call.limit - 1) * kDetection + 4];
      if (least > 0.0f && best.score < least) return chosen;
    }
    const int32_t slot = nms->slot_of[best.position];
    TreeBlock* block = &nms->block(slot);
    const Box box = box_of(*block, slot % kTreeFan);
    const float score = block->score[slot % kTreeFan];  // best.score may be another zero
    const float values[kDetection] = {box.x1, box.y1, box.x2, box.y2, score};
    std::copy_n(values, kDetection, call.dets + chosen * kDetection);
    if (call.sources != nullptr) call.sources[chosen] = nms->source_of[slot];
    clear_slot(block, slot % kTreeFan);
    const int32_t first = nms->slot_of[chosen];
    if (first != slot) move_row<kLanes>(nms, first, best.position);
    // A box overlaps itself, so decay_overlapping updates its nodes; but not one without a side.
    if (!(intersection(box, box) > 0.0f)) update_nodes<kLanes>(nms, slot);
    const int32_t num_fallen = decay_overlapping<kLanes>(nms, box, inverse_sigma, call.min_score);
    fill_gaps(nms->fallen, num_fallen, &nms->count, RowMover<kLanes>{nms});
  }
  return nms->count;
}

// Moves the finite rows of `dets` to the front, and writes the rows that they were.
int32_t keep_finite(float* dets, int64_t count, int32_t* rows) {
  int32_t kept = 0;
  for (int64_t n = 0; n < count; ++n) {
    const float* det = dets + n * kDetection;
    if (!is_finite(Box{det[0], det[1], det[2], det[3]}) || !is_finite(det[4])) continue;
    if (kept != n) std::copy_n(det, kDetection, dets + kept * kDetection);
    rows[kept++] = static_cast<int32_t>(n);
  }
  return kept;
}

// Puts `count` finite rows into the lowest level of the tree, neighbours side by side.
void load_rows(const float* dets, int32_t count, const int32_t* order, SoftNms* nms) {
  nms->count = count;
  for (int32_t slot = 0; slot < count; ++slot) {
    const int32_t position = order[slot];
    const float* det = dets + static_cast<int64_t>(position) * kDetection;
    const Box box = {det[0], det[1], det[2], det[3]};
    TreeBlock& block = nms->block(slot);
    const int lane = slot % kTreeFan;
    block.x1[lane] = box.x1;
    block.y1[lane] = box.y1;
    block.x2[lane] = box.x2;
    block.y2[lane] = box.y2;
    block.score[lane] = det[4];
    block.position[lane] = position;
    block.area[lane] = area_inclusive(box);
    nms->slot_of[position] = slot;
  }
  lay_out(nms, count);
}

// From positions among the finite rows to those on input; returns `kept`.
int64_t name_sources(const std::vector<int32_t>& rows, int64_t kept, int64_t* sources) {
  for (int64_t k = 0; sources != nullptr && k < kept; ++k) {
    sources[k] = rows[static_cast<std::size_t>(sources[k])];
  }
  return kept;
}

}  // namespace

int64_t soft_nms_cpu(float* dets, int64_t count, float sigma, float min_score, int64_t* sources,
                     int64_t limit) {
  if (count > kMostRows) {
    throw std::invalid_argument("Soft-NMS: got " + std::to_string(count) +
                                " rows, expected at most " + std::to_string(kMostRows) + ".");
  }
  thread_local Memory memory;
  const std::size_t room = static_cast<std::size_t>(count);
  memory.rows.resize(room);
  const int32_t finite = keep_finite(dets, count, memory.rows.data());
  if (finite == 0) return 0;
  const SoftNmsCall call = {dets, sources, sigma, min_score, limit};
  if (finite >= kManyRows && (limit <= 0 || limit >= finite)) {
    const int64_t kept = memory.pairs.run(call, finite);
    if (kept >= 0) return name_sources(memory.rows, kept, sources);
  }
  const std::size_t blocks = static_cast<std::size_t>(tree_blocks(count));
  if (memory.blocks.size() < blocks) memory.blocks = std::vector<TreeBlock>(blocks);
  memory.met.resize(blocks);
  memory.slots.resize(room);
  memory.sources.resize(room);
  memory.fallen.resize(room);
  int32_t* order = memory.sources.data();  // a row's source, when its slot is known
  std::iota(order, order + finite, 0);
  if (finite > kFewRows) memory.order.sort(dets, finite, kTreeFan, order);
  SoftNms nms{};
  nms.levels[0] = {memory.blocks.data(), 0, memory.met.data(), 0};
  nms.slot_of = memory.slots.data();
  nms.source_of = memory.sources.data();
  nms.fallen = memory.fallen.data();
  load_rows(dets, finite, order, &nms);
  const int64_t kept = per_isa<select_rows<4>, select_rows<8>, select_rows<16>>(&nms, call);
  return name_sources(memory.rows, kept, sources);
}

}  // namespace sniper

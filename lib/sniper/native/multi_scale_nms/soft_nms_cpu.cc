// Soft-NMS on a tree of rows: a selection looks at the rows that overlap the selected one, and
// nowhere else. Rows stay in their slots; the positions that the selections and removals of the
// definition give them are numbers of their own, because ties go to the first position.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/isa.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/soft_nms_pairs.h"
#include "multi_scale_nms/soft_nms_tree.h"
#include "multi_scale_nms/spatial_order.h"

namespace sniper {
namespace {

constexpr int64_t kFewRows = 64;  // sorting so few costs more than it saves
constexpr int64_t kManyRows = 128;  // worth a search for pairs
constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max() - kTreeFan;

struct SoftNms {
  ScoreTree tree;
  int32_t* slot_of;    // [position] of the rows that are left
  int32_t* source_of;  // [slot] position on input
  Fallen* fallen;      // room for all rows
  int32_t count;       // rows that are selected or left: positions 0 .. count - 1
};

// Kept for the next call of the same thread: fresh pages cost more than small calls.
struct Memory {
  TreeMemory tree;
  std::vector<int32_t> slots, sources, rows;
  std::vector<Fallen> fallen;
  SpatialOrder order;
  SoftNmsPairs pairs;
};

void copy_slot(const TreeBlock& from, int from_lane, TreeBlock* to, int to_lane) {
  to->x1[to_lane] = from.x1[from_lane];
  to->y1[to_lane] = from.y1[from_lane];
  to->x2[to_lane] = from.x2[from_lane];
  to->y2[to_lane] = from.y2[from_lane];
  to->score[to_lane] = from.score[from_lane];
  to->position[to_lane] = from.position[from_lane];
  to->area[to_lane] = from.area[from_lane];
}

// Closes the gaps of the rows that are gone.
template <int kLanes>
SNIPER_ALWAYS_INLINE void rebuild(SoftNms* nms) {
  int32_t kept = 0;
  for (int32_t slot = 0; slot < nms->tree.num_slots; ++slot) {
    const TreeBlock& from = nms->tree.block(slot);
    const int32_t position = from.position[slot % kTreeFan];
    if (position == kNoPosition) continue;
    copy_slot(from, slot % kTreeFan, &nms->tree.block(kept), kept % kTreeFan);
    nms->source_of[kept] = nms->source_of[slot];
    nms->slot_of[position] = kept++;
  }
  lay_out(&nms->tree, kept);
  build_nodes<kLanes>(&nms->tree);
}

// Puts the row of a slot at another position.
template <int kLanes>
SNIPER_ALWAYS_INLINE void move_row(SoftNms* nms, int32_t slot, int32_t position) {
  TreeBlock& block = nms->tree.block(slot);
  const int lane = slot % kTreeFan;
  block.position[lane] = position;
  nms->slot_of[position] = slot;
  if (nms->tree.num_levels == 1) return;
  const int32_t child = slot / kTreeFan;
  const TreeBlock& parent = nms->tree.levels[1].blocks[child / kTreeFan];
  if (block.score[lane] == parent.score[child % kTreeFan]) update_nodes<kLanes>(&nms->tree, slot);
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
  build_nodes<kLanes>(&nms->tree);
  const Decay decay = {1.0f / call.sigma, call.min_score, std::nanf("")};
  for (int32_t chosen = 0; chosen < nms->count; ++chosen) {
    if (2 * (nms->count - chosen) < nms->tree.num_slots && nms->tree.num_levels > 1) rebuild<kLanes>(nms);
    const BestRow best = best_row<kLanes>(nms->tree.levels[nms->tree.num_levels - 1].blocks[0]);
    if (chosen >= call.limit && call.limit > 0) {
      // Positive scores never grow, and the others stay below.
      const float least = call.dets[(call.limit - 1) * kDetection + 4];
      if (least > 0.0f && best.score < least) return chosen;
    }
    const int32_t slot = nms->slot_of[best.position];
    TreeBlock* block = &nms->tree.block(slot);
    const Box box = box_of(*block, slot % kTreeFan);
    const float score = block->score[slot % kTreeFan];  // best.score may be another zero
    const float values[kDetection] = {box.x1, box.y1, box.x2, box.y2, score};
    std::copy_n(values, kDetection, call.dets + chosen * kDetection);
    if (call.sources != nullptr) call.sources[chosen] = nms->source_of[slot];
    clear_slot<kLanes>(block, slot % kTreeFan);
    const int32_t first = nms->slot_of[chosen];
    if (first != slot) move_row<kLanes>(nms, first, best.position);
    // A box overlaps itself, so decay_overlapping updates its nodes; but not one without a side.
    if (!(intersection(box, box) > 0.0f)) update_nodes<kLanes>(&nms->tree, slot);
    const int32_t num_fallen = decay_overlapping<kLanes>(&nms->tree, box, decay, nms->fallen);
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
    put_row(nms->tree, slot, dets + static_cast<int64_t>(position) * kDetection, position);
    nms->slot_of[position] = slot;
  }
  lay_out(&nms->tree, count);
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
  const auto name_sources = [sources](int64_t kept) {
    for (int64_t k = 0; sources != nullptr && k < kept; ++k) {
      sources[k] = memory.rows[static_cast<std::size_t>(sources[k])];
    }
    return kept;
  };
  if (finite >= kManyRows && (limit <= 0 || limit >= finite)) {
    const int64_t kept = memory.pairs.run({dets, sources, sigma, min_score, limit}, finite);
    if (kept >= 0) return name_sources(kept);
  }
  memory.slots.resize(room);
  memory.sources.resize(room);
  memory.fallen.resize(room);
  int32_t* order = memory.sources.data();  // a row's source, when its slot is known
  std::iota(order, order + finite, 0);
  if (finite > kFewRows) memory.order.sort(dets, finite, kTreeFan, order);
  SoftNms nms{};
  nms.tree = memory.tree.take(finite);
  nms.slot_of = memory.slots.data();
  nms.source_of = memory.sources.data();
  nms.fallen = memory.fallen.data();
  load_rows(dets, finite, order, &nms);
  const SoftNmsCall call = {dets, sources, sigma, min_score, limit};
  return name_sources(per_isa<select_rows<4>, select_rows<8>, select_rows<16>>(&nms, call));
}

}  // namespace sniper

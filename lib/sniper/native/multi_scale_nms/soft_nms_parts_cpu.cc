#include "multi_scale_nms/soft_nms_parts.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>

#include "common/isa.h"
#include "multi_scale_nms/multi_scale_nms.h"

namespace sniper {
namespace {

constexpr int32_t kUnsortedRows = 64;   // of a part: sorting so few costs more than it saves
constexpr std::size_t kMostTied = 64;   // selections with one score

std::size_t at(int32_t index) { return static_cast<std::size_t>(index); }

}  // namespace

// Selects the rows of a part, which are in the slots 0, 1 .. of the tree; false when scores tie.
template <int kLanes>
SNIPER_ALWAYS_INLINE bool SoftNmsParts::select_part(ScoreTree* tree, const Decay& decay,
                                                    const int32_t* rows) {
  build_nodes<kLanes>(tree);
  float last = std::numeric_limits<float>::infinity();
  while (true) {
    const BestRow best = best_row<kLanes>(tree->levels[tree->num_levels - 1].blocks[0]);
    if (best.score == kNoScore) return true;
    if (best.score == last) return false;
    last = best.score;
    const int32_t slot = best.position;
    TreeBlock* block = &tree->block(slot);
    const Box box = box_of(*block, slot % kTreeFan);
    clear_slot<kLanes>(block, slot % kTreeFan);
    // A box overlaps itself, so decay_overlapping updates its nodes; but not one without a side.
    if (!(intersection(box, box) > 0.0f)) update_nodes<kLanes>(tree, slot);
    const Decay own = {decay.inverse_sigma, decay.min_score, best.score};
    const int32_t num_fallen = decay_overlapping<kLanes>(tree, box, own, part_fallen_.data());
    if (num_fallen == kTied) return false;
    for (int32_t i = 0; i < num_fallen; ++i) fallen_.push_back(rows[part_fallen_[at(i)].slot]);
    selections_.push_back({rows[slot], best.score, static_cast<int32_t>(fallen_.size())});
  }
}

// Writes the rows of a part to part_rows_, neighbours side by side.
void SoftNmsParts::order_part(const float* dets, int32_t part) {
  const int32_t size = parts_.size(part);
  const int32_t* rows = parts_.rows(part);
  part_rows_.assign(rows, rows + size);
  if (size <= kUnsortedRows) return;
  part_dets_.resize(at(size) * kDetection);
  for (int32_t i = 0; i < size; ++i) {
    std::copy_n(dets + static_cast<int64_t>(rows[i]) * kDetection, kDetection,
                part_dets_.data() + at(i) * kDetection);
  }
  order_.resize(at(size));
  spatial_.sort(part_dets_.data(), size, kTreeFan, order_.data());
  for (int32_t i = 0; i < size; ++i) part_rows_[at(i)] = rows[order_[at(i)]];
}

// Selects the rows of all parts; false when scores tie within one.
template <int kLanes>
SNIPER_ALWAYS_INLINE bool SoftNmsParts::select(SoftNmsParts* all, const SoftNmsCall& call) {
  const Decay decay = {1.0f / call.sigma, call.min_score, 0.0f};
  for (int32_t part = 0; part < all->parts_.count(); ++part) {
    const int32_t size = all->parts_.size(part);
    if (size == 1) {
      const int32_t row = all->parts_.rows(part)[0];
      const float score = call.dets[static_cast<int64_t>(row) * kDetection + 4];
      all->selections_.push_back({row, score, static_cast<int32_t>(all->fallen_.size())});
      continue;
    }
    all->order_part(call.dets, part);
    ScoreTree tree = all->trees_.take(size);
    for (int32_t slot = 0; slot < size; ++slot) {
      put_row(tree, slot, call.dets + static_cast<int64_t>(all->part_rows_[at(slot)]) * kDetection, slot);
    }
    lay_out(&tree, size);
    if (!all->select_part<kLanes>(&tree, decay, all->part_rows_.data())) return false;
  }
  return true;
}

void SoftNmsParts::order_selections() {
  by_score_.resize(selections_.size());
  for (std::size_t i = 0; i < selections_.size(); ++i) {
    by_score_[i] = {~ordered_bits(selections_[i].score), static_cast<int32_t>(i)};
  }
  radix_sort(0, &by_score_, &sorted_);
}

// Puts the selection whose row has the first position in front of those with the same score.
void SoftNmsParts::take_first_of_ties(std::size_t begin, std::size_t end) {
  const auto position = [this](const KeyedRow& item) {
    return position_of_[at(selections_[at(item.row)].row)];
  };
  const auto first = by_score_.begin();
  const auto best = std::min_element(
      first + static_cast<std::ptrdiff_t>(begin), first + static_cast<std::ptrdiff_t>(end),
      [&position](const KeyedRow& a, const KeyedRow& b) { return position(a) < position(b); });
  std::swap(by_score_[begin], *best);
}

// Puts the last row in the place of every row that has fallen with a selection.
void SoftNmsParts::remove(std::size_t selection, int32_t* left) {
  const int32_t begin = selection == 0 ? 0 : selections_[selection - 1].fallen_end;
  int32_t count = 0;
  for (int32_t i = begin; i < selections_[selection].fallen_end; ++i) {
    part_fallen_[at(count++)].position = position_of_[at(fallen_[at(i)])];
  }
  const auto put = [this](int32_t from, int32_t to) {
    const int32_t row = row_at_[at(from)];
    row_at_[at(to)] = row;
    position_of_[at(row)] = to;
  };
  fill_gaps(part_fallen_.data(), count, left, put);
}

// Puts the selections in the order of the definition; false where too many scores tie.
bool SoftNmsParts::replay(int32_t count) {
  row_at_.resize(at(count));
  std::iota(row_at_.begin(), row_at_.end(), 0);
  position_of_ = row_at_;
  int32_t left = count;
  std::size_t end = 0;
  for (std::size_t chosen = 0; chosen < by_score_.size(); ++chosen) {
    while (end < by_score_.size() && by_score_[end].key == by_score_[chosen].key) ++end;
    if (end - chosen > kMostTied) return false;
    if (end - chosen > 1) take_first_of_ties(chosen, end);
    const std::size_t selection = at(by_score_[chosen].row);
    const int32_t position = position_of_[at(selections_[selection].row)];
    const int32_t moved = row_at_[chosen];
    row_at_[at(position)] = moved;
    position_of_[at(moved)] = position;
    remove(selection, &left);
  }
  return true;
}

int64_t SoftNmsParts::run(const SoftNmsCall& call, int32_t count) {
  for (int32_t row = 0; row < count; ++row) {
    if (std::signbit(call.dets[static_cast<int64_t>(row) * kDetection + 4])) return -1;
  }
  if (!parts_.find(call.dets, count)) return -1;
  selections_.clear();
  fallen_.clear();
  part_fallen_.resize(at(count));
  if (!per_isa<select<4>, select<8>, select<16>>(this, call)) return -1;
  order_selections();
  if (!replay(count)) return -1;
  const std::size_t kept = by_score_.size();
  out_.resize(kept * kDetection);
  for (std::size_t k = 0; k < kept; ++k) {
    const Selection& selection = selections_[at(by_score_[k].row)];
    float* out = out_.data() + k * kDetection;
    std::copy_n(call.dets + static_cast<int64_t>(selection.row) * kDetection, kDetection - 1, out);
    out[kDetection - 1] = selection.score;
    if (call.sources != nullptr) call.sources[k] = selection.row;
  }
  std::copy_n(out_.data(), kept * kDetection, call.dets);
  return static_cast<int64_t>(kept);
}

}  // namespace sniper

#include "multi_scale_nms/soft_nms_pairs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/box.h"
#include "common/exp.h"
#include "multi_scale_nms/multi_scale_nms.h"

namespace sniper {
namespace {

constexpr uint32_t kGone = std::numeric_limits<uint32_t>::max();  // the key of no finite score
constexpr std::size_t kMostTied = 64;

uint32_t key_of(float score) { return ~ordered_bits(score); }

bool comes_later(const KeyedRow& a, const KeyedRow& b) { return a.key > b.key; }

const float* row_of(const float* dets, int32_t row) {
  return dets + static_cast<int64_t>(row) * kDetection;
}

Box box_of(const float* det) { return {det[0], det[1], det[2], det[3]}; }

}  // namespace

// Sorts the rows and finds their pairs; false where this way is none.
bool SoftNmsPairs::start(const float* dets, int32_t count) {
  score_.resize(at(count));
  key_.resize(at(count));
  by_score_.resize(at(count));
  for (int32_t row = 0; row < count; ++row) {
    const float score = row_of(dets, row)[4];
    if (std::signbit(score)) return false;
    score_[at(row)] = score;
    key_[at(row)] = key_of(score);
    by_score_[at(row)] = {key_[at(row)], row};
  }
  if (!pairs_.find(dets, count)) return false;
  radix_sort(0, &by_score_, &sorted_);
  next_ = 0;
  heap_.clear();
  best_.clear();
  row_at_.resize(at(count));
  std::iota(row_at_.begin(), row_at_.end(), 0);
  position_of_ = row_at_;
  return true;
}

// Lets a row that has decayed wait for its turn.
void SoftNmsPairs::wait(int32_t row) {
  if (key_[at(row)] == kGone) return;
  heap_.push_back({key_[at(row)], row});
  std::push_heap(heap_.begin(), heap_.end(), comes_later);
}

// Sees to it that the next rows, of by_score_ and of the heap, have the scores that they stand for.
void SoftNmsPairs::drop_changed() {
  for (; next_ < by_score_.size(); ++next_) {
    const KeyedRow& item = by_score_[next_];
    if (item.key == key_[at(item.row)]) break;
    wait(item.row);
  }
  while (!heap_.empty() && heap_.front().key != key_[at(heap_.front().row)]) {
    const int32_t row = heap_.front().row;
    std::pop_heap(heap_.begin(), heap_.end(), comes_later);
    heap_.pop_back();
    wait(row);
  }
}

// Moves the rows of the best score to best_; leaves it empty when no row is left.
void SoftNmsPairs::collect_best() {
  for (drop_changed(); best_.size() <= kMostTied; drop_changed()) {
    const uint32_t sorted_key = next_ < by_score_.size() ? by_score_[next_].key : kGone;
    const uint32_t heap_key = heap_.empty() ? kGone : heap_.front().key;
    const uint32_t best = std::min(sorted_key, heap_key);
    if (best == kGone || (!best_.empty() && best != key_[at(best_.front())])) return;
    if (sorted_key == best) {
      best_.push_back(by_score_[next_++].row);
    } else {
      best_.push_back(heap_.front().row);
      std::pop_heap(heap_.begin(), heap_.end(), comes_later);
      heap_.pop_back();
    }
  }
}

// Takes the row with the first position out of best_.
int32_t SoftNmsPairs::take_first() {
  const auto first = std::min_element(best_.begin(), best_.end(), [this](int32_t a, int32_t b) {
    return position_of_[at(a)] < position_of_[at(b)];
  });
  const int32_t row = *first;
  *first = best_.back();
  best_.pop_back();
  return row;
}

// Decays the rows that overlap the chosen one, and collects those that fall.
void SoftNmsPairs::decay_others(const SoftNmsCall& call, int32_t chosen, float inverse_sigma) {
  const Box box = box_of(row_of(call.dets, chosen));
  const float area = area_inclusive(box);
  fallen_.clear();
  for (const int32_t* other = pairs_.begin(chosen); other != pairs_.end(chosen); ++other) {
    const int32_t row = *other;
    if (key_[at(row)] == kGone) continue;
    const Box own = box_of(row_of(call.dets, row));
    const float overlap = soft_overlap(intersection(box, own), area, area_inclusive(own));
    if (!(overlap > 0.0f)) continue;
    const float weight =
        portable_exp_within<float, uint32_t>(-soft_exponent(overlap, inverse_sigma));
    score_[at(row)] *= weight;
    if (score_[at(row)] < call.min_score) {
      key_[at(row)] = kGone;
      fallen_.push_back({position_of_[at(row)], row});
    } else {
      key_[at(row)] = key_of(score_[at(row)]);
    }
  }
}

void SoftNmsPairs::move(int32_t from, int32_t to) {
  const int32_t row = row_at_[at(from)];
  row_at_[at(to)] = row;
  position_of_[at(row)] = to;
}

// Closes the gaps of the fallen rows; returns how many of `left` rows are left.
int32_t SoftNmsPairs::remove_fallen(int32_t left) {
  fill_gaps(fallen_.data(), static_cast<int32_t>(fallen_.size()), &left,
            [this](int32_t from, int32_t to) { move(from, to); });
  return left;
}

int64_t SoftNmsPairs::run(const SoftNmsCall& call, int32_t count) {
  if (!start(call.dets, count)) return -1;
  out_.resize(at(count) * kDetection);
  const float inverse_sigma = 1.0f / call.sigma;
  int32_t left = count;
  for (int32_t chosen = 0; chosen < left; ++chosen) {
    if (best_.empty()) collect_best();
    if (best_.size() > kMostTied) return -1;
    const int32_t row = take_first();
    float* out = out_.data() + at(chosen) * kDetection;
    std::copy_n(row_of(call.dets, row), kDetection - 1, out);
    out[kDetection - 1] = score_[at(row)];
    key_[at(row)] = kGone;
    move(chosen, position_of_[at(row)]);
    row_at_[at(chosen)] = row;
    decay_others(call, row, inverse_sigma);
    left = remove_fallen(left);
    // Those that shared the score, and do so no more.
    for (std::size_t i = best_.size(); i-- > 0 && pairs_.begin(row) != pairs_.end(row);) {
      const int32_t tied = best_[i];
      if (key_[at(tied)] == key_of(out[kDetection - 1])) continue;
      wait(tied);
      best_[i] = best_.back();
      best_.pop_back();
    }
  }
  if (call.sources != nullptr) std::copy_n(row_at_.data(), left, call.sources);
  std::copy_n(out_.data(), at(left) * kDetection, call.dets);
  return left;
}

}  // namespace sniper

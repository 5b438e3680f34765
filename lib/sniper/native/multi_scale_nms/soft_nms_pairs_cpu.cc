#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "common/box.h"
#include "common/exp.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/soft_nms_pairs.h"

namespace sniper {
namespace {

constexpr float kGone = -1.0f;
constexpr int32_t kNone = -1;
constexpr std::size_t kMostTied = 64;

struct ComesLater {
  bool operator()(const KeyedRow& a, const KeyedRow& b) const { return a.key > b.key; }
};

const float* row_of(const float* dets, int32_t row) {
  return dets + static_cast<int64_t>(row) * kDetection;
}

}  // namespace

// Finds the pairs and fills the buckets; false where this way is none.
bool SoftNmsPairs::start(const float* dets, int32_t count) {
  if (!pairs_.find(dets, count)) return false;
  rows_.resize(at(count));
  row_at_.resize(at(count));
  uint32_t most = 0;
  least_key_ = std::numeric_limits<uint32_t>::max();
  for (int32_t row = 0; row < count; ++row) {
    const int32_t position = pairs_.row(row);
    const float* det = row_of(dets, position);
    if (std::signbit(det[4])) return false;
    row_at_[at(position)] = row;
    const Box box = {det[0], det[1], det[2], det[3]};
    rows_[at(row)] = {box, area_inclusive(box), det[4], position, kNone};
    least_key_ = std::min(least_key_, key(row));
    most = std::max(most, key(row));
  }
  bucket_shift_ = 0;
  while (bucket_of(most) >= at(count)) ++bucket_shift_;
  // One more, for all rows that decay below the others.
  bucket_.assign(bucket_of(most) + 2, kNone);
  opened_ = 0;
  open_.clear();
  for (int32_t row = count; row-- > 0;) put(row);
  best_.clear();
  return true;
}

// Puts a row where its score says.
void SoftNmsPairs::put(int32_t row) {
  if (rows_[at(row)].score == kGone) return;
  const std::size_t bucket = std::min(bucket_of(key(row)), bucket_.size() - 1);
  if (bucket == opened_) {
    open_.push_back({key(row), row});
    std::push_heap(open_.begin(), open_.end(), ComesLater());
  } else {
    rows_[at(row)].following = std::exchange(bucket_[bucket], row);
  }
}

// The row in front of the heap.
int32_t SoftNmsPairs::pop() {
  const int32_t row = open_.front().row;
  if (open_.size() > 1) std::pop_heap(open_.begin(), open_.end(), ComesLater());
  open_.pop_back();
  return row;
}

// Sees to it that the best row of all is in front of the heap, with the score that it has by now;
// an empty heap means that no row is left.
void SoftNmsPairs::open_buckets() {
  while (true) {
    while (!open_.empty() && open_.front().key != key(open_.front().row)) put(pop());
    if (!open_.empty() || opened_ + 1 == bucket_.size()) return;
    int32_t row = bucket_[++opened_];
    while (row != kNone) put(std::exchange(row, rows_[at(row)].following));
  }
}

// Moves the rows of the best score to best_.
void SoftNmsPairs::collect_best() {
  open_buckets();
  const uint32_t best = open_.front().key;
  while (!open_.empty() && open_.front().key == best && best_.size() <= kMostTied) {
    best_.push_back(pop());
    open_buckets();
  }
}

// Takes the row with the first position out of best_.
int32_t SoftNmsPairs::take_first() {
  const auto first = std::min_element(best_.begin(), best_.end(), [this](int32_t a, int32_t b) {
    return rows_[at(a)].position < rows_[at(b)].position;
  });
  const int32_t row = *first;
  *first = best_.back();
  best_.pop_back();
  return row;
}

// Decays the rows that overlap the chosen one, and collects those that fall.
void SoftNmsPairs::decay_others(const SoftNmsCall& call, int32_t chosen, float inverse_sigma) {
  const Box box = rows_[at(chosen)].box;
  const float area = rows_[at(chosen)].area;
  fallen_.clear();
  for (const int32_t* other = pairs_.begin(chosen); other != pairs_.end(chosen); ++other) {
    Row& row = rows_[at(*other)];
    if (row.score == kGone) continue;
    const float overlap = soft_overlap(intersection(box, row.box), area, row.area);
    if (!(overlap > 0.0f)) continue;
    const float power = soft_exponent(overlap, inverse_sigma);
    row.score *= portable_exp_within<float, uint32_t>(-power);
    if (row.score < call.min_score) {
      row.score = kGone;
      fallen_.push_back({row.position, *other});
    }
  }
}

void SoftNmsPairs::move(int32_t from, int32_t to) {
  const int32_t row = row_at_[at(from)];
  row_at_[at(to)] = row;
  rows_[at(row)].position = to;
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
    const Box& box = rows_[at(row)].box;
    const float score = rows_[at(row)].score;
    const float values[kDetection] = {box.x1, box.y1, box.x2, box.y2, score};
    std::copy_n(values, kDetection, out);
    rows_[at(row)].score = kGone;
    move(chosen, rows_[at(row)].position);
    row_at_[at(chosen)] = row;
    decay_others(call, row, inverse_sigma);
    left = remove_fallen(left);
    // Those that shared the score, and do so no more.
    for (std::size_t i = best_.size(); i-- > 0 && pairs_.begin(row) != pairs_.end(row);) {
      const int32_t tied = best_[i];
      if (rows_[at(tied)].score == score) continue;
      put(tied);
      best_[i] = best_.back();
      best_.pop_back();
    }
  }
  for (int32_t k = 0; call.sources != nullptr && k < left; ++k) {
    call.sources[k] = pairs_.row(row_at_[at(k)]);
  }
  std::copy_n(out_.data(), at(left) * kDetection, call.dets);
  return left;
}

}  // namespace sniper

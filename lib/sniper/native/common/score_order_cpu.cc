#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "common/isa.h"
#include "common/score_key.h"
#include "common/score_order.h"

namespace sniper {
namespace {

constexpr std::uint32_t kFirstKey = 0x00800000u;  // of the largest finite score
constexpr std::int64_t kSample = 1024;
constexpr std::int64_t kFewScores = 1024;  // to sort them all is cheaper than to choose
constexpr std::size_t kFewPairs = 96;      // a radix sort clears and sums 1024 counters

// flags[i] = whether scores[i] lies in [low, high].
SNIPER_ALWAYS_INLINE void flag_scores(const float* scores, std::int64_t count, float low,
                                      float high, std::uint8_t* flags) {
  for (std::int64_t i = 0; i < count; ++i) {
    flags[i] =
        static_cast<std::uint8_t>(scores[i] >= low) & static_cast<std::uint8_t>(scores[i] <= high);
  }
}

// Writes the indices of the flags that are set, ascending; returns how many. `flags` is padded with
// zeros to a multiple of 8.
std::int64_t collect(const std::uint8_t* flags, std::int64_t count, std::uint32_t* indices) {
  std::int64_t found = 0;
  for (std::int64_t first = 0; first < count; first += 8) {
    std::uint64_t lanes;
    std::memcpy(&lanes, flags + first, sizeof(lanes));
    for (; lanes; lanes &= lanes - 1) {
      indices[found++] = static_cast<std::uint32_t>(first + (__builtin_ctzll(lanes) >> 3));
    }
  }
  return found;
}

}  // namespace

void ScoreOrder::start(const float* scores, std::int64_t count, std::int64_t expected,
                       float lowest) {
  scores_ = scores;
  count_ = count;
  expected_ = std::max<std::int64_t>(expected, 1);
  pool_begin_ = pool_end_ = kFirstKey;
  end_key_ = score_key(lowest);
  bucket_ = num_buckets_ = 0;
  chunk_.clear();
  sample_.clear();
  all_at_once_ = count <= kFewScores && end_key_ > kFirstKey;
  if (all_at_once_ || expected_ >= count / 2) return;  // nearly everything: no pool to choose
  // An odd step walks through all columns of a map whose width is a power of two.
  const std::int64_t step = std::max<std::int64_t>(1, count / kSample) | 1;
  for (std::int64_t i = 0; i < count; i += step) sample_.push_back(score_key(scores[i]));
  std::sort(sample_.begin(), sample_.end());
}

bool ScoreOrder::next(std::int64_t wanted) {
  if (all_at_once_) {
    all_at_once_ = false;
    pool_end_ = end_key_;
    take_all();
    sort_chunk();
    return !chunk_.empty();
  }
  for (;;) {
    if (bucket_ == num_buckets_ && !refill()) return false;
    std::int64_t found = 0;
    std::uint32_t end = bucket_;
    while (end < num_buckets_ && found < wanted) found += histogram_[end++];
    if (found == 0) {
      bucket_ = end;
      continue;
    }
    cut_pool(end);
    sort_chunk();
    return true;
  }
}

// Makes all scores the chunk.
void ScoreOrder::take_all() {
  pairs_.resize(static_cast<std::size_t>(count_) + 1);
  std::size_t found = 0;
  for (std::int64_t i = 0; i < count_; ++i) {
    const std::uint32_t key = score_key(scores_[i]);
    pairs_[found] = static_cast<std::uint64_t>(key) << 32 | static_cast<std::uint64_t>(i);
    found += static_cast<std::size_t>(key - kFirstKey < end_key_ - kFirstKey);
  }
  pairs_.resize(found);
}

// Key where the next pool ends: about `wanted` candidates lie below it.
std::uint32_t ScoreOrder::pool_end(std::int64_t wanted) {
  const double share = static_cast<double>(wanted) / static_cast<double>(count_);
  const double rank = share * static_cast<double>(sample_.size());
  const double safe = rank + 2.0 * std::sqrt(rank) + 2.0;
  if (safe >= static_cast<double>(sample_.size())) return end_key_;
  const std::uint32_t key = sample_[static_cast<std::size_t>(safe)];
  return std::min(std::max(key, pool_begin_ + 1), end_key_);
}

// Collects the next pool; false when no candidate is left.
bool ScoreOrder::refill() {
  while (pool_end_ < end_key_) {
    pool_begin_ = pool_end_;
    pool_end_ = pool_end(expected_);
    expected_ = std::min(4 * expected_, count_);
    flags_.assign(static_cast<std::size_t>(count_ + 7), 0);
    per_isa<flag_scores>(scores_, count_, score_of_key(pool_end_ - 1), score_of_key(pool_begin_),
                         flags_.data());
    if (indices_.size() < static_cast<std::size_t>(count_)) {
      indices_.resize(static_cast<std::size_t>(count_));
    }
    const std::int64_t found = collect(flags_.data(), count_, indices_.data());
    if (fill_pool(static_cast<std::size_t>(found))) return true;
  }
  return false;
}

// Makes the first `found` indices the pool and counts its buckets; false when it stays empty. The
// comparison of floats that found them cannot tell -0 from +0, hence the test of the key.
bool ScoreOrder::fill_pool(std::size_t found) {
  const std::uint32_t span = pool_end_ - pool_begin_;
  const std::size_t most_buckets = std::min<std::size_t>(std::max<std::size_t>(found, 64), 4096);
  bucket_bits_ = 0;
  while ((span - 1) >> bucket_bits_ >= most_buckets) ++bucket_bits_;
  bucket_ = 0;
  num_buckets_ = ((span - 1) >> bucket_bits_) + 1;
  histogram_.assign(num_buckets_, 0);
  pool_.clear();
  for (std::size_t i = 0; i < found; ++i) {
    const std::uint32_t index = indices_[i];
    const std::uint32_t key = score_key(scores_[index]);
    if (key - pool_begin_ >= span) continue;
    pool_.push_back(static_cast<std::uint64_t>(key) << 32 | index);
    ++histogram_[(key - pool_begin_) >> bucket_bits_];
  }
  return !pool_.empty();
}

// Copies the buckets from bucket_ to `end_bucket` out of the pool, in the order of the index.
void ScoreOrder::cut_pool(std::uint32_t end_bucket) {
  const std::uint32_t span = end_bucket - bucket_;
  pairs_.resize(pool_.size() + 1);
  std::size_t found = 0;
  for (const std::uint64_t pair : pool_) {
    const std::uint32_t key = static_cast<std::uint32_t>(pair >> 32);
    pairs_[found] = pair;
    found += static_cast<std::size_t>(((key - pool_begin_) >> bucket_bits_) - bucket_ < span);
  }
  pairs_.resize(found);
  bucket_ = end_bucket;
}

// Stable radix sort by the key; the pairs come in index order, so ties stay in index order.
void ScoreOrder::radix_sort_pairs() {
  std::uint32_t counts[4][256] = {};
  for (const std::uint64_t pair : pairs_) {
    for (int digit = 0; digit < 4; ++digit) ++counts[digit][(pair >> (32 + 8 * digit)) & 255];
  }
  swap_.resize(pairs_.size());
  for (int digit = 0; digit < 4; ++digit) {
    std::uint32_t* slot = counts[digit];
    const int shift = 32 + 8 * digit;
    if (slot[(pairs_[0] >> shift) & 255] == pairs_.size()) continue;  // one value: nothing to do
    std::uint32_t start = 0;
    for (int value = 0; value < 256; ++value) {
      const std::uint32_t here = slot[value];
      slot[value] = start;
      start += here;
    }
    for (const std::uint64_t pair : pairs_) swap_[slot[(pair >> shift) & 255]++] = pair;
    pairs_.swap(swap_);
  }
}

void ScoreOrder::sort_chunk() {
  if (pairs_.size() < kFewPairs) {
    std::sort(pairs_.begin(), pairs_.end());
  } else {
    radix_sort_pairs();
  }
  chunk_.resize(pairs_.size());
  for (std::size_t i = 0; i < pairs_.size(); ++i) chunk_[i] = static_cast<std::uint32_t>(pairs_[i]);
}

}  // namespace sniper

#include <cfloat>
#include <cstddef>
#include <cstring>

#include "common/macros.h"
#include "common/score_order.h"

namespace sniper {
namespace {

constexpr std::uint32_t kExcluded = 0xFFFFFFFFu;  // the key of a NaN, which no finite score has
constexpr std::uint32_t kBuckets = 1u << 16;
constexpr float kDiscarded = -1.0f;

// Maps every score to an unsigned key: the better the score, the smaller the key.
SNIPER_TARGET_CLONES
void make_keys(const float* scores, std::uint32_t* keys, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float score = scores[i] + 0.0f;  // -0 becomes +0: they are a tie
    std::uint32_t bits;
    std::memcpy(&bits, &score, sizeof(bits));
    const std::uint32_t sign = static_cast<std::uint32_t>(static_cast<std::int32_t>(bits) >> 31);
    const std::uint32_t ascending = bits ^ (sign | 0x80000000u);
    const bool usable = score > kDiscarded && score <= FLT_MAX;
    keys[i] = usable ? ~ascending : kExcluded;
  }
}

}  // namespace

void ScoreOrder::start(const float* scores, std::int64_t count) {
  keys_.resize(static_cast<std::size_t>(count));
  make_keys(scores, keys_.data(), count);
  histogram_.assign(kBuckets, 0);
  for (const std::uint32_t key : keys_) ++histogram_[key >> 16];
  bucket_ = 0;
  chunk_.clear();
}

bool ScoreOrder::next(std::int64_t wanted) {
  std::int64_t found = 0;
  std::uint32_t end = bucket_;
  while (end < kBuckets && found < wanted) found += histogram_[end++];
  collect(end);
  bucket_ = end;
  if (pairs_.empty()) return bucket_ < kBuckets && next(wanted);
  sort_chunk();
  return true;
}

void ScoreOrder::collect(std::uint32_t end_bucket) {
  pairs_.clear();
  const std::uint32_t low = bucket_;
  const std::uint32_t span = end_bucket - low;
  const std::size_t count = keys_.size();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t key = keys_[i];
    if ((key >> 16) - low < span && key != kExcluded) {
      pairs_.push_back(static_cast<std::uint64_t>(key) << 32 | i);
    }
  }
}

// Stable radix sort by the key; the pairs come in index order, so ties stay in index order.
void ScoreOrder::sort_chunk() {
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
  chunk_.resize(pairs_.size());
  for (std::size_t i = 0; i < pairs_.size(); ++i) chunk_[i] = static_cast<std::uint32_t>(pairs_[i]);
}

}  // namespace sniper

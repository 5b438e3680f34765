#include <algorithm>
#include <cstddef>
#include <utility>

#include "common/isa.h"
#include "common/splitmix.h"
#include "rpn_targets/rpn_matcher.h"
#include "rpn_targets/rpn_sampler.h"

namespace sniper {
namespace {

constexpr uint8_t kDrawn = 8;  // one more mark

// Negatives in all blocks, and positives in each.
SNIPER_ALWAYS_INLINE int64_t count_marks(const uint8_t* marks, int64_t blocks, uint8_t* positives) {
  int64_t negatives = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* block = marks + b * kRpnBlock;
    uint8_t num_negatives = 0, num_positives = 0;
#pragma GCC unroll 1
    for (int64_t i = 0; i < kRpnBlock; ++i) {
      num_negatives += block[i] == 0;
      num_positives += (block[i] & (kRpnPositive | kRpnIgnored)) == kRpnPositive;
    }
    negatives += num_negatives;
    positives[b] = num_positives;
  }
  return negatives;
}

// Draws from 0 .. size - 1 until `count` draws have been taken; take(i) tells whether it takes i,
// which it does for candidates that it has not yet taken.
template <class Take>
void draw(int64_t size, int64_t count, uint64_t* state, const Take& take) {
  while (count > 0) {
    const uint64_t i = draw_below(static_cast<uint64_t>(size), state);
    count -= take(static_cast<std::size_t>(i)) ? 1 : 0;
  }
}

// Turns marks into labels, and keeps a random part of them, all parts alike. Whichever is less is
// drawn: those to be kept or those to be given up.
class Sampler {
 public:
  Sampler(std::vector<uint8_t>* marks, uint64_t seed)
      : marks_(*marks), positives_(marks->size() / kRpnBlock), state_(seed) {
    num_negatives_ = per_isa<count_marks>(marks_.data(), static_cast<int64_t>(positives_.size()),
                                          positives_.data());
  }

  // Must come before the negatives: both draw from one stream.
  std::vector<int32_t> positives(int64_t most) {
    std::vector<int32_t> found;
    for (std::size_t b = 0; b < positives_.size(); ++b) {
      if (positives_[b] == 0) continue;
      for (std::size_t i = b * kRpnBlock; i < (b + 1) * kRpnBlock; ++i) {
        if ((marks_[i] & (kRpnPositive | kRpnIgnored)) == kRpnPositive) {
          found.push_back(static_cast<int32_t>(i));
        }
      }
    }
    const int64_t total = static_cast<int64_t>(found.size());
    if (total <= most) return found;
    const bool keep = most <= total - most;
    std::vector<uint8_t> drawn(found.size());
    draw(total, keep ? most : total - most, &state_,
         [&](std::size_t i) { return !std::exchange(drawn[i], uint8_t{1}); });
    std::vector<int32_t> kept;
    for (std::size_t i = 0; i < found.size(); ++i) {
      if ((drawn[i] != 0) == keep) kept.push_back(found[i]);
    }
    return kept;
  }

  // Writes -1 everywhere but at (at most `most`) negatives, which get 0.
  void write_negatives(int64_t most, int64_t count, int8_t* label) {
    const int64_t surplus = std::max<int64_t>(num_negatives_ - most, 0);
    const bool keep = most <= surplus;
    for (int64_t i = 0; i < count; ++i) {
      label[i] = keep || marks_[static_cast<std::size_t>(i)] ? -1 : 0;
    }
    const int8_t value = keep ? 0 : -1;
    draw(count, keep ? most : surplus, &state_, [&](std::size_t i) {
      if (marks_[i] != 0) return false;
      marks_[i] = kDrawn;
      label[i] = value;
      return true;
    });
  }

 private:
  std::vector<uint8_t>& marks_;
  std::vector<uint8_t> positives_;  // by block
  int64_t num_negatives_;
  uint64_t state_;
};

}  // namespace

std::vector<int32_t> sample_labels(const RpnSettings& settings, uint64_t seed, int64_t count,
                                   std::vector<uint8_t>* marks, int8_t* label) {
  Sampler sampler(marks, seed);
  std::vector<int32_t> positives = sampler.positives(settings.max_positives);
  const int64_t room = settings.batch_size - static_cast<int64_t>(positives.size());
  sampler.write_negatives(std::max<int64_t>(room, 0), count, label);
  for (const int32_t index : positives) label[index] = 1;
  return positives;
}

}  // namespace sniper

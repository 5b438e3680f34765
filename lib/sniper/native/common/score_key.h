// The order of candidates by score as an order of unsigned numbers, host and device.
#ifndef SNIPER_NATIVE_COMMON_SCORE_KEY_H_
#define SNIPER_NATIVE_COMMON_SCORE_KEY_H_

#include <cstdint>
#include <cstring>

#include "common/box.h"
#include "common/macros.h"

namespace sniper {

// The 2018 mark of a discarded box; no real probability is as low.
constexpr float kDiscardedScore = -1.0f;

// The better the score, the smaller the key; -0 and +0 are a tie. The keys of NaN and infinity lie
// outside those of the finite numbers.
SNIPER_HOST_DEVICE std::uint32_t score_key(float raw) {
  const float score = raw + 0.0f;  // -0 becomes +0
  std::uint32_t bits;
  memcpy(&bits, &score, sizeof(bits));
  return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

// The score with this key.
SNIPER_HOST_DEVICE float score_of_key(std::uint32_t key) {
  const std::uint32_t bits = key & 0x80000000u ? key : ~key & 0x7FFFFFFFu;
  float score;
  memcpy(&score, &bits, sizeof(score));
  return score;
}

// Whether a box with this score may be a proposal.
SNIPER_HOST_DEVICE bool is_candidate(float score) {
  return is_finite(score) && score > kDiscardedScore;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_SCORE_KEY_H_

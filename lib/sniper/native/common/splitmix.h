// The generator of every seeded choice in C++ (SplitMix64, Steele et al. 2014).
#ifndef SNIPER_NATIVE_COMMON_SPLITMIX_H_
#define SNIPER_NATIVE_COMMON_SPLITMIX_H_

#include <cstdint>

#include "common/macros.h"

namespace sniper {

constexpr uint64_t kSplitMixStep = 0x9E3779B97F4A7C15ull;

SNIPER_HOST_DEVICE uint64_t splitmix64(uint64_t* state) {
  *state += kSplitMixStep;
  uint64_t z = *state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// One of 0 .. count - 1 (count below 2^32): the upper 32 bits of the next number, times count,
// without the lower 32 bits.
SNIPER_HOST_DEVICE uint64_t draw_below(uint64_t count, uint64_t* state) {
  return ((splitmix64(state) >> 32) * count) >> 32;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_SPLITMIX_H_

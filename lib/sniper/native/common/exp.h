// The exponential function with the same bits in every build, vector width and on the GPU.
#ifndef SNIPER_NATIVE_COMMON_EXP_H_
#define SNIPER_NATIVE_COMMON_EXP_H_

#include <cstdint>
#include <cstring>

#include "common/macros.h"

namespace sniper {

// exp(x) to about 2 ulp, exactly 1 for 0, infinity above 88.4; below -87 it stays at exp(-87), the
// last normal number. NaN gives a NaN. Range reduction and polynomial of Cephes; only additions,
// multiplications and comparisons, so that loops over it become SIMD code. The C library's expf is
// no choice: its bits differ between libraries and from CUDA's, and one bit can turn an NMS
// decision.
SNIPER_HOST_DEVICE float portable_exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float low = x < -87.0f ? -87.0f : x;
  const float bounded = low > 88.7f ? 88.7f : low;
  const float shifted = bounded * 1.44269504f + kRound;
  const float whole = shifted - kRound;
  const float r = bounded - whole * 0.693359375f + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // The integer sits in the low bits of `shifted`; 2^whole is made from it (2^128 is infinity).
  int32_t bits;
  memcpy(&bits, &shifted, sizeof(bits));
  bits = static_cast<int32_t>(static_cast<uint32_t>(bits - 0x4B400000 + 127) << 23);
  float power;
  memcpy(&power, &bits, sizeof(power));
  return p * power;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_EXP_H_

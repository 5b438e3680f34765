// The exponential function with the same bits in every build, vector width and on the GPU.
#ifndef SNIPER_NATIVE_COMMON_EXP_H_
#define SNIPER_NATIVE_COMMON_EXP_H_

#include <cstdint>
#include <cstring>

#include "common/macros.h"

namespace sniper {

// portable_exp for x from -87 to 88.7. `Floats` is float or a vector of floats, `Bits` uint32_t or
// a vector of as many.
template <class Floats, class Bits>
SNIPER_HOST_DEVICE __attribute__((always_inline)) Floats portable_exp_within(Floats bounded) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = bounded * 1.44269504f + kRound;
  const Floats whole = shifted - kRound;
  const Floats r = bounded - whole * 0.693359375f + whole * 2.12194440e-4f;
  Floats p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // The integer sits in the low bits of `shifted`; 2^whole is made from it (2^128 is infinity).
  Bits bits;
  memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits - 0x4B400000u + 127u) << 23;
  Floats power;
  memcpy(&power, &bits, sizeof(power));
  return p * power;
}

// exp(x) to about 2 ulp, exactly 1 for 0, infinity above 88.4; below -87 it stays at exp(-87), the
// last normal number. NaN gives a NaN. Range reduction and polynomial of Cephes; only additions,
// multiplications and comparisons, so that loops over it become SIMD code. The C library's expf is
// no choice: its bits differ between libraries and from CUDA's, and one bit can turn an NMS
// decision.
SNIPER_HOST_DEVICE float portable_exp(float x) {
  const float low = x < -87.0f ? -87.0f : x;
  return portable_exp_within<float, uint32_t>(low > 88.7f ? 88.7f : low);
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_EXP_H_

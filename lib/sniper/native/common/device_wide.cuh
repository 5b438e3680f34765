// Sorts and sums over whole arrays (CUB), compiled once for all operators.
//
// Two calls each, as CUB has it: with `storage` null the function only writes how many bytes of
// scratch it wants, with the scratch it enqueues the work.
#ifndef SNIPER_NATIVE_COMMON_DEVICE_WIDE_CUH_
#define SNIPER_NATIVE_COMMON_DEVICE_WIDE_CUH_

#include "common/cuda.cuh"

namespace sniper {

// Stable sort by the lower `key_bits` bits of the keys, ascending. Inputs and outputs must not
// overlap. At most 2^31 - 1 items. A composite key, group << 32 | order, sorts all groups at once.
cudaError_t sort_pairs(void* storage, std::size_t* bytes, const std::uint64_t* keys_in,
                       std::uint64_t* keys_out, const std::uint32_t* values_in,
                       std::uint32_t* values_out, std::int64_t items, int key_bits, void* stream);

// out[i] = in[0] + ... + in[i - 1]; `in` and `out` may be the same. At most 2^31 - 1 items.
cudaError_t exclusive_sum(void* storage, std::size_t* bytes, const std::int32_t* in,
                          std::int32_t* out, std::int64_t items, void* stream);

// Bits that hold the numbers 0 .. count - 1.
inline int bits_for(std::int64_t count) {
  int bits = 0;
  while (bits < 63 && (std::int64_t{1} << bits) < count) ++bits;
  return bits;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_DEVICE_WIDE_CUH_

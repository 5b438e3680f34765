#include "common/device_wide.cuh"

#ifdef SNIPER_CUDA_EMULATION
#include "cub_emulation.h"
#else
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#endif

namespace sniper {

cudaError_t sort_pairs(void* storage, std::size_t* bytes, const std::uint64_t* keys_in,
                       std::uint64_t* keys_out, const std::uint32_t* values_in,
                       std::uint32_t* values_out, std::int64_t items, int key_bits, void* stream) {
  if (items < 0 || items > 0x7FFFFFFFll || key_bits < 0 || key_bits > 64) {
    return cudaErrorInvalidValue;
  }
  return cub::DeviceRadixSort::SortPairs(storage, *bytes, keys_in, keys_out, values_in, values_out,
                                         static_cast<int>(items), 0, key_bits,
                                         static_cast<cudaStream_t>(stream));
}

cudaError_t exclusive_sum(void* storage, std::size_t* bytes, const std::int32_t* in,
                          std::int32_t* out, std::int64_t items, void* stream) {
  if (items < 0 || items > 0x7FFFFFFFll) return cudaErrorInvalidValue;
  return cub::DeviceScan::ExclusiveSum(storage, *bytes, in, out, static_cast<int>(items),
                                       static_cast<cudaStream_t>(stream));
}

}  // namespace sniper

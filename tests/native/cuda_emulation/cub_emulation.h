// Stand-ins for the device-wide calls of CUB, with its protocol: without temporary storage a call
// only says how much it wants.
#ifndef SNIPER_TESTS_CUB_EMULATION_H_
#define SNIPER_TESTS_CUB_EMULATION_H_

#include "cuda_emulation.h"

namespace cub {
namespace emulation {

// Answers the size query (true: done) and checks and spoils the storage of the real call.
inline bool only_query(void* storage, std::size_t* bytes, std::int64_t items, cudaError_t* status) {
  const std::size_t wanted = 1024 + 3 * static_cast<std::size_t>(items);
  *status = cudaSuccess;
  if (storage == nullptr) {
    *bytes = wanted;
    return true;
  }
  if (*bytes < wanted || items < 0) {
    *status = cuda_emulation::fail(cudaErrorInvalidValue,
                                   "CUB got less temporary storage than it asked for");
    return true;
  }
  cuda_emulation::OnDevice guard;
  std::memset(storage, 0xA5, wanted);
  return false;
}

template <class T>
bool overlap(const T* a, const T* b, std::int64_t items) {
  return items > 0 && a < b + items && b < a + items;
}

template <class Key, class Value>
void sort_range(const Key* keys_in, Key* keys_out, const Value* values_in, Value* values_out,
                std::int64_t begin, std::int64_t end, int begin_bit, int end_bit) {
  static_assert(std::is_unsigned<Key>::value, "the emulation sorts unsigned keys");
  const int width = end_bit - begin_bit;
  const Key mask = width >= static_cast<int>(8 * sizeof(Key))
                       ? static_cast<Key>(~Key{0})
                       : static_cast<Key>((Key{1} << width) - 1);
  std::vector<std::int64_t> order;
  for (std::int64_t i = begin; i < end; ++i) order.push_back(i);
  const auto digit = [&](std::int64_t i) {
    return static_cast<Key>((keys_in[i] >> begin_bit) & mask);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return digit(a) < digit(b); });
  for (std::int64_t i = begin; i < end; ++i) {
    keys_out[i] = keys_in[order[static_cast<std::size_t>(i - begin)]];
    values_out[i] = values_in[order[static_cast<std::size_t>(i - begin)]];
  }
}

template <class Key, class Value>
cudaError_t check_buffers(const Key* keys_in, const Key* keys_out, const Value* values_in,
                          const Value* values_out, std::int64_t items) {
  if (overlap(keys_in, keys_out, items) || overlap(values_in, values_out, items)) {
    return cuda_emulation::fail(cudaErrorInvalidValue, "CUB's input and output buffers overlap");
  }
  return cudaSuccess;
}

}  // namespace emulation

struct DeviceRadixSort {
  template <class Key, class Value, class NumItems>
  static cudaError_t SortPairs(void* storage, std::size_t& bytes, const Key* keys_in, Key* keys_out,
                               const Value* values_in, Value* values_out, NumItems items,
                               int begin_bit = 0, int end_bit = sizeof(Key) * 8, cudaStream_t = 0) {
    const std::int64_t count = static_cast<std::int64_t>(items);
    cudaError_t status;
    if (emulation::only_query(storage, &bytes, count, &status)) return status;
    status = emulation::check_buffers(keys_in, keys_out, values_in, values_out, count);
    if (status != cudaSuccess) return status;
    cuda_emulation::OnDevice guard;
    emulation::sort_range(keys_in, keys_out, values_in, values_out, 0, count, begin_bit, end_bit);
    return cudaSuccess;
  }
};

struct DeviceSegmentedRadixSort {
  template <class Key, class Value, class Begins, class Ends>
  static cudaError_t SortPairs(void* storage, std::size_t& bytes, const Key* keys_in, Key* keys_out,
                               const Value* values_in, Value* values_out, int items, int segments,
                               Begins begins, Ends ends, int begin_bit = 0,
                               int end_bit = sizeof(Key) * 8, cudaStream_t = 0) {
    cudaError_t status;
    if (emulation::only_query(storage, &bytes, items, &status)) return status;
    status = emulation::check_buffers(keys_in, keys_out, values_in, values_out, items);
    if (status != cudaSuccess) return status;
    cuda_emulation::OnDevice guard;
    for (int segment = 0; segment < segments; ++segment) {
      const std::int64_t begin = begins[segment], end = ends[segment];
      if (begin < 0 || end > items) {
        return cuda_emulation::fail(cudaErrorInvalidValue, "a CUB segment leaves the array");
      }
      emulation::sort_range(keys_in, keys_out, values_in, values_out, begin, end, begin_bit,
                            end_bit);
    }
    return cudaSuccess;
  }
};

struct DeviceScan {
  // `in` and `out` may be the same array.
  template <class In, class Out>
  static cudaError_t ExclusiveSum(void* storage, std::size_t& bytes, In in, Out out, int items,
                                  cudaStream_t = 0) {
    cudaError_t status;
    if (emulation::only_query(storage, &bytes, items, &status)) return status;
    cuda_emulation::OnDevice guard;
    std::decay_t<decltype(in[0])> sum{};
    for (int i = 0; i < items; ++i) {
      const auto value = in[i];
      out[i] = sum;
      sum += value;
    }
    return cudaSuccess;
  }
};

}  // namespace cub

#endif  // SNIPER_TESTS_CUB_EMULATION_H_

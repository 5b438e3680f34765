// Stable sort by 32-bit keys, a counting sort for each byte.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_RADIX_SORT_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_RADIX_SORT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace sniper {

// Unsigned numbers in the order of the floats; -0 comes before 0.
inline uint32_t ordered_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct KeyedRow {
  uint32_t key;
  int32_t row;
};

// Sorts `items` by the bits of their keys from `lowest_bit` on; `other` is room for as many.
inline void radix_sort(int lowest_bit, std::vector<KeyedRow>* items, std::vector<KeyedRow>* other) {
  other->resize(items->size());
  for (int shift = lowest_bit; shift < 32; shift += 8) {
    std::size_t begins[256] = {};
    for (const KeyedRow& item : *items) ++begins[item.key >> shift & 0xFFu];
    if (begins[items->front().key >> shift & 0xFFu] == items->size()) continue;
    std::size_t sum = 0;
    for (std::size_t& begin : begins) sum += std::exchange(begin, sum);
    for (const KeyedRow& item : *items) (*other)[begins[item.key >> shift & 0xFFu]++] = item;
    items->swap(*other);
  }
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_RADIX_SORT_H_

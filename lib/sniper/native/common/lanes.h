// Channels of a map side by side ("lanes"), so that one read of a pixel serves a block of them.
#ifndef SNIPER_NATIVE_COMMON_LANES_H_
#define SNIPER_NATIVE_COMMON_LANES_H_

#include <algorithm>
#include <cstdint>

namespace sniper {

// dst[column][row] = src[row][column] for `rows` <= lanes; the other lanes are set to zero.
inline void pack_rows(const float* src, std::int64_t row_stride, int rows, std::int64_t columns,
                      int lanes, float* dst) {
  constexpr std::int64_t kColumns = 16;
  for (std::int64_t begin = 0; begin < columns; begin += kColumns) {
    const std::int64_t end = std::min(begin + kColumns, columns);
    for (std::int64_t column = begin; column < end; ++column) {
      float* out = dst + column * lanes;
      const float* in = src + column;
      for (int row = 0; row < rows; ++row) out[row] = in[row * row_stride];
      for (int row = rows; row < lanes; ++row) out[row] = 0.0f;
    }
  }
}

// Inverse of pack_rows: src[row][column] = dst[column][row].
inline void unpack_rows(const float* packed, std::int64_t columns, int lanes, int rows,
                        std::int64_t row_stride, float* dst) {
  for (int row = 0; row < rows; ++row) {
    float* out = dst + row * row_stride;
    const float* in = packed + row;
    for (std::int64_t column = 0; column < columns; ++column) out[column] = in[column * lanes];
  }
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_LANES_H_

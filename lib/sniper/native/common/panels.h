// Products of matrices whose right side lies in panels of 16 columns: the inner loops of GEMM
// (Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication"). What is in
// which cache is up to the caller.
#ifndef SNIPER_NATIVE_COMMON_PANELS_H_
#define SNIPER_NATIVE_COMMON_PANELS_H_

#include <algorithm>
#include <cstdint>

namespace sniper {

constexpr int kPanelColumns = 16;
// Panels come in twos and rows in twelves; unused ones hold zeros, or anything that nobody reads.
constexpr int kPanelsAtOnce = 2;
constexpr int kRowsAtOnce = 12;

// The smallest multiple of `step` that is not less than `size`.
constexpr std::int64_t rounded_up(std::int64_t size, std::int64_t step) {
  return (size + step - 1) / step * step;
}

// Columns of whole pairs of panels.
constexpr std::int64_t padded_columns(std::int64_t columns) {
  return rounded_up(columns, kPanelColumns * kPanelsAtOnce);
}

constexpr std::int64_t padded_rows(std::int64_t rows) { return rounded_up(rows, kRowsAtOnce); }

// a[row * stride + k], rows a multiple of kRowsAtOnce.
struct PanelRows {
  const float* a;
  std::int64_t stride, rows;
};

// b[(panel * pitch + k) * 16 + column], panels a multiple of kPanelsAtOnce.
struct PanelColumns {
  const float* b;
  std::int64_t pitch, panels;
};

// c[row * stride + panel * 16 + column] += sum over k < depth of a * b. Each sum is made in the
// order of k and then added, so that the numbers do not depend on how a matrix is cut into rows and
// panels. They are the same with AVX2 and AVX-512; the baseline rounds each product as well, having
// no fused multiply-add.
void add_products(const PanelRows& rows, const PanelColumns& columns, std::int64_t depth, float* c,
                  std::int64_t stride);

// to[column * to_stride + row] = from[row * from_stride + column].
inline void transpose(const float* from, std::int64_t from_stride, std::int64_t rows,
                      std::int64_t columns, float* to, std::int64_t to_stride) {
  constexpr std::int64_t kTile = 16;  // a cache line each way
  for (std::int64_t row = 0; row < rows; row += kTile) {
    const std::int64_t row_end = std::min(row + kTile, rows);
    for (std::int64_t column = 0; column < columns; column += kTile) {
      const std::int64_t column_end = std::min(column + kTile, columns);
      for (std::int64_t c = column; c < column_end; ++c) {
        for (std::int64_t r = row; r < row_end; ++r) {
          to[c * to_stride + r] = from[r * from_stride + c];
        }
      }
    }
  }
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_PANELS_H_

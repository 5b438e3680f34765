#include "common/isa.h"
#include "common/panels.h"

#ifdef SNIPER_HAS_ISA_COPIES
#include <immintrin.h>
#endif

namespace sniper {
namespace {

// Rows x columns of c whose sums are in registers: 4 x 16, 6 x 16 and 12 x 32.

void baseline_tile(const float* a, std::int64_t stride, const float* b, std::int64_t depth,
                   float* c, std::int64_t c_stride) {
  constexpr int kRows = 4;
  typedef float Vector __attribute__((vector_size(kPanelColumns * 4), aligned(4), may_alias));
  Vector sums[kRows] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    const Vector line = *reinterpret_cast<const Vector*>(b + k * kPanelColumns);
    for (int r = 0; r < kRows; ++r) sums[r] += a[r * stride + k] * line;
  }
  for (int r = 0; r < kRows; ++r) *reinterpret_cast<Vector*>(c + r * c_stride) += sums[r];
}

void add_products_baseline(const PanelRows& rows, const PanelColumns& columns, std::int64_t depth,
                           float* c, std::int64_t stride) {
  for (std::int64_t panel = 0; panel < columns.panels; ++panel) {
    const float* b = columns.b + panel * columns.pitch * kPanelColumns;
    for (std::int64_t row = 0; row < rows.rows; row += 4) {
      baseline_tile(rows.a + row * rows.stride, rows.stride, b, depth,
                    c + row * stride + panel * kPanelColumns, stride);
    }
  }
}

#ifdef SNIPER_HAS_ISA_COPIES

__attribute__((target("avx2,fma"))) void avx2_tile(const float* a, std::int64_t stride,
                                                   const float* b, std::int64_t depth, float* c,
                                                   std::int64_t c_stride) {
  constexpr int kRows = 6;
  __m256 left[kRows], right[kRows];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) left[r] = right[r] = _mm256_setzero_ps();
#pragma GCC unroll 2
  for (std::int64_t k = 0; k < depth; ++k) {
    const __m256 b_left = _mm256_loadu_ps(b + k * kPanelColumns);
    const __m256 b_right = _mm256_loadu_ps(b + k * kPanelColumns + 8);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const __m256 factor = _mm256_broadcast_ss(a + r * stride + k);
      left[r] = _mm256_fmadd_ps(factor, b_left, left[r]);
      right[r] = _mm256_fmadd_ps(factor, b_right, right[r]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    float* out = c + r * c_stride;
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), left[r]));
    _mm256_storeu_ps(out + 8, _mm256_add_ps(_mm256_loadu_ps(out + 8), right[r]));
  }
}

__attribute__((target("avx2,fma"))) void add_products_avx2(const PanelRows& rows,
                                                           const PanelColumns& columns,
                                                           std::int64_t depth, float* c,
                                                           std::int64_t stride) {
  for (std::int64_t panel = 0; panel < columns.panels; ++panel) {
    const float* b = columns.b + panel * columns.pitch * kPanelColumns;
    for (std::int64_t row = 0; row < rows.rows; row += 6) {
      avx2_tile(rows.a + row * rows.stride, rows.stride, b, depth,
                c + row * stride + panel * kPanelColumns, stride);
    }
  }
}

__attribute__((target("avx512f"))) void avx512_tile(const float* a, std::int64_t stride,
                                                    const float* b_left, const float* b_right,
                                                    std::int64_t depth, float* c,
                                                    std::int64_t c_stride) {
  constexpr int kRows = kRowsAtOnce;
  __m512 left[kRows], right[kRows];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) left[r] = right[r] = _mm512_setzero_ps();
  for (std::int64_t k = 0; k < depth; ++k) {
    const __m512 line_left = _mm512_loadu_ps(b_left + k * kPanelColumns);
    const __m512 line_right = _mm512_loadu_ps(b_right + k * kPanelColumns);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512 factor = _mm512_set1_ps(a[r * stride + k]);
      left[r] = _mm512_fmadd_ps(factor, line_left, left[r]);
      right[r] = _mm512_fmadd_ps(factor, line_right, right[r]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    float* out = c + r * c_stride;
    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), left[r]));
    _mm512_storeu_ps(out + kPanelColumns,
                     _mm512_add_ps(_mm512_loadu_ps(out + kPanelColumns), right[r]));
  }
}

__attribute__((target("avx512f"))) void add_products_avx512(const PanelRows& rows,
                                                            const PanelColumns& columns,
                                                            std::int64_t depth, float* c,
                                                            std::int64_t stride) {
  for (std::int64_t panel = 0; panel < columns.panels; panel += kPanelsAtOnce) {
    const float* left = columns.b + panel * columns.pitch * kPanelColumns;
    const float* right = left + columns.pitch * kPanelColumns;
    for (std::int64_t row = 0; row < rows.rows; row += kRowsAtOnce) {
      avx512_tile(rows.a + row * rows.stride, rows.stride, left, right, depth,
                  c + row * stride + panel * kPanelColumns, stride);
    }
  }
}

#endif

using AddProducts = decltype(&add_products);

AddProducts best() {
#ifdef SNIPER_HAS_ISA_COPIES
  if (kIsa == Isa::kAvx512) return add_products_avx512;
  // No processor has the one without the other, but virtual ones may.
  if (kIsa == Isa::kAvx2 && __builtin_cpu_supports("fma")) return add_products_avx2;
#endif
  return add_products_baseline;
}

}  // namespace

void add_products(const PanelRows& rows, const PanelColumns& columns, std::int64_t depth, float* c,
                  std::int64_t stride) {
  static const AddProducts chosen = best();
  chosen(rows, columns, depth, c, stride);
}

}  // namespace sniper

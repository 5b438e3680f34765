// Soft-NMS on columns: sixteen rows decay at a time, rows that overlap nothing cost no exponential.

#include <algorithm>
#include <cfloat>
#include <cstddef>

#include "common/exp.h"
#include "multi_scale_nms/multi_scale_nms.h"

namespace sniper {
namespace {

constexpr int64_t kBlock = 16;
constexpr int kColumns = 6;  // x1, y1, x2, y2, area, score
constexpr int kScore = 5;

// Rows as columns of `stride` floats each. Rows in front of the current one have been selected.
struct Rows {
  float* columns;
  int64_t stride;
  int64_t count;

  float* column(int k) const { return columns + k * stride; }
};

void copy_row(const Rows& rows, int64_t from, int64_t to) {
  for (int k = 0; k < kColumns; ++k) rows.column(k)[to] = rows.column(k)[from];
}

void swap_rows(const Rows& rows, int64_t a, int64_t b) {
  for (int k = 0; k < kColumns; ++k) std::swap(rows.column(k)[a], rows.column(k)[b]);
}

// Sixteen scores, wherever they lie. Spelled as a vector because compilers keep an array of maxima
// as sixteen single numbers.
typedef float Vector __attribute__((vector_size(kBlock * 4), aligned(4), may_alias));

// Largest score from row `first` on, first one on ties.
SNIPER_TARGET_CLONES
int64_t best_row(const float* scores, int64_t first, int64_t count) {
  float best = scores[first];
  Vector most = Vector{} + best;
  int64_t i = first;
  for (; i + kBlock <= count; i += kBlock) {
    const Vector block = *reinterpret_cast<const Vector*>(scores + i);
    most = block > most ? block : most;
  }
  for (int64_t lane = 0; lane < kBlock; ++lane) best = most[lane] > best ? most[lane] : best;
  for (; i < count; ++i) best = scores[i] > best ? scores[i] : best;
  for (i = first; i + kBlock <= count; i += kBlock) {
    int32_t found = 0;
    for (int64_t lane = 0; lane < kBlock; ++lane) {
      found |= static_cast<int32_t>(scores[i + lane] == best);
    }
    if (found) break;
  }
  while (scores[i] != best) ++i;
  return i;
}

// Decays the rows of whole blocks from `begin` to `end` that overlap row `chosen`, and marks in
// `fallen` those that end below min_score. Returns whether there are any. Selected rows and padding
// in these blocks change too: nobody reads them again.
SNIPER_TARGET_CLONES
bool decay_rows(const Rows* rows, int64_t chosen, int64_t begin, int64_t end, float inverse_sigma,
                float min_score, int32_t* fallen) {
  const float* x1 = rows->columns;
  const float* y1 = x1 + rows->stride;
  const float* x2 = y1 + rows->stride;
  const float* y2 = x2 + rows->stride;
  const float* area = y2 + rows->stride;
  float* score = rows->columns + kScore * rows->stride;
  const float cx1 = x1[chosen], cy1 = y1[chosen], cx2 = x2[chosen], cy2 = y2[chosen];
  const float chosen_area = area[chosen];
  int32_t any_fallen = 0;
  for (int64_t base = begin; base < end; base += kBlock) {
    float overlap[kBlock], exponent[kBlock];
    int32_t hits = 0;
    for (int64_t i = 0; i < kBlock; ++i) {
      const int64_t row = base + i;
      const float left = x1[row] > cx1 ? x1[row] : cx1;
      const float top = y1[row] > cy1 ? y1[row] : cy1;
      const float right = x2[row] < cx2 ? x2[row] : cx2;
      const float bottom = y2[row] < cy2 ? y2[row] : cy2;
      const float width = right - left + 1.0f;
      const float height = bottom - top + 1.0f;
      const float inter = (width > 0.0f ? width : 0.0f) * (height > 0.0f ? height : 0.0f);
      const float ratio = inter / (chosen_area + area[row] - inter);
      overlap[i] = ratio > 0.0f ? ratio : 0.0f;  // 0 for NaN, which an empty union gives
      hits |= static_cast<int32_t>(ratio > 0.0f);
    }
    for (int64_t i = 0; i < kBlock; ++i) fallen[base + i] = 0;
    if (hits == 0) continue;
    // A loop of its own: together with the next one it would not become SIMD.
    for (int64_t i = 0; i < kBlock; ++i) exponent[i] = soft_exponent(overlap[i], inverse_sigma);
    for (int64_t i = 0; i < kBlock; ++i) {
      const int64_t row = base + i;
      // Without overlap the weight is exactly 1: no branch, so that the loop becomes SIMD.
      const float decayed = score[row] * portable_exp(-exponent[i]);
      const int32_t falls =
          static_cast<int32_t>(overlap[i] > 0.0f) & static_cast<int32_t>(decayed < min_score);
      score[row] = decayed;
      fallen[row] = falls;
      any_fallen |= falls;
    }
  }
  return any_fallen != 0;
}

// Replaces every fallen row from `first` on by the last row, which is examined in its turn.
void remove_fallen(Rows* rows, int64_t first, int32_t* fallen) {
  for (int64_t row = first; row < rows->count;) {
    if (!fallen[row]) {
      ++row;
      continue;
    }
    --rows->count;
    copy_row(*rows, rows->count, row);
    fallen[row] = fallen[rows->count];
  }
}

void load_rows(const float* dets, int64_t count, Rows* rows) {
  for (int64_t n = 0; n < count; ++n) {
    const float* det = dets + n * kDetection;
    const Box box = {det[0], det[1], det[2], det[3]};
    if (!is_finite(box) || !is_finite(det[4])) continue;
    const float values[kColumns] = {box.x1, box.y1, box.x2, box.y2, area_inclusive(box), det[4]};
    for (int k = 0; k < kColumns; ++k) rows->column(k)[rows->count] = values[k];
    ++rows->count;
  }
}

void store_row(const Rows& rows, int64_t row, float* det) {
  for (int k = 0; k < 4; ++k) det[k] = rows.column(k)[row];
  det[4] = rows.column(kScore)[row];
}

}  // namespace

int64_t soft_nms_cpu(float* dets, int64_t count, float sigma, float min_score) {
  const int64_t stride = (count + kBlock - 1) / kBlock * kBlock;
  std::vector<float> columns(static_cast<std::size_t>(kColumns * stride), 0.0f);
  std::vector<int32_t> fallen(static_cast<std::size_t>(stride), 0);
  Rows rows{columns.data(), stride, 0};
  load_rows(dets, count, &rows);
  const float inverse_sigma = 1.0f / sigma;
  for (int64_t chosen = 0; chosen < rows.count; ++chosen) {
    swap_rows(rows, chosen, best_row(rows.column(kScore), chosen, rows.count));
    store_row(rows, chosen, dets + chosen * kDetection);
    const int64_t begin = (chosen + 1) / kBlock * kBlock;
    if (decay_rows(&rows, chosen, begin, rows.count, inverse_sigma, min_score, fallen.data())) {
      remove_fallen(&rows, chosen + 1, fallen.data());
    }
  }
  return rows.count;
}

}  // namespace sniper

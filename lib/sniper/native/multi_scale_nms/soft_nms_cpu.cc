// Soft-NMS on columns: sixteen rows decay at a time, and every block of sixteen remembers its best
// score, so that a selection reads the scores of the blocks that changed only.

#include <algorithm>
#include <cstddef>
#include <limits>

#include "common/exp.h"
#include "common/isa.h"
#include "multi_scale_nms/multi_scale_nms.h"

namespace sniper {
namespace {

constexpr int64_t kBlock = 16;
constexpr int kColumns = 6;  // x1, y1, x2, y2, area, score
constexpr int kScore = 5;
constexpr float kNoScore = -std::numeric_limits<float>::infinity();
constexpr float kImpossible = 1e30f;  // corners of a row that overlaps nothing

// Rows as columns of `stride` floats each, a whole number of blocks. Rows in front of the current
// one have been selected; they, and those behind `count`, are cleared.
struct Rows {
  float* columns;
  int64_t stride;
  int64_t count;
  float* block_best;  // (stride / kBlock)
  int64_t* source;    // (stride) the row of the input that a row was

  float* column(int k) const { return columns + k * stride; }
};

void clear_row(const Rows& rows, int64_t row) {
  const float values[kColumns] = {kImpossible,  kImpossible, -kImpossible,
                                  -kImpossible, 0.0f,        kNoScore};
  for (int k = 0; k < kColumns; ++k) rows.column(k)[row] = values[k];
}

void copy_row(const Rows& rows, int64_t from, int64_t to) {
  for (int k = 0; k < kColumns; ++k) rows.column(k)[to] = rows.column(k)[from];
  rows.source[to] = rows.source[from];
}

void update_block(const Rows& rows, int64_t block) {
  const float* scores = rows.column(kScore) + block * kBlock;
  float best[4] = {scores[0], scores[1], scores[2], scores[3]};
  for (int64_t i = 4; i < kBlock; i += 4) {
    for (int64_t k = 0; k < 4; ++k) best[k] = larger(best[k], scores[i + k]);
  }
  rows.block_best[block] = larger(larger(best[0], best[1]), larger(best[2], best[3]));
}

// Row with the largest score from row `first` on, the first one on ties.
int64_t best_row(const Rows& rows, int64_t first) {
  const int64_t num_blocks = (rows.count + kBlock - 1) / kBlock;
  int64_t best = first / kBlock;
  for (int64_t block = best + 1; block < num_blocks; ++block) {
    if (rows.block_best[block] > rows.block_best[best]) best = block;
  }
  int64_t row = std::max(first, best * kBlock);
  while (rows.column(kScore)[row] != rows.block_best[best]) ++row;
  return row;
}

// Decays the rows of whole blocks from `begin` to `end` that overlap `box`.
// Writes the rows that end below min_score, ascending; returns how many.
SNIPER_ALWAYS_INLINE int64_t decay_rows(const Rows* rows, const Box& chosen, float box_area,
                                        int64_t begin, int64_t end, float inverse_sigma,
                                        float min_score, int64_t* fallen) {
  const float* x1 = rows->columns;
  const float* y1 = x1 + rows->stride;
  const float* x2 = y1 + rows->stride;
  const float* y2 = x2 + rows->stride;
  const float* area = y2 + rows->stride;
  float* score = rows->columns + kScore * rows->stride;
  const Box box = chosen;  // a copy: the scores that are written cannot be part of it
  int64_t num_fallen = 0;
  for (int64_t base = begin; base < end; base += kBlock) {
    float inters[kBlock], overlap[kBlock], exponent[kBlock];
    int32_t falls[kBlock], hits = 0, any_falls = 0;
    for (int64_t i = 0; i < kBlock; ++i) {
      const int64_t row = base + i;
      const float inter = intersection({x1[row], y1[row], x2[row], y2[row]}, box);
      inters[i] = inter;
      hits |= static_cast<int32_t>(inter > 0.0f);
    }
    if (hits == 0) continue;
#pragma GCC unroll 1
    for (int64_t i = 0; i < kBlock; ++i) {
      overlap[i] = soft_overlap(inters[i], box_area, area[base + i]);
      exponent[i] = soft_exponent(overlap[i], inverse_sigma);
    }
    for (int64_t i = 0; i < kBlock; ++i) {
      // Without overlap the weight is exactly 1: no branch, so that the loop becomes SIMD.
      const float decayed = score[base + i] * portable_exp(-exponent[i]);
      falls[i] =
          static_cast<int32_t>(overlap[i] > 0.0f) & static_cast<int32_t>(decayed < min_score);
      score[base + i] = decayed;
      any_falls |= falls[i];
    }
    update_block(*rows, base / kBlock);
    if (any_falls == 0) continue;
    for (int64_t i = 0; i < kBlock; ++i) {
      if (falls[i]) fallen[num_fallen++] = base + i;
    }
  }
  return num_fallen;
}

// Puts the last row in the place of every fallen one; a last row that has fallen too just goes.
void remove_fallen(Rows* rows, const int64_t* fallen, int64_t num_fallen) {
  for (int64_t next = 0; next < num_fallen; ++next) {
    while (next < num_fallen && fallen[num_fallen - 1] == rows->count - 1) {
      clear_row(*rows, --rows->count);
      update_block(*rows, rows->count / kBlock);
      --num_fallen;
    }
    if (next == num_fallen) return;
    copy_row(*rows, --rows->count, fallen[next]);
    clear_row(*rows, rows->count);
    update_block(*rows, rows->count / kBlock);
    update_block(*rows, fallen[next] / kBlock);
  }
}

void load_rows(const float* dets, int64_t count, Rows* rows) {
  for (int64_t n = 0; n < count; ++n) {
    const float* det = dets + n * kDetection;
    const Box box = {det[0], det[1], det[2], det[3]};
    if (!is_finite(box) || !is_finite(det[4])) continue;
    const float values[kColumns] = {box.x1, box.y1, box.x2, box.y2, area_inclusive(box), det[4]};
    for (int k = 0; k < kColumns; ++k) rows->column(k)[rows->count] = values[k];
    rows->source[rows->count++] = n;
  }
  for (int64_t row = rows->count; row < rows->stride; ++row) clear_row(*rows, row);
  for (int64_t block = 0; block < rows->stride / kBlock; ++block) update_block(*rows, block);
}

Box box_of(const Rows& rows, int64_t row) {
  return {rows.column(0)[row], rows.column(1)[row], rows.column(2)[row], rows.column(3)[row]};
}

// Moves the best row from `position` on into `det` and returns its box; the row at `position` takes
// its place. `source`, if there is one, gets the row of the input.
Box select_row(const Rows& rows, int64_t position, float* det, int64_t* source) {
  const int64_t best = best_row(rows, position);
  if (source != nullptr) *source = rows.source[best];
  const Box box = box_of(rows, best);
  const float values[kDetection] = {box.x1, box.y1, box.x2, box.y2, rows.column(kScore)[best]};
  std::copy_n(values, kDetection, det);
  copy_row(rows, position, best);
  clear_row(rows, position);
  update_block(rows, best / kBlock);
  update_block(rows, position / kBlock);
  return box;
}

}  // namespace

int64_t soft_nms_cpu(float* dets, int64_t count, float sigma, float min_score, int64_t* sources) {
  thread_local std::vector<float> memory;
  thread_local std::vector<int64_t> fallen, source;
  const int64_t stride = (count + kBlock - 1) / kBlock * kBlock;
  memory.resize(static_cast<std::size_t>(kColumns * stride + stride / kBlock));
  fallen.resize(static_cast<std::size_t>(stride));
  source.resize(static_cast<std::size_t>(stride));
  Rows rows{memory.data(), stride, 0, memory.data() + kColumns * stride, source.data()};
  load_rows(dets, count, &rows);
  const float inverse_sigma = 1.0f / sigma;
  for (int64_t chosen = 0; chosen < rows.count; ++chosen) {
    const Box box = select_row(rows, chosen, dets + chosen * kDetection,
                               sources == nullptr ? nullptr : sources + chosen);
    const int64_t begin = (chosen + 1) / kBlock * kBlock;
    const int64_t num_fallen =
        per_isa<decay_rows>(&rows, box, area_inclusive(box), begin, rows.count, inverse_sigma,
                            min_score, fallen.data());
    remove_fallen(&rows, fallen.data(), num_fallen);
  }
  return rows.count;
}

}  // namespace sniper

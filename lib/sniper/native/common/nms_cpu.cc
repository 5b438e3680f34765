#include <cstddef>

#include "common/macros.h"
#include "common/nms.h"

namespace sniper {
namespace {

constexpr int kBlock = 16;  // boxes per block: one AVX-512 register per column
constexpr int kBlockFloats = 5 * kBlock;
constexpr float kImpossible = 1e30f;  // corners of a padding box: it intersects nothing

// Whether any of `blocks` blocks suppresses the box.
SNIPER_TARGET_CLONES
bool any_overlap(const float* blocks, int num_blocks, float x1, float y1, float x2, float y2,
                 float area, float threshold) {
  for (int b = 0; b < num_blocks; ++b) {
    const float* column = blocks + static_cast<std::size_t>(b) * kBlockFloats;
    int hits = 0;
    for (int i = 0; i < kBlock; ++i) {
      const float left = column[i] > x1 ? column[i] : x1;
      const float top = column[kBlock + i] > y1 ? column[kBlock + i] : y1;
      const float right = column[2 * kBlock + i] < x2 ? column[2 * kBlock + i] : x2;
      const float bottom = column[3 * kBlock + i] < y2 ? column[3 * kBlock + i] : y2;
      const float raw_width = right - left + 1.0f;
      const float raw_height = bottom - top + 1.0f;
      const float width = raw_width > 0.0f ? raw_width : 0.0f;
      const float height = raw_height > 0.0f ? raw_height : 0.0f;
      const float inter = width * height;
      const float joint = column[4 * kBlock + i] + area - inter;
      hits |= static_cast<int>(inter > threshold * joint) & static_cast<int>(joint >= 0.0f);
    }
    if (hits) return true;
  }
  return false;
}

}  // namespace

void KeptBoxes::reset(float threshold) {
  threshold_ = threshold;
  count_ = 0;
  columns_.clear();
}

bool KeptBoxes::suppresses(const Box& box, float area, int first) const {
  const int first_block = first / kBlock;
  const int num_blocks = (count_ + kBlock - 1) / kBlock - first_block;
  if (num_blocks <= 0) return false;
  const float* blocks = columns_.data() + static_cast<std::size_t>(first_block) * kBlockFloats;
  return any_overlap(blocks, num_blocks, box.x1, box.y1, box.x2, box.y2, area, threshold_);
}

void KeptBoxes::keep(const Box& box, float area) {
  const int lane = count_ % kBlock;
  if (lane == 0) {
    const std::size_t start = columns_.size();
    columns_.resize(start + kBlockFloats, 0.0f);
    for (int i = 0; i < 2 * kBlock; ++i) columns_[start + i] = kImpossible;
    for (int i = 2 * kBlock; i < 4 * kBlock; ++i) columns_[start + i] = -kImpossible;
  }
  float* column = columns_.data() + static_cast<std::size_t>(count_ / kBlock) * kBlockFloats + lane;
  const float values[5] = {box.x1, box.y1, box.x2, box.y2, area};
  for (int i = 0; i < 5; ++i) column[i * kBlock] = values[i];
  ++count_;
}

}  // namespace sniper

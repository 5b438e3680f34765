#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/isa.h"
#include "common/nms.h"

namespace sniper {
namespace {

constexpr int kBlock = 16;  // boxes per block: one AVX-512 register per column
constexpr int kBlockFloats = 5 * kBlock;
// A positive float's exponent and the first two bits of its fraction: four bins per octave.
constexpr int kBinShift = 21;
constexpr int kBins = 1 << (31 - kBinShift);
// IoU > t needs areas whose ratio is above t; the rest is for the rounding of both.
constexpr float kMargin = 0.999f;
constexpr float kImpossible = 1e30f;  // corners of a padding box: it intersects nothing

// Whether any of `blocks` blocks suppresses the box.
SNIPER_ALWAYS_INLINE bool any_suppresses(const float* blocks, int num_blocks, const Box& candidate,
                                         float area, float threshold) {
  const Box box = candidate;
  for (int b = 0; b < num_blocks; ++b) {
    const float* column = blocks + static_cast<std::size_t>(b) * kBlockFloats;
    int hits = 0;
    for (int i = 0; i < kBlock; ++i) {
      const Box kept = {column[i], column[kBlock + i], column[2 * kBlock + i],
                        column[3 * kBlock + i]};
      hits |= sniper::suppresses(kept, column[4 * kBlock + i], box, area, threshold);
    }
    if (hits) return true;
  }
  return false;
}

}  // namespace

int KeptBoxes::bin_of(float area) const {
  // Without an area (negative or NaN) there is no intersection either: any bin will do.
  if (!sort_by_area_ || !(area > 0.0f)) return 0;
  std::uint32_t bits;
  std::memcpy(&bits, &area, sizeof(bits));
  return static_cast<int>(bits >> kBinShift);
}

void KeptBoxes::reset(float threshold, bool sort_by_area) {
  threshold_ = threshold;
  sort_by_area_ = sort_by_area;
  if (bins_.empty()) bins_.resize(kBins);
  for (const int bin : used_) {
    bins_[bin].count = 0;
    bins_[bin].columns.clear();
  }
  used_.clear();
}

bool KeptBoxes::suppresses(const Box& box, float area) const {
  const int first = bin_of(area * threshold_ * kMargin);
  const int last = bin_of(area / (threshold_ * kMargin));
  for (int b = first; b <= last; ++b) {
    const Bin& bin = bins_[b];
    const int num_blocks = (bin.count + kBlock - 1) / kBlock;
    if (num_blocks > 0 &&
        per_isa<any_suppresses>(bin.columns.data(), num_blocks, box, area, threshold_)) {
      return true;
    }
  }
  return false;
}

void KeptBoxes::keep(const Box& box, float area) {
  const int index = bin_of(area);
  Bin& bin = bins_[index];
  if (bin.count == 0) used_.push_back(index);
  const int lane = bin.count % kBlock;
  if (lane == 0) {
    const std::size_t start = bin.columns.size();
    bin.columns.resize(start + kBlockFloats, 0.0f);
    for (int i = 0; i < 2 * kBlock; ++i) bin.columns[start + i] = kImpossible;
    for (int i = 2 * kBlock; i < 4 * kBlock; ++i) bin.columns[start + i] = -kImpossible;
  }
  const std::size_t block = static_cast<std::size_t>(bin.count / kBlock) * kBlockFloats;
  float* column = bin.columns.data() + block + lane;
  const float values[5] = {box.x1, box.y1, box.x2, box.y2, area};
  for (int i = 0; i < 5; ++i) column[i * kBlock] = values[i];
  ++bin.count;
}

}  // namespace sniper

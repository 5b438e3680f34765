// A sweep from left to right: each box meets those that the sweep has not left behind, in the
// horizontal bands of the image that it touches.

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/box.h"
#include "common/isa.h"
#include "common/simd.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/overlap_pairs.h"

namespace sniper {
namespace {

constexpr int32_t kStep = 16;  // boxes that are looked at together
constexpr int32_t kMostBands = 32;
constexpr float kBoxesPerBand = 8;       // active ones, roughly, where boxes are spread evenly
constexpr std::size_t kMostPerBox = 4;   // pairs, and bands, on average
constexpr std::size_t kFirstBoxes = 64;  // so many tell little about the average
constexpr int32_t kFewActive = 16;
constexpr int32_t kMostBoxes = 1 << 27;  // so that numbers of pairs are int32_t

// The bands of an image from top to bottom: band = (y - top) * scale.
struct Bands {
  float top, scale;
  int32_t count;

  // Monotonic in y, as everything that decides about pairs has to be.
  int32_t of(float y) const {
    if (count == 1) return 0;
    const float band = (y - top) * scale;
    return static_cast<int32_t>(clip_coordinate(band, static_cast<float>(count - 1)));
  }
};

// The rows as a whole.
struct Spread {
  float top, bottom;     // of all y1
  double pairs_per_box;  // if the boxes lay evenly where their first corners are; rather too few
};

Spread spread_of(const float* dets, int32_t count) {
  float left = dets[0], right = dets[0], top = dets[1], bottom = dets[1];
  double widths = 0.0, heights = 0.0;
  for (int64_t row = 0; row < count; ++row) {
    const float* det = dets + row * kDetection;
    left = smaller(left, det[0]);
    right = larger(right, det[0]);
    top = smaller(top, det[1]);
    bottom = larger(bottom, det[1]);
    widths += static_cast<double>(det[2]) - det[0] + 1.0;
    heights += static_cast<double>(det[3]) - det[1] + 1.0;
  }
  // Two boxes of the mean sides overlap when their corners are less than a side apart.
  const double area = (static_cast<double>(right) - left) * (static_cast<double>(bottom) - top);
  return {top, bottom, 2.0 * (widths / count) * (heights / count) * count / area};
}

Bands make_bands(float top, float bottom, int32_t count) {
  const float bands = std::sqrt(static_cast<float>(count)) / kBoxesPerBand;
  const int32_t number = std::clamp(static_cast<int32_t>(bands), 1, kMostBands);
  if (!is_finite(bottom - top)) return {top, 0.0f, 1};
  return {top, static_cast<float>(number) / larger(bottom - top, 1.0f), number};
}

// Where a box meets others: its corners, with a pixel to spare.
struct Reach {
  float left, top, bottom;
};

// One bit for each of kStep active boxes, from `first` on, that a box of this reach may overlap.
// Never misses one, as rounding is monotonic.
template <int kLanes>
SNIPER_ALWAYS_INLINE uint32_t touching(const SweepBand& band, int32_t first, const Reach& reach) {
  typedef Simd<kLanes> Lanes;
  typedef typename Lanes::Ints Ints;
  Ints bits{};
  for (int i = 0; i < kStep; i += kLanes) {
    const Ints own = lane_bits<kLanes>() << i;
    const Ints above = Lanes::load(band.y1 + first + i) <= reach.bottom ? own : Ints{};
    const Ints below = Lanes::load(band.y2 + first + i) >= reach.top ? above : Ints{};
    bits |= Lanes::load(band.x2 + first + i) >= reach.left ? below : Ints{};
  }
  return static_cast<uint32_t>(reduce_lanes<BitsOf, IntLanes, kLanes>(bits));
}

// Writes the active boxes that a box may overlap, and has not met in a band above; returns how
// many.
template <int kLanes>
SNIPER_ALWAYS_INLINE int32_t meet(const SweepBand& band, const Reach& reach, bool first_band,
                                  int32_t index, int32_t* met) {
  int32_t num_met = 0;
  for (int32_t first = 0; first < band.count; first += kStep) {
    uint32_t bits = touching<kLanes>(band, first, reach);
    if (band.count - first < kStep) bits &= (1u << (band.count - first)) - 1;
    for (; bits != 0; bits &= bits - 1) {
      const int32_t other = first + __builtin_ctz(bits);
      met[num_met] = band.place[other];
      num_met += first_band | (band.first_band[other] == index);
    }
  }
  return num_met;
}

// Leaves out the boxes that end before a later one begins.
void clear_until(float left, SweepBand* band) {
  int32_t kept = 0;
  for (int32_t i = 0; i < band->count; ++i) {
    band->x2[kept] = band->x2[i];
    band->y1[kept] = band->y1[i];
    band->y2[kept] = band->y2[i];
    band->place[kept] = band->place[i];
    band->first_band[kept] = band->first_band[i];
    kept += band->x2[i] >= left;
  }
  band->count = kept;
  band->full = std::min(SweepBand::kMostActive, 2 * kept + kFewActive);
}

}  // namespace

bool OverlapPairs::sweep(const float* dets, int32_t count, float top, float bottom) {
  const Bands bands = make_bands(top, bottom, count);
  if (bands_.empty()) bands_.resize(kMostBands);
  for (SweepBand& band : bands_) {
    band.count = 0;
    band.full = kFewActive;
  }
  int32_t next_place[kMostBands + 1] = {};
  for (int64_t row = 0; row < count; ++row) {
    ++next_place[bands.of(dets[row * kDetection + 1] - 1.0f) + 1];
  }
  for (int32_t index = 0; index < bands.count; ++index) next_place[index + 1] += next_place[index];
  rows_.resize(at(count));
  std::size_t most = kFirstBoxes * kMostPerBox;
  const auto meet_in = per_isa<meet<4>, meet<8>, meet<16>>;
  int32_t met[SweepBand::kMostActive];
  std::size_t entered = 0;
  for (const KeyedRow& item : by_x1_) {
    const float* det = dets + static_cast<int64_t>(item.row) * kDetection;
    const Reach reach = {det[0] - 1.0f, det[1] - 1.0f, det[3] + 1.0f};
    const int32_t first = bands.of(reach.top), last = bands.of(reach.bottom);
    const int32_t place = next_place[first]++;
    rows_[at(place)] = item.row;
    for (int32_t index = first; index <= last; ++index) {
      SweepBand& band = bands_[at(index)];
      const int32_t num_met = meet_in(band, reach, index == first, index, met);
      for (int32_t i = 0; i < num_met; ++i) pairs_.push_back({met[i], place});
      if (band.count == band.full) clear_until(reach.left, &band);
      if (band.count == SweepBand::kMostActive) return false;
      band.x2[band.count] = det[2];
      band.y1[band.count] = det[1];
      band.y2[band.count] = det[3];
      band.place[band.count] = place;
      band.first_band[band.count++] = first;
      ++entered;
    }
    most += kMostPerBox;
    if (pairs_.size() > most || entered > most) return false;
  }
  return true;
}

void OverlapPairs::group_by_place(int32_t count) {
  begins_.assign(at(count) + 1, 0);
  for (const OverlapPair& pair : pairs_) {
    ++begins_[at(pair.a) + 1];
    ++begins_[at(pair.b) + 1];
  }
  int32_t sum = 0;
  for (std::size_t n = 1; n < begins_.size(); ++n) sum += std::exchange(begins_[n], sum);
  others_.resize(2 * pairs_.size());
  for (const OverlapPair& pair : pairs_) {
    others_[at(begins_[at(pair.a) + 1]++)] = pair.b;
    others_[at(begins_[at(pair.b) + 1]++)] = pair.a;
  }
}

bool OverlapPairs::find(const float* dets, int32_t count) {
  if (count > kMostBoxes) return false;
  const Spread spread = spread_of(dets, count);
  if (!(spread.pairs_per_box <= kMostPerBox)) return false;
  by_x1_.resize(at(count));
  pairs_.clear();
  for (int32_t row = 0; row < count; ++row) {
    by_x1_[at(row)] = {ordered_bits(dets[static_cast<int64_t>(row) * kDetection]), row};
  }
  radix_sort(0, &by_x1_, &sorted_);
  if (!sweep(dets, count, spread.top, spread.bottom)) return false;
  group_by_place(count);
  return true;
}

}  // namespace sniper

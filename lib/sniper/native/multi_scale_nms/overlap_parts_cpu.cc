// A sweep from left to right: each box meets those that the sweep has not left behind.

#include "multi_scale_nms/overlap_parts.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "common/isa.h"
#include "common/simd.h"
#include "multi_scale_nms/multi_scale_nms.h"

namespace sniper {
namespace {

constexpr int32_t kStep = 32;          // boxes that are looked at together
constexpr int32_t kBetweenCuts = 64;   // boxes from one clearing of the active ones to the next
constexpr int32_t kMostActive = 2048;  // more would cost more than the tree of all boxes
constexpr int64_t kMostPairs = 16;     // that overlap, per box: where there are more, parts are large

// Boxes that the next ones may overlap.
struct Active {
  alignas(64) float x2[kMostActive], y1[kMostActive], y2[kMostActive];
  int32_t box[kMostActive];
  int32_t count;

  void add(const Box& added, int32_t index) {
    x2[count] = added.x2;
    y1[count] = added.y1;
    y2[count] = added.y2;
    box[count++] = index;
  }

  // Leaves out those that end before a box begins.
  void clear_until(float left) {
    int32_t kept = 0;
    for (int32_t i = 0; i < count; ++i) {
      x2[kept] = x2[i];
      y1[kept] = y1[i];
      y2[kept] = y2[i];
      box[kept] = box[i];
      kept += x2[i] >= left;
    }
    count = kept;
  }
};

int32_t first_of(int32_t* parent, int32_t box) {
  while (parent[box] != box) box = parent[box] = parent[parent[box]];
  return box;
}

// One bit for each of kStep active boxes, from `first` on, that a later one can overlap: corners
// (left, top, bottom) with a pixel to spare. Never misses one, as rounding is monotonic.
template <int kLanes>
SNIPER_ALWAYS_INLINE uint32_t touching(const Active& active, int32_t first, float left, float top,
                                       float bottom) {
  typedef Simd<kLanes> Lanes;
  typedef typename Lanes::Ints Ints;
  Ints bits{};
  for (int i = 0; i < kStep; i += kLanes) {
    const Ints own = lane_bits<kLanes>() << i;
    const Ints above = Lanes::load(active.y1 + first + i) <= bottom ? own : Ints{};
    const Ints below = Lanes::load(active.y2 + first + i) >= top ? above : Ints{};
    bits |= Lanes::load(active.x2 + first + i) >= left ? below : Ints{};
  }
  return static_cast<uint32_t>(reduce_lanes<BitsOf, IntLanes, kLanes>(bits));
}

// Joins the boxes that overlap; false where there are too many.
template <int kLanes>
SNIPER_ALWAYS_INLINE bool join_boxes(const Box* boxes, int32_t count, Active* active,
                                     int32_t* parent) {
  active->count = 0;
  int64_t pairs = 0;
  for (int32_t n = 0; n < count; ++n) {
    const Box box = boxes[n];
    const float left = box.x1 - 1.0f, top = box.y1 - 1.0f, bottom = box.y2 + 1.0f;
    if (n % kBetweenCuts == 0) active->clear_until(left);
    if (active->count == kMostActive) return false;
    int32_t own = n;
    parent[n] = n;
    for (int32_t first = 0; first < active->count; first += kStep) {
      uint32_t bits = touching<kLanes>(*active, first, left, top, bottom);
      if (active->count - first < kStep) bits &= (1u << (active->count - first)) - 1;
      for (; bits != 0; bits &= bits - 1) {
        const int32_t other = first_of(parent, active->box[first + __builtin_ctz(bits)]);
        const int32_t low = std::min(own, other);
        parent[std::max(own, other)] = low;
        own = low;
        ++pairs;
      }
    }
    if (pairs > kMostPairs * count) return false;
    active->add(box, n);
  }
  return true;
}

}  // namespace

bool OverlapParts::find(const float* dets, int32_t count) {
  const std::size_t size = at(count);
  items_.resize(size);
  boxes_.resize(size);
  parent_.resize(size);
  for (int32_t row = 0; row < count; ++row) {
    items_[at(row)] = {ordered_bits(dets[static_cast<int64_t>(row) * kDetection]), row};
  }
  radix_sort(0, &items_, &sorted_);
  for (std::size_t i = 0; i < size; ++i) {
    const float* det = dets + static_cast<int64_t>(items_[i].row) * kDetection;
    boxes_[i] = {det[0], det[1], det[2], det[3]};
  }
  thread_local Active active;
  const auto join = per_isa<join_boxes<4>, join_boxes<8>, join_boxes<16>>;
  if (!join(boxes_.data(), count, &active, parent_.data())) return false;

  part_.resize(size);
  begins_.assign(1, 0);
  for (int32_t n = 0; n < count; ++n) {
    const int32_t first = first_of(parent_.data(), n);
    if (first == n) {
      part_[at(n)] = this->count();
      begins_.push_back(0);
    } else {
      part_[at(n)] = part_[at(first)];
    }
    ++begins_[at(part_[at(n)]) + 1];
  }
  int32_t sum = 0;
  for (std::size_t part = 1; part < begins_.size(); ++part) sum += std::exchange(begins_[part], sum);
  rows_.resize(size);
  for (std::size_t n = 0; n < size; ++n) {
    rows_[at(begins_[at(part_[n]) + 1]++)] = items_[n].row;
  }
  return true;
}

}  // namespace sniper

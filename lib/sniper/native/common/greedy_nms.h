// Greedy non-maximum suppression of scored boxes, best first, as far as the caller needs (host).
#ifndef SNIPER_NATIVE_COMMON_GREEDY_NMS_H_
#define SNIPER_NATIVE_COMMON_GREEDY_NMS_H_

#include <algorithm>
#include <cstdint>

#include "common/box.h"
#include "common/nms.h"
#include "common/score_order.h"

namespace sniper {

// A stretch of candidates.
struct NmsTile {
  static constexpr int kSize = 256;
  Box box[kSize];
  float area[kSize];
  bool usable[kSize];  // the others are as good as absent
};

// Buffers that a thread reuses from call to call.
struct NmsScratch {
  ScoreOrder order;
  KeptBoxes kept;
  NmsTile tile;
};

struct GreedyNms {
  std::int64_t entering;  // usable boxes that take part, the best ones
  std::int64_t leaving;   // boxes that are kept at most
  float threshold;
  float lowest_score;   // boxes take part whose score is finite and higher
  bool areas_with_one;  // whether the areas have +1 sides, as the intersections have
};

// Calls `keep(index, box)` for the kept ones of `count` boxes, best first, ties by index. `load`
// fills a tile when the turn of its candidates comes:
//     void load(const std::uint32_t* indices, int count, NmsTile* tile);
// One thread: a pass takes well under a millisecond, and a batch has an image for every thread.
template <class Load, class Keep>
void greedy_nms(const GreedyNms& limits, const float* scores, std::int64_t count, const Load& load,
                const Keep& keep, NmsScratch* scratch) {
  constexpr std::int64_t kFirstChunk = 1024, kGrowth = 4, kManyBoxes = 512;
  std::int64_t entering = std::min(limits.entering, count);
  std::int64_t leaving = std::min(limits.leaving, count);
  if (entering <= 0 || leaving <= 0) return;
  ScoreOrder& order = scratch->order;
  KeptBoxes& kept = scratch->kept;
  NmsTile& tile = scratch->tile;
  order.start(scores, count, entering, limits.lowest_score);
  kept.reset(limits.threshold, limits.areas_with_one && leaving >= kManyBoxes);

  std::int64_t delivered = 0;
  for (std::int64_t wanted = std::min(kFirstChunk, entering); order.next(wanted);) {
    const std::uint32_t* candidates = order.chunk().data();
    std::int64_t left = static_cast<std::int64_t>(order.chunk().size());
    delivered += left;
    while (left > 0) {
      const int size = static_cast<int>(std::min<std::int64_t>(left, NmsTile::kSize));
      load(candidates, size, &tile);
      for (int i = 0; i < size; ++i) {
        if (!tile.usable[i]) continue;
        if (!kept.suppresses(tile.box[i], tile.area[i])) {
          kept.keep(tile.box[i], tile.area[i]);
          keep(candidates[i], tile.box[i]);
          --leaving;
        }
        if (--entering == 0 || leaving == 0) return;
      }
      candidates += size;
      left -= size;
    }
    // Chunks grow with what has been looked at in vain: each one costs a pass over the pool.
    wanted = std::min(kGrowth * wanted, std::max(entering, delivered / kGrowth));
  }
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_GREEDY_NMS_H_

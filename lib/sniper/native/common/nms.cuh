// Greedy non-maximum suppression by one thread block, with the decisions of common/nms.h.
#ifndef SNIPER_NATIVE_COMMON_NMS_CUH_
#define SNIPER_NATIVE_COMMON_NMS_CUH_

#include "common/box.h"
#include "common/cuda.cuh"

namespace sniper {

struct NmsLimits {
  std::int64_t entering;  // usable candidates that take part, whether they are kept or not
  int max_kept;
  float threshold;
};

// Kept boxes, best first; room for max_kept in global memory.
struct NmsKept {
  Box* boxes;
  float* areas;
  std::uint32_t* positions;  // of the candidates
};

// Shared memory of a block of kTile threads: the open candidates of one tile, which no box of an
// earlier tile suppresses. 44 KB for 512 threads, 14 KB for 256, 5 KB for 128.
template <int kTile>
struct NmsTile {
  static constexpr int kWarps = kTile / kWarpSize;
  static_assert(kTile % kWarpSize == 0 && kWarps <= kWarpSize, "one warp resolves a tile");

  float x1[kTile], y1[kTile], x2[kTile], y2[kTile], area[kTile];
  std::uint32_t positions[kTile];
  std::uint32_t masks[kTile][kWarps];  // the younger candidates that each one suppresses
  std::uint16_t kept[kTile];
  int num_kept;
  int usable_counts[kWarps], open_counts[kWarps];

  __device__ Box box(int i) const { return {x1[i], y1[i], x2[i], y2[i]}; }
};

// How many threads before this one have `flag`; `total` is how many of the block have. Every
// thread must call it. `counts` must not be written again before the next barrier.
__device__ __forceinline__ int block_rank(bool flag, int* counts, int* total) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int num_warps = static_cast<int>(blockDim.x) / kWarpSize;
  const unsigned ballot = __ballot_sync(kFullWarp, flag);
  if (lane == 0) counts[warp] = __popc(ballot);
  __syncthreads();
  int rank = __popc(ballot & ((1u << lane) - 1u));
  *total = 0;
  for (int w = 0; w < num_warps; ++w) {
    if (w < warp) rank += counts[w];
    *total += counts[w];
  }
  return rank;
}

// Whether one of the kept boxes suppresses the candidate. Several at a time, so that the loads of
// one do not wait for the test of the other.
__device__ __forceinline__ bool is_suppressed(const NmsKept& kept, int num_kept, const Box& box,
                                              float area, float threshold) {
  constexpr int kStep = 4;
  int k = 0;
  for (; k + kStep <= num_kept; k += kStep) {
    bool hit = false;
    for (int i = k; i < k + kStep; ++i) {
      hit |= suppresses(kept.boxes[i], kept.areas[i], box, area, threshold);
    }
    if (hit) return true;
  }
  for (; k < num_kept; ++k) {
    if (suppresses(kept.boxes[k], kept.areas[k], box, area, threshold)) return true;
  }
  return false;
}

// tile->masks of the first `num_open` candidates.
template <int kTile>
__device__ void find_overlaps(NmsTile<kTile>* tile, int num_open, float threshold) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int words = static_cast<int>(ceil_div(num_open, kWarpSize));
  for (int row = warp; row < num_open; row += NmsTile<kTile>::kWarps) {
    const Box box = tile->box(row);
    const float area = tile->area[row];
    for (int word = row / kWarpSize; word < words; ++word) {
      const int other = word * kWarpSize + lane;
      const bool hit = other > row && other < num_open &&
                       suppresses(box, area, tile->box(other), tile->area[other], threshold);
      const unsigned mask = __ballot_sync(kFullWarp, hit);
      if (lane == 0) tile->masks[row][word] = mask;
    }
  }
}

// One warp walks over the candidates that nobody has suppressed yet, best first. Lane w holds the
// candidates 32 w .. 32 w + 31.
template <int kTile>
__device__ void resolve_tile(NmsTile<kTile>* tile, int num_open, int room) {
  const int lane = static_cast<int>(threadIdx.x);
  const int words = static_cast<int>(ceil_div(num_open, kWarpSize));
  const int own = num_open - lane * kWarpSize;  // candidates of this lane, if positive
  unsigned remaining = own >= kWarpSize ? kFullWarp : own > 0 ? (1u << own) - 1u : 0u;
  int found = 0;
  while (found < room) {
    const unsigned lanes = __ballot_sync(kFullWarp, remaining != 0);
    if (lanes == 0) break;
    const int first = __ffs(static_cast<int>(lanes)) - 1;
    const unsigned word = __shfl_sync(kFullWarp, remaining, first);
    const int chosen = first * kWarpSize + __ffs(static_cast<int>(word)) - 1;
    if (lane == 0) tile->kept[found] = static_cast<std::uint16_t>(chosen);
    ++found;
    if (lane == first) remaining &= remaining - 1;
    if (lane >= first && lane < words) remaining &= ~tile->masks[chosen][lane];
  }
  if (lane == 0) tile->num_kept = found;
}

// Offers the candidates 0 .. count - 1 in this order and returns how many are kept. A block of
// kTile threads in one dimension calls it together; `kept` is complete for all of them on return.
//     struct Candidates {
//       // Whether the candidate takes part; unusable ones do not count as entering.
//       __device__ bool load(std::uint32_t position, Box* box, float* area) const;
//     };
template <int kTile, class Candidates>
__device__ int nms_block(const Candidates& candidates, std::int64_t count, const NmsLimits& limits,
                         const NmsKept& kept, NmsTile<kTile>* tile) {
  const int thread = static_cast<int>(threadIdx.x);
  std::int64_t entering = limits.entering;
  int num_kept = 0;
  for (std::int64_t start = 0; start < count; start += kTile) {
    const std::uint32_t position = static_cast<std::uint32_t>(start + thread);
    Box box = {0.0f, 0.0f, 0.0f, 0.0f};
    float area = 0.0f;
    const bool usable = start + thread < count && candidates.load(position, &box, &area);
    int num_usable, num_open;
    const int order = block_rank(usable, tile->usable_counts, &num_usable);
    const bool open =
        usable && order < entering && !is_suppressed(kept, num_kept, box, area, limits.threshold);
    const int slot = block_rank(open, tile->open_counts, &num_open);
    if (open) {
      tile->x1[slot] = box.x1;
      tile->y1[slot] = box.y1;
      tile->x2[slot] = box.x2;
      tile->y2[slot] = box.y2;
      tile->area[slot] = area;
      tile->positions[slot] = position;
    }
    __syncthreads();
    find_overlaps(tile, num_open, limits.threshold);
    __syncthreads();
    if (thread < kWarpSize) resolve_tile(tile, num_open, limits.max_kept - num_kept);
    __syncthreads();
    const int num_new = tile->num_kept;
    if (thread < num_new) {
      const int chosen = tile->kept[thread];
      kept.boxes[num_kept + thread] = tile->box(chosen);
      kept.areas[num_kept + thread] = tile->area[chosen];
      kept.positions[num_kept + thread] = tile->positions[chosen];
    }
    num_kept += num_new;
    entering -= num_usable;
    __syncthreads();
    if (num_kept == limits.max_kept || entering <= 0) break;
  }
  return num_kept;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_NMS_CUH_

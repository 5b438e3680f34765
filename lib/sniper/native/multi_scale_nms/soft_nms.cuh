// Gaussian soft-NMS by one block of kThreads threads, with the decisions and the order of
// soft_nms_cpu.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_CUH_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_CUH_

#include "common/cuda.cuh"
#include "multi_scale_nms/multi_scale_nms.h"

namespace sniper {

constexpr int kScore = 4;  // column of a detection

// Unsigned numbers in the order of the scores.
__device__ __forceinline__ unsigned ordered_bits(float score) {
  const unsigned bits = __float_as_uint(score + 0.0f);  // -0 becomes +0: they are a tie
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The rows of one group, as columns of `stride` floats. Rows in front of the current one have been
// selected.
struct GroupRows {
  float* columns;
  std::int64_t stride;

  __device__ float& at(int column, int row) const { return columns[column * stride + row]; }
  __device__ Box box(int row) const { return {at(0, row), at(1, row), at(2, row), at(3, row)}; }
  // For nms_block.
  __device__ bool load(std::uint32_t row, Box* box_out, float* area) const {
    *box_out = box(static_cast<int>(row));
    *area = area_inclusive(*box_out);
    return true;
  }
};

// What remove_fallen needs for the rows behind the selected one: one bit per row, their sums before
// each word, and the places to fill.
struct FallenRows {
  unsigned* bits;
  std::int32_t *before, *holes;

  __device__ bool has(int row) const { return bits[row / kWarpSize] >> (row % kWarpSize) & 1u; }
  __device__ int rank(int row) const {
    const unsigned below = (1u << (row % kWarpSize)) - 1u;
    return before[row / kWarpSize] + __popc(bits[row / kWarpSize] & below);
  }
};

// The best row has the largest key; of several the first one.
__device__ __forceinline__ unsigned long long selection_key(float score, int row) {
  return static_cast<unsigned long long>(ordered_bits(score)) << 32 |
         (0xFFFFFFFFu - static_cast<unsigned>(row));
}

__device__ __forceinline__ int row_of_key(unsigned long long key) {
  return static_cast<int>(0xFFFFFFFFu - static_cast<unsigned>(key));
}

// Each thread's best row from `first` on; 0 without.
template <int kThreads>
__device__ unsigned long long find_best(const GroupRows& rows, int first, int count) {
  unsigned long long best = 0;
  for (int row = first + static_cast<int>(threadIdx.x); row < count; row += kThreads) {
    const unsigned long long key = selection_key(rows.at(kScore, row), row);
    best = key > best ? key : best;
  }
  return best;
}

// The largest key of the block, for all of its threads.
template <int kThreads>
__device__ unsigned long long block_best(unsigned long long key) {
  __shared__ unsigned long long warps[kThreads / kWarpSize];
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    const unsigned long long other = __shfl_down_sync(kFullWarp, key, step);
    key = other > key ? other : key;
  }
  if (threadIdx.x % kWarpSize == 0) warps[threadIdx.x / kWarpSize] = key;
  __syncthreads();
  for (const unsigned long long other : warps) key = other > key ? other : key;
  return key;
}

// Decays the rows behind `chosen` and marks those that fall below min_score. Returns each thread's
// best row of the others.
template <int kThreads>
__device__ unsigned long long decay_rows(const GroupRows& rows, int chosen, int count,
                                         float inverse_sigma, float min_score,
                                         const FallenRows& fallen, int* any_fallen) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const Box selected = rows.box(chosen);
  const float selected_area = area_inclusive(selected);
  const int first = chosen + 1;
  unsigned long long best = 0;
  for (int base = static_cast<int>(threadIdx.x) - lane; base < count - first; base += kThreads) {
    const int row = first + base + lane;
    bool falls = false;
    if (row < count) {
      const Box box = rows.box(row);
      const float overlap =
          soft_overlap(intersection(selected, box), selected_area, area_inclusive(box));
      float score = rows.at(kScore, row);
      if (overlap > 0.0f) {
        score *= portable_exp(-soft_exponent(overlap, inverse_sigma));
        rows.at(kScore, row) = score;
        falls = score < min_score;
      }
      const unsigned long long key = falls ? 0 : selection_key(score, row);
      best = key > best ? key : best;
    }
    const unsigned mask = __ballot_sync(kFullWarp, falls);
    if (lane == 0) {
      fallen.bits[base / kWarpSize] = mask;
      if (mask != 0) *any_fallen = 1;
    }
  }
  return best;
}

// Sums of the fallen rows before each word, by one warp; returns how many have fallen.
inline __device__ int sum_fallen(int words, const FallenRows& fallen) {
  const int lane = static_cast<int>(threadIdx.x);
  int total = 0;
  for (int base = 0; base < words; base += kWarpSize) {
    const int word = base + lane;
    const int own = word < words ? __popc(fallen.bits[word]) : 0;
    int sum = own;
    for (int step = 1; step < kWarpSize; step *= 2) {
      const int before = __shfl_up_sync(kFullWarp, sum, step);
      if (lane >= step) sum += before;
    }
    if (word < words) fallen.before[word] = total + sum - own;
    total += __shfl_sync(kFullWarp, sum, kWarpSize - 1);
  }
  return total;
}

// Removes the marked ones of the rows first .. count - 1 and returns the new count. On the host
// every fallen row is replaced by the last row, which is examined in its turn: the k-th hole gets
// the k-th survivor from the end.
template <int kThreads>
__device__ int remove_fallen(const GroupRows& rows, int first, int count,
                             const FallenRows& fallen) {
  __shared__ int total;
  const int remaining = count - first;
  if (threadIdx.x < kWarpSize) {
    const int sum = sum_fallen(static_cast<int>(ceil_div(remaining, kWarpSize)), fallen);
    if (threadIdx.x == 0) total = sum;
  }
  __syncthreads();
  const int survivors = remaining - total;
  for (int row = static_cast<int>(threadIdx.x); row < survivors; row += kThreads) {
    if (fallen.has(row)) fallen.holes[fallen.rank(row)] = row;
  }
  __syncthreads();
  for (int row = survivors + static_cast<int>(threadIdx.x); row < remaining; row += kThreads) {
    if (fallen.has(row)) continue;
    const int survivors_behind = remaining - 1 - row - (total - fallen.rank(row));
    const int hole = fallen.holes[survivors_behind];
    for (int k = 0; k < kDetection; ++k) rows.at(k, first + hole) = rows.at(k, first + row);
  }
  __syncthreads();
  return first + survivors;
}

// soft_nms_cpu by a block: the same rows in the same order. Returns how many are left.
template <int kThreads>
__device__ int soft_nms(const GroupRows& rows, int count, const NmsSettings& settings,
                        const FallenRows& fallen) {
  __shared__ int any_fallen;
  const float inverse_sigma = 1.0f / settings.sigma;
  unsigned long long own_best = find_best<kThreads>(rows, 0, count);
  for (int chosen = 0; chosen < count; ++chosen) {
    const int best = row_of_key(block_best<kThreads>(own_best));
    if (threadIdx.x < kDetection && best != chosen) {
      const int column = static_cast<int>(threadIdx.x);
      const float moved = rows.at(column, chosen);
      rows.at(column, chosen) = rows.at(column, best);
      rows.at(column, best) = moved;
    }
    if (threadIdx.x == 0) any_fallen = 0;
    __syncthreads();
    own_best = decay_rows<kThreads>(rows, chosen, count, inverse_sigma, settings.min_score, fallen,
                                    &any_fallen);
    __syncthreads();
    if (any_fallen != 0) {
      count = remove_fallen<kThreads>(rows, chosen + 1, count, fallen);
      own_best = find_best<kThreads>(rows, chosen + 1, count);
    }
  }
  return count;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_SOFT_NMS_CUH_

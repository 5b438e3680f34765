// CUDA kernels of the chip generator.
//
// All boxes are added to the counts of the candidates that contain them at once. The greedy cover
// is a chain of steps, each a maximum over a few hundred counts, so one block takes them all and
// nothing has to be read back. Only integers are added atomically.

#include "chip_generator/chip_generator_cuda.h"
#include "common/cuda.cuh"

namespace sniper {
namespace {

constexpr int kCountThreads = 128;
constexpr int kCoverThreads = 512;
constexpr int kSharedCandidates = 3072;  // three int arrays of so many fit into shared memory
constexpr float kCovered = -1.0f;        // x1 of a box that is covered: left of every chip
constexpr float kPadding = -1.0f;

// Sizes and scratch memory of one call.
struct Plan {
  ChipGeneratorParams params;
  int candidates, rows, first_right, first_bottom;  // of the lattice
  Box* boxes;                                       // [box], scaled px
  CoveredBox* located;                              // [box]
  int* counts;                                      // [candidate]
  int* order;                                       // [position]: candidate
  int *partner, *reserved;                          // [position]
};

Plan make_plan(const ChipGeneratorParams& params, Workspace* workspace) {
  Plan plan = {};
  plan.params = params;
  // Less than one pixel: no chip.
  if (params.lattice.width == 0 || params.lattice.height == 0) plan.params.num_boxes = 0;
  plan.candidates = static_cast<int>(params.lattice.count());
  plan.rows = static_cast<int>(params.lattice.rows());
  plan.first_right = static_cast<int>(params.lattice.first_right());
  plan.first_bottom = static_cast<int>(params.lattice.first_bottom());
  plan.boxes = workspace->take<Box>(params.num_boxes);
  plan.located = workspace->take<CoveredBox>(params.num_boxes);
  plan.counts = workspace->take<int>(plan.candidates);
  plan.order = workspace->take<int>(plan.candidates);
  plan.partner = workspace->take<int>(plan.candidates);
  plan.reserved = workspace->take<int>(plan.candidates);
  return plan;
}

// Adds `change` to the counts of the candidates that contain a box; a warp works on one box.
__device__ void count_box(const Plan& plan, const CoveredBox& found, int change, int lane,
                          int* counts) {
  const int rows = found.rows.count(), columns = found.columns.count();
  if (lane < kChipCorners && found.corner[lane]) atomicAdd(counts + lane, change);
  for (int cell = lane; cell < rows * columns; cell += kWarpSize) {
    const int column = found.columns.first + cell / rows, row = found.rows.first + cell % rows;
    atomicAdd(counts + kChipCorners + column * plan.rows + row, change);
  }
  if (found.right) {
    int* edge = counts + plan.first_right + found.rows.first;
    for (int k = lane; k < rows; k += kWarpSize) atomicAdd(edge + k, change);
  }
  if (found.bottom) {
    int* edge = counts + plan.first_bottom + found.columns.first;
    for (int k = lane; k < columns; k += kWarpSize) atomicAdd(edge + k, change);
  }
}

// Scales, clips and counts the boxes, one per warp, and pads the output.
__global__ void count_kernel(Plan plan, const float* boxes_im, float* chips_im) {
  const ChipGeneratorParams& params = plan.params;
  for (int64_t i = global_thread(); i < params.max_chips * 4; i += global_threads()) {
    chips_im[i] = kPadding;
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const float factor = static_cast<float>(params.request.factor);
  const int64_t step = global_threads() / kWarpSize;
  for (int64_t n = global_thread() / kWarpSize; n < params.num_boxes; n += step) {
    const float* row = boxes_im + n * 4;
    Box box = {};
    const bool real = is_real_box(row) && box_on_level(params.lattice, factor,
                                                       params.request.legacy_clip, row, &box);
    if (real) {
      const CoveredBox found = find_chips(params.lattice, box);
      if (lane == 0) plan.located[n] = found;
      count_box(plan, found, 1, lane, plan.counts);
    } else {
      box.x1 = kCovered;
    }
    if (lane == 0) plan.boxes[n] = box;
  }
}

// The order of chip_permutation, by the whole block: a swap may run as soon as no earlier swap (of
// a larger position) that is still waiting touches its two positions (deterministic reservations,
// Shun et al. 2015). That takes a number of rounds that is logarithmic in the number of candidates.
__device__ void shuffle_candidates(const Plan& plan, int* order, int* partner, int* reserved) {
  __shared__ int waiting;
  const int count = plan.candidates;
  const int first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  for (int i = first; i < count; i += step) {
    order[i] = i;
    reserved[i] = -1;
    partner[i] = i > 0 ? static_cast<int>(swap_partner(count, plan.params.request.seed, i)) : -1;
  }
  do {
    __syncthreads();
    if (first == 0) waiting = 0;
    for (int i = first; i < count; i += step) {
      if (partner[i] < 0) continue;
      atomicMax(reserved + i, i);
      atomicMax(reserved + partner[i], i);
    }
    __syncthreads();
    for (int i = first; i < count; i += step) {
      const int j = partner[i];
      if (j < 0) continue;
      if (reserved[i] == i && reserved[j] == i) {
        const int moved = order[i];
        order[i] = order[j];
        order[j] = moved;
        partner[i] = -1;
      } else {
        waiting = 1;
      }
    }
    __syncthreads();
    for (int i = first; i < count; i += step) reserved[i] = -1;
  } while (waiting != 0);
}

// A candidate's place in the competition: its count, then its position, first come first served.
__device__ __forceinline__ unsigned long long competition_key(int count, int position) {
  return static_cast<unsigned long long>(count) << 32 |
         (0xFFFFFFFFu - static_cast<unsigned>(position));
}

__device__ unsigned long long best_of_warp(unsigned long long key) {
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    const unsigned long long other = __shfl_down_sync(kFullWarp, key, step);
    key = other > key ? other : key;
  }
  return key;
}

// Takes the boxes that `chip` contains out of the counts.
__device__ void remove_covered(const Plan& plan, const Box& chip, int* counts) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int64_t base = threadIdx.x - lane; base < plan.params.num_boxes; base += blockDim.x) {
    const int64_t n = base + lane;
    const bool covered = n < plan.params.num_boxes && contains(chip, plan.boxes[n]);
    if (covered) plan.boxes[n].x1 = kCovered;
    for (unsigned left = __ballot_sync(kFullWarp, covered); left != 0; left &= left - 1) {
      count_box(plan, plan.located[base + __ffs(static_cast<int>(left)) - 1], -1, lane, counts);
    }
  }
}

__device__ void write_chip(const Plan& plan, int candidate, float* row) {
  double rectangle_im[4];
  chip_to_image(plan.params.request, plan.params.lattice, candidate, rectangle_im);
  for (int k = 0; k < 4; ++k) row[k] = static_cast<float>(rectangle_im[k]);
}

// One block: shuffles the candidates, then selects chips until no box is left.
__global__ void cover_kernel(Plan plan, bool in_shared, float* chips_im, float* count_out) {
  SNIPER_DYNAMIC_SHARED(int, shared);
  __shared__ unsigned long long best[2];  // of this step, of the next one
  const int count = plan.candidates;
  int* order = in_shared ? shared : plan.order;
  int* partner = in_shared ? shared + count : plan.partner;
  int* reserved = in_shared ? shared + 2 * count : plan.reserved;
  shuffle_candidates(plan, order, partner, reserved);
  int* counts = plan.counts;
  if (in_shared) {
    counts = partner;  // of no use any more
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
      counts[i] = plan.counts[i];
    }
  }
  if (threadIdx.x == 0) best[0] = best[1] = 0;
  __syncthreads();
  // Every chip covers a box that no earlier one does.
  const int64_t most =
      plan.params.num_boxes < plan.params.max_chips ? plan.params.num_boxes : plan.params.max_chips;
  int64_t selected = 0;
  for (; selected < most; ++selected) {
    unsigned long long own = 0;
    for (int p = static_cast<int>(threadIdx.x); p < count; p += static_cast<int>(blockDim.x)) {
      const unsigned long long key = competition_key(counts[order[p]], p);
      own = key > own ? key : own;
    }
    own = best_of_warp(own);
    if (threadIdx.x % kWarpSize == 0) atomicMax(best + selected % 2, own);
    __syncthreads();
    const unsigned long long winner = best[selected % 2];
    if (winner >> 32 == 0) break;
    const int candidate = order[0xFFFFFFFFu - static_cast<unsigned>(winner)];
    if (threadIdx.x == 0) {
      best[(selected + 1) % 2] = 0;
      write_chip(plan, candidate, chips_im + selected * 4);
    }
    remove_covered(plan, chip_at(plan.params.lattice, candidate), counts);
    __syncthreads();
  }
  if (threadIdx.x == 0) count_out[0] = static_cast<float>(selected);
}

}  // namespace
}  // namespace sniper

SNIPER_CUDA_API int sniper_chip_generator_workspace(const sniper::ChipGeneratorParams* params,
                                                    std::size_t* bytes) {
  sniper::Workspace measure(nullptr);
  sniper::make_plan(*params, &measure);
  *bytes = measure.bytes();
  return cudaSuccess;
}

// The graph operator: boxes_im (num_boxes, 4), padding allowed; chips_im (max_chips, 4) in the
// order of selection, padded with -1; count (1,). The same bits as on the CPU.
SNIPER_CUDA_API int sniper_chip_generator_forward(const sniper::ChipGeneratorParams* params,
                                                  const float* boxes_im, float* chips_im,
                                                  float* count, void* workspace, void* stream) {
  using namespace sniper;
  Workspace memory(workspace);
  const Plan plan = make_plan(*params, &memory);
  const std::size_t bytes = static_cast<std::size_t>(plan.candidates) * sizeof(int);
  const cudaError_t cleared =
      cudaMemsetAsync(plan.counts, 0, bytes, static_cast<cudaStream_t>(stream));
  if (cleared != cudaSuccess) return cleared;
  const int64_t threads = plan.params.num_boxes * kWarpSize;
  SNIPER_LAUNCH(count_kernel, blocks_for(threads, kCountThreads), kCountThreads, 0, stream, plan,
                boxes_im, chips_im);
  const bool in_shared = plan.candidates <= kSharedCandidates;
  SNIPER_LAUNCH(cover_kernel, 1, kCoverThreads, in_shared ? 3 * bytes : 0, stream, plan, in_shared,
                chips_im, count);
  return cudaGetLastError();
}

// CUDA kernels of AnchorMiningTarget: a thread per anchor finds what it may be taken as, one sort
// of all anchors by (image, kind, hardness) ranks them, and a block per image writes the first ones.

#include "anchor_mining_target/anchor_mining_target_cuda.h"
#include "common/cuda.cuh"
#include "common/device_wide.cuh"

namespace sniper {
namespace {

constexpr int kThreads = 256;

// Device pointers as in anchor_mining_target_cpu.
struct MiningInputs {
  const float *cls_prob, *im_info, *gt_boxes;
  const float* ignore_boxes;  // or null
};

struct MiningOutputs {
  float *label, *target, *weight, *count;
};

int key_bits(int num_images) {
  return 32 + bits_for(static_cast<std::int64_t>(num_images) * kMinedKinds);
}

struct MiningScratch {
  Box* base;
  std::uint64_t *keys, *sorted_keys;        // (image * kMinedKinds + kind) << 32 | hardness
  std::uint32_t *anchors, *sorted_anchors;  // linear anchor indices of each image
  std::int32_t* match;                      // row of gt_boxes, of positive anchors
  int* some_inside;                         // (N,)
  void* sort_storage;
  std::size_t sort_bytes;

  cudaError_t take(const AnchorMiningTargetParams& params, Workspace* workspace) {
    const std::int64_t items = params.num_images * params.grid.count();
    sort_bytes = 0;
    const cudaError_t status = sort_pairs(nullptr, &sort_bytes, nullptr, nullptr, nullptr, nullptr,
                                          items, key_bits(params.num_images), nullptr);
    base = workspace->take<Box>(params.grid.num_anchors);
    keys = workspace->take<std::uint64_t>(items);
    sorted_keys = workspace->take<std::uint64_t>(items);
    anchors = workspace->take<std::uint32_t>(items);
    sorted_anchors = workspace->take<std::uint32_t>(items);
    match = workspace->take<std::int32_t>(items);
    some_inside = workspace->take<int>(params.num_images);
    sort_storage = workspace->take<unsigned char>(static_cast<std::int64_t>(sort_bytes));
    return status;
  }
};

__device__ bool is_inside(const AnchorMiningTargetParams& params, const float* im_info,
                          std::int64_t image, std::int64_t anchor) {
  return anchor_is_inside(anchor_with_index(params.grid, anchor), im_info[3 * image],
                          im_info[3 * image + 1], params.border);
}

__global__ void fill_outputs(AnchorMiningTargetParams params, MiningOutputs outputs,
                             MiningScratch scratch) {
  const std::int64_t items = params.num_images * params.grid.count();
  for (std::int64_t i = global_thread(); i < items; i += global_threads()) {
    outputs.label[i] = -1.0f;
    for (std::int64_t k = i; k < 4 * items; k += items) {
      outputs.target[k] = 0.0f;
      outputs.weight[k] = 0.0f;
    }
    if (i < params.num_images) scratch.some_inside[i] = 0;
  }
}

__global__ void find_inside(AnchorMiningTargetParams params, MiningInputs inputs,
                            MiningScratch scratch) {
  const std::int64_t count = params.grid.count();
  for (std::int64_t i = global_thread(); i < params.num_images * count; i += global_threads()) {
    const std::int64_t image = i / count;
    if (scratch.some_inside[image] == 0 && is_inside(params, inputs.im_info, image, i % count)) {
      atomicOr(scratch.some_inside + image, 1);
    }
  }
}

// Row of gt_boxes that overlaps an anchor most, the first one on ties, and how much.
struct BestGt {
  std::int32_t row;
  float overlap;
};

__device__ BestGt best_gt(const AnchorMiningTargetParams& params, const float* gt_boxes,
                          const Box& anchor, float base_area) {
  BestGt best = {-1, 0.0f};
  for (std::int32_t row = 0; row < params.max_gt; ++row) {
    if (!gt_can_match(gt_boxes + 5 * static_cast<std::int64_t>(row))) continue;
    const Box gt = gt_box(gt_boxes, row);
    const float area = area_inclusive(gt);
    if (!areas_can_match(area, base_area, params.negative_overlap)) continue;
    const float overlap = mining_overlap(gt, area, anchor);
    if (overlap > best.overlap) best = {row, overlap};
  }
  return best;
}

// `ignore_boxes` of the anchor's image, or null.
__device__ bool is_ignored(const AnchorMiningTargetParams& params, const float* ignore_boxes,
                           const Box& anchor, float base_area) {
  if (ignore_boxes == nullptr) return false;
  for (std::int32_t row = 0; row < params.max_ignored; ++row) {
    if (!gt_can_match(ignore_boxes + 5 * static_cast<std::int64_t>(row))) continue;
    const Box box = gt_box(ignore_boxes, row);
    const float area = area_inclusive(box);
    if (!areas_can_match(area, base_area, params.ignore_overlap)) continue;
    if (mining_overlap(box, area, anchor) > params.ignore_overlap) return true;
  }
  return false;
}

__global__ void match_anchors(AnchorMiningTargetParams params, MiningInputs inputs,
                              MiningScratch scratch) {
  const std::int64_t count = params.grid.count();
  for (std::int64_t i = global_thread(); i < params.num_images * count; i += global_threads()) {
    const std::int64_t image = i / count, index = i % count;
    const Box anchor = anchor_with_index(params.grid, index);
    const float base_area = area_inclusive(params.grid.base[index / params.grid.cells()]);
    const float* ignored = inputs.ignore_boxes == nullptr
                               ? nullptr
                               : inputs.ignore_boxes + 5 * image * params.max_ignored;
    MinedKind kind = kNotMined;
    if ((scratch.some_inside[image] == 0 || is_inside(params, inputs.im_info, image, index)) &&
        !is_ignored(params, ignored, anchor, base_area)) {
      const BestGt best =
          best_gt(params, inputs.gt_boxes + 5 * image * params.max_gt, anchor, base_area);
      kind = mined_kind(best.overlap, params);
      scratch.match[i] = best.row;
    }
    scratch.keys[i] = static_cast<std::uint64_t>(image * kMinedKinds + kind) << 32 |
                      mining_key(kind, inputs.cls_prob[(2 * image + 1) * count + index]);
    scratch.anchors[i] = static_cast<std::uint32_t>(index);
  }
}

// How many of the sorted keys of one image are of a smaller group (image and kind) than this.
__device__ std::int64_t keys_before(const std::uint64_t* keys, std::int64_t count,
                                    std::uint64_t group) {
  std::int64_t low = 0, high = count;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (keys[middle] >> 32 < group) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// One block per image.
__global__ void write_hardest(AnchorMiningTargetParams params, MiningInputs inputs,
                              MiningOutputs outputs, MiningScratch scratch) {
  const std::int64_t image = blockIdx.x;
  const std::int64_t count = params.grid.count();
  const std::uint64_t* keys = scratch.sorted_keys + image * count;
  const std::uint32_t* anchors = scratch.sorted_anchors + image * count;
  const std::uint64_t group = static_cast<std::uint64_t>(image) * kMinedKinds;
  const std::int64_t positives = keys_before(keys, count, group + kMinedNegative);
  const std::int64_t both = keys_before(keys, count, group + kNotMined);
  const MinedCount taken = mined_count(positives, both - positives, params);
  float* label = outputs.label + image * count;
  for (std::int64_t i = threadIdx.x; i < taken.positives; i += blockDim.x) {
    const std::uint32_t index = anchors[i];
    label[index] = 1.0f;
    const std::int64_t row = scratch.match[image * count + index];
    write_positive(params.grid, index, gt_box(inputs.gt_boxes, image * params.max_gt + row),
                   taken.weight(), outputs.target + 4 * image * count,
                   outputs.weight + 4 * image * count);
  }
  for (std::int64_t i = threadIdx.x; i < taken.negatives; i += blockDim.x) {
    label[anchors[positives + i]] = 0.0f;
  }
  if (threadIdx.x == 0) {
    outputs.count[2 * image] = static_cast<float>(taken.positives);
    outputs.count[2 * image + 1] = static_cast<float>(taken.positives + taken.negatives);
  }
}

}  // namespace
}  // namespace sniper

SNIPER_CUDA_API int sniper_anchor_mining_target_workspace(
    const sniper::AnchorMiningTargetParams* params, std::size_t* bytes) {
  sniper::Workspace workspace(nullptr);
  sniper::MiningScratch scratch;
  const cudaError_t status = scratch.take(*params, &workspace);
  *bytes = workspace.bytes();
  return status;
}

SNIPER_CUDA_API int sniper_anchor_mining_target_forward(
    const sniper::AnchorMiningTargetParams* host_params, const float* cls_prob,
    const float* im_info, const float* gt_boxes, const float* ignore_boxes, float* label,
    float* target, float* weight, float* count, void* memory, void* stream) {
  using namespace sniper;
  AnchorMiningTargetParams params = *host_params;
  const std::int64_t items = params.num_images * params.grid.count();
  if (items == 0) return cudaSuccess;
  Workspace workspace(memory);
  MiningScratch scratch;
  cudaError_t status = scratch.take(params, &workspace);
  if (status != cudaSuccess) return status;
  store_values(params.grid.base, params.grid.num_anchors, scratch.base, stream);
  params.grid.base = scratch.base;
  const MiningInputs inputs = {cls_prob, im_info, gt_boxes, ignore_boxes};
  const MiningOutputs outputs = {label, target, weight, count};
  const unsigned blocks = blocks_for(items, kThreads);
  SNIPER_LAUNCH(fill_outputs, blocks, kThreads, 0, stream, params, outputs, scratch);
  SNIPER_LAUNCH(find_inside, blocks, kThreads, 0, stream, params, inputs, scratch);
  SNIPER_LAUNCH(match_anchors, blocks, kThreads, 0, stream, params, inputs, scratch);
  std::size_t sort_bytes = scratch.sort_bytes;
  status = sort_pairs(scratch.sort_storage, &sort_bytes, scratch.keys, scratch.sorted_keys,
                      scratch.anchors, scratch.sorted_anchors, items, key_bits(params.num_images),
                      stream);
  if (status != cudaSuccess) return status;
  SNIPER_LAUNCH(write_hardest, static_cast<unsigned>(params.num_images), kThreads, 0, stream,
                params, inputs, outputs, scratch);
  return cudaGetLastError();
}

// CUDA kernels of multi-scale NMS.
//
// The rows are sorted by image and class on the device, so that nothing has to be read back: a
// bounded grid of small blocks takes group after group from a counter, and a second grid of larger
// blocks the groups of many rows, which are listed first. Rows live in five columns
// (x1, y1, x2, y2, score) of the sorted order.

#include "common/cuda.cuh"
#include "common/device_wide.cuh"
#include "common/nms.cuh"
#include "multi_scale_nms/multi_scale_nms_cuda.h"
#include "multi_scale_nms/nth_score.cuh"
#include "multi_scale_nms/soft_nms.cuh"

namespace sniper {
namespace {

constexpr int kThreads = 256;
constexpr int kSmallGroup = 256;  // most rows of a group that a small block suppresses
constexpr unsigned kMaxBlocks = 4096;
constexpr int kIndexBits = 25;  // of a class or an image
constexpr int kKeyBits = 2 * kIndexBits + 1;
constexpr std::uint64_t kDropped = std::uint64_t{1} << (2 * kIndexBits);  // sorts behind all groups
constexpr float kPadding = -1.0f;

// Sizes and scratch memory of one call.
struct Plan {
  MultiScaleNmsParams params;
  int count;
  std::uint64_t *keys, *sorted_keys;  // image << kIndexBits | class, or kDropped
  std::uint32_t *rows, *sorted_rows;  // of the input
  std::int32_t *flags, *offsets;      // [sorted row]
  std::int32_t* starts;               // [group or image]: first sorted row, then the end
  std::int32_t *num_groups, *num_images, *next_group;
  std::int32_t *large_groups, *num_large;  // more than kSmallGroup rows, in any order
  float* columns;                          // [column][sorted row]
  std::int32_t* keep;                      // [sorted row]
  unsigned* fallen;                        // soft-NMS; those of a group begin at its first row
  std::int32_t *fallen_before, *holes;
  NmsKept kept;  // hard NMS; the same
  void* storage;
  std::size_t storage_bytes;

  int most_large() const { return count / (kSmallGroup + 1); }
  __host__ __device__ bool hard() const { return !(params.settings.nms_threshold <= 0.0f); }
};

struct Inputs {
  const float *dets, *levels, *classes, *images, *valid_ranges;
};

struct Outputs {
  float *dets, *classes, *images, *count;
};

cudaError_t make_plan(const MultiScaleNmsParams& params, Workspace* workspace, Plan* plan) {
  if (params.count < 0 || params.count >= INT32_MAX) return cudaErrorInvalidValue;
  const std::int64_t count = params.count;
  *plan = {};
  plan->params = params;
  plan->count = static_cast<int>(count);
  plan->keys = workspace->take<std::uint64_t>(count);
  plan->sorted_keys = workspace->take<std::uint64_t>(count);
  plan->rows = workspace->take<std::uint32_t>(count);
  plan->sorted_rows = workspace->take<std::uint32_t>(count);
  plan->flags = workspace->take<std::int32_t>(count);
  plan->offsets = workspace->take<std::int32_t>(count);
  plan->starts = workspace->take<std::int32_t>(count + 1);
  plan->num_groups = workspace->take<std::int32_t>(1);
  plan->num_images = workspace->take<std::int32_t>(1);
  plan->next_group = workspace->take<std::int32_t>(1);
  plan->large_groups = workspace->take<std::int32_t>(plan->most_large());
  plan->num_large = workspace->take<std::int32_t>(1);
  plan->columns = workspace->take<float>(count * kDetection);
  plan->keep = workspace->take<std::int32_t>(count);
  if (plan->hard()) {
    plan->kept.boxes = workspace->take<Box>(count);
    plan->kept.areas = workspace->take<float>(count);
    plan->kept.positions = workspace->take<std::uint32_t>(count);
  } else {
    plan->fallen = workspace->take<unsigned>(count);
    plan->fallen_before = workspace->take<std::int32_t>(count);
    plan->holes = workspace->take<std::int32_t>(count);
  }
  std::size_t sort_bytes = 0, sum_bytes = 0;
  cudaError_t status = sort_pairs(nullptr, &sort_bytes, plan->keys, plan->sorted_keys, plan->rows,
                                  plan->sorted_rows, count, kKeyBits, nullptr);
  if (status != cudaSuccess) return status;
  status = exclusive_sum(nullptr, &sum_bytes, plan->flags, plan->offsets, count, nullptr);
  plan->storage_bytes = sort_bytes > sum_bytes ? sort_bytes : sum_bytes;
  plan->storage = workspace->take<unsigned char>(static_cast<std::int64_t>(plan->storage_bytes));
  return status;
}

// The group of a row of the input; kDropped for padding, for a row that is not finite or not in the
// valid range of its level, and for a level, class or image that does not exist. (On the host the
// last three are errors; a kernel cannot throw.)
__device__ std::uint64_t group_key(const Plan& plan, const Inputs& inputs, std::int64_t row) {
  const float* det = inputs.dets + row * kDetection;
  const Box box = {det[0], det[1], det[2], det[3]};
  const std::int32_t level = nms_index(inputs.levels[row]), cls = nms_index(inputs.classes[row]);
  const std::int32_t image = nms_index(inputs.images[row]);
  if (image < 0 || cls < 0 || level < 0 || level >= plan.params.num_levels) return kDropped;
  if (!is_finite(box) || !is_finite(det[kScore])) return kDropped;
  const float* range = inputs.valid_ranges + 2 * static_cast<std::int64_t>(level);
  if (!in_valid_range(box, range[0], range[1])) return kDropped;
  return static_cast<std::uint64_t>(image) << kIndexBits | static_cast<std::uint64_t>(cls);
}

// First sorting keys: the score for hard NMS (best first), else the group. Pads the outputs.
__global__ void start_kernel(Plan plan, Inputs inputs, Outputs outputs) {
  for (std::int64_t i = global_thread(); i < plan.count; i += global_threads()) {
    plan.rows[i] = static_cast<std::uint32_t>(i);
    plan.keys[i] = plan.hard() ? ~ordered_bits(inputs.dets[i * kDetection + kScore])
                               : group_key(plan, inputs, i);
    plan.keep[i] = 0;
    outputs.classes[i] = kPadding;
    outputs.images[i] = kPadding;
  }
  for (std::int64_t i = global_thread(); i < plan.count * kDetection; i += global_threads()) {
    outputs.dets[i] = kPadding;
  }
  if (global_thread() == 0) {
    *plan.num_groups = 0;
    *plan.num_images = 0;
    *plan.next_group = 0;
    *plan.num_large = 0;
    *outputs.count = 0.0f;
  }
}

// Second sorting keys of hard NMS; the sort is stable, so a group keeps the order of the scores.
__global__ void regroup_kernel(Plan plan, Inputs inputs) {
  for (std::int64_t i = global_thread(); i < plan.count; i += global_threads()) {
    plan.keys[i] = group_key(plan, inputs, plan.rows[i]);
  }
}

// Marks the first sorted row of every segment, that is of every image (shift kIndexBits) or group
// (shift 0).
__global__ void mark_segments_kernel(Plan plan, int shift) {
  for (std::int64_t i = global_thread(); i < plan.count; i += global_threads()) {
    const std::uint64_t key = plan.sorted_keys[i];
    const bool first = i == 0 || plan.sorted_keys[i - 1] >> shift != key >> shift;
    plan.flags[i] = key != kDropped && first;
  }
}

// starts[segment] from the marks and their sums.
__global__ void cut_segments_kernel(Plan plan, std::int32_t* num_segments) {
  for (std::int64_t i = global_thread(); i < plan.count; i += global_threads()) {
    if (plan.sorted_keys[i] == kDropped) continue;
    const std::int32_t flag = plan.flags[i], segment = plan.offsets[i];
    if (flag) plan.starts[segment] = static_cast<std::int32_t>(i);
    if (i + 1 == plan.count || plan.sorted_keys[i + 1] == kDropped) {
      plan.starts[segment + flag] = static_cast<std::int32_t>(i + 1);
      *num_segments = segment + flag;
    }
  }
}

__global__ void load_columns_kernel(Plan plan, const float* dets) {
  for (std::int64_t i = global_thread(); i < plan.count; i += global_threads()) {
    const float* det = dets + plan.sorted_rows[i] * kDetection;
    for (int k = 0; k < kDetection; ++k) {
      plan.columns[static_cast<std::int64_t>(k) * plan.count + i] = det[k];
    }
  }
}

__device__ int rows_of(const Plan& plan, int group) {
  return plan.starts[group + 1] - plan.starts[group];
}

__global__ void list_large_kernel(Plan plan) {
  for (std::int64_t group = global_thread(); group < *plan.num_groups; group += global_threads()) {
    if (rows_of(plan, static_cast<int>(group)) <= kSmallGroup) continue;
    plan.large_groups[atomicAdd(plan.num_large, 1)] = static_cast<std::int32_t>(group);
  }
}

// Soft-NMS of a group, in shared memory up to kSharedRows rows.
template <int kBlock, int kSharedRows>
struct SoftNms {
  static constexpr int kThreads = kBlock;

  static __device__ void run(const Plan& plan, int group) {
    __shared__ float columns[kDetection * kSharedRows];
    __shared__ unsigned bits[kSharedRows / kWarpSize];
    __shared__ std::int32_t before[kSharedRows / kWarpSize], holes[kSharedRows];
    const int start = plan.starts[group], count = rows_of(plan, group);
    const GroupRows global = {plan.columns + start, plan.count};
    const bool fits = count <= kSharedRows;
    const GroupRows rows = fits ? GroupRows{columns, kSharedRows} : global;
    const FallenRows fallen =
        fits ? FallenRows{bits, before, holes}
             : FallenRows{plan.fallen + start, plan.fallen_before + start, plan.holes + start};
    for (int i = static_cast<int>(threadIdx.x); fits && i < count; i += kThreads) {
      for (int k = 0; k < kDetection; ++k) rows.at(k, i) = global.at(k, i);
    }
    __syncthreads();
    const int kept = soft_nms<kThreads>(rows, count, plan.params.settings, fallen);
    for (int i = static_cast<int>(threadIdx.x); i < kept; i += kThreads) {
      plan.keep[start + i] = 1;
      for (int k = 0; fits && k < kDetection; ++k) global.at(k, i) = rows.at(k, i);
    }
  }
};

template <int kBlock>
struct HardNms {
  static constexpr int kThreads = kBlock;

  static __device__ void run(const Plan& plan, int group) {
    __shared__ NmsTile<kThreads> tile;
    const int start = plan.starts[group], count = rows_of(plan, group);
    const NmsKept kept = {plan.kept.boxes + start, plan.kept.areas + start,
                          plan.kept.positions + start};
    const NmsLimits limits = {count, count, plan.params.settings.nms_threshold};
    const GroupRows rows = {plan.columns + start, plan.count};
    const int num_kept = nms_block<kThreads>(rows, count, limits, kept, &tile);
    for (int k = static_cast<int>(threadIdx.x); k < num_kept; k += kThreads) {
      plan.keep[start + static_cast<int>(kept.positions[k])] = 1;
    }
  }
};

// The next group for this block; -1 when there is none left.
__device__ int take_group(const Plan& plan) {
  __shared__ int group;
  __syncthreads();
  if (threadIdx.x == 0) group = atomicAdd(plan.next_group, 1);
  __syncthreads();
  return group < *plan.num_groups ? group : -1;
}

template <class Nms>
__global__ void __launch_bounds__(Nms::kThreads) small_groups_kernel(Plan plan) {
  for (int group = take_group(plan); group >= 0; group = take_group(plan)) {
    if (rows_of(plan, group) <= kSmallGroup) Nms::run(plan, group);
  }
}

template <class Nms>
__global__ void __launch_bounds__(Nms::kThreads) large_groups_kernel(Plan plan) {
  for (int k = static_cast<int>(blockIdx.x); k < *plan.num_large;
       k += static_cast<int>(gridDim.x)) {
    Nms::run(plan, plan.large_groups[k]);
    __syncthreads();
  }
}

// Drops the rows of an image whose score is smaller than the max_per_image-th largest.
__global__ void limit_kernel(Plan plan) {
  const float* scores = plan.columns + static_cast<std::int64_t>(kScore) * plan.count;
  for (int image = static_cast<int>(blockIdx.x); image < *plan.num_images;
       image += static_cast<int>(gridDim.x)) {
    const int begin = plan.starts[image], end = plan.starts[image + 1];
    const float least =
        nth_score<kThreads>(scores, plan.keep, begin, end, plan.params.max_per_image);
    for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) {
      if (scores[i] < least) plan.keep[i] = 0;
    }
  }
}

__global__ void write_kernel(Plan plan, Outputs outputs) {
  for (std::int64_t i = global_thread(); i < plan.count; i += global_threads()) {
    const std::int64_t target = plan.offsets[i];
    if (i + 1 == plan.count) *outputs.count = static_cast<float>(target + plan.keep[i]);
    if (!plan.keep[i]) continue;
    for (int k = 0; k < kDetection; ++k) {
      outputs.dets[target * kDetection + k] =
          plan.columns[static_cast<std::int64_t>(k) * plan.count + i];
    }
    const std::uint64_t key = plan.sorted_keys[i];
    const std::uint64_t index_mask = (std::uint64_t{1} << kIndexBits) - 1;
    outputs.classes[target] = static_cast<float>(key & index_mask);
    outputs.images[target] = static_cast<float>(key >> kIndexBits);
  }
}

unsigned blocks(const Plan& plan) { return blocks_for(plan.count, kThreads); }

cudaError_t enqueue_sort(Plan* plan, const std::uint32_t* rows, std::uint32_t* sorted_rows,
                         int key_bits, void* stream) {
  std::size_t bytes = plan->storage_bytes;
  return sort_pairs(plan->storage, &bytes, plan->keys, plan->sorted_keys, rows, sorted_rows,
                    plan->count, key_bits, stream);
}

// Brings the rows into the order of the groups.
cudaError_t enqueue_grouping(Plan* plan, const Inputs& inputs, void* stream) {
  if (!plan->hard()) {
    return enqueue_sort(plan, plan->rows, plan->sorted_rows, kKeyBits, stream);
  }
  const cudaError_t status = enqueue_sort(plan, plan->rows, plan->sorted_rows, 32, stream);
  if (status != cudaSuccess) return status;
  std::uint32_t* by_score = plan->sorted_rows;
  plan->sorted_rows = plan->rows;
  plan->rows = by_score;
  SNIPER_LAUNCH(regroup_kernel, blocks(*plan), kThreads, 0, stream, *plan, inputs);
  return enqueue_sort(plan, plan->rows, plan->sorted_rows, kKeyBits, stream);
}

cudaError_t enqueue_sum(const Plan& plan, const std::int32_t* flags, void* stream) {
  std::size_t bytes = plan.storage_bytes;
  return exclusive_sum(plan.storage, &bytes, flags, plan.offsets, plan.count, stream);
}

cudaError_t enqueue_segments(const Plan& plan, int shift, std::int32_t* num_segments,
                             void* stream) {
  SNIPER_LAUNCH(mark_segments_kernel, blocks(plan), kThreads, 0, stream, plan, shift);
  const cudaError_t status = enqueue_sum(plan, plan.flags, stream);
  if (status != cudaSuccess) return status;
  SNIPER_LAUNCH(cut_segments_kernel, blocks(plan), kThreads, 0, stream, plan, num_segments);
  return cudaSuccess;
}

// Of a kernel that gives each group, of at most `most`, a block.
unsigned group_blocks(std::int64_t most) {
  const unsigned wanted = blocks_for(most, 1);
  return wanted < kMaxBlocks ? wanted : kMaxBlocks;
}

template <class Small, class Large>
void enqueue_suppression(const Plan& plan, void* stream) {
  SNIPER_LAUNCH(small_groups_kernel<Small>, group_blocks(plan.count), Small::kThreads, 0, stream,
                plan);
  if (plan.most_large() == 0) return;
  SNIPER_LAUNCH(list_large_kernel, blocks(plan), kThreads, 0, stream, plan);
  SNIPER_LAUNCH(large_groups_kernel<Large>, group_blocks(plan.most_large()), Large::kThreads, 0,
                stream, plan);
}

cudaError_t enqueue_all(Plan* plan, const Inputs& inputs, const Outputs& outputs, void* stream) {
  SNIPER_LAUNCH(start_kernel, blocks(*plan), kThreads, 0, stream, *plan, inputs, outputs);
  if (plan->count == 0) return cudaGetLastError();
  cudaError_t status = enqueue_grouping(plan, inputs, stream);
  if (status != cudaSuccess) return status;
  status = enqueue_segments(*plan, 0, plan->num_groups, stream);
  if (status != cudaSuccess) return status;
  SNIPER_LAUNCH(load_columns_kernel, blocks(*plan), kThreads, 0, stream, *plan, inputs.dets);
  if (plan->hard()) {
    enqueue_suppression<HardNms<128>, HardNms<512>>(*plan, stream);
  } else {
    enqueue_suppression<SoftNms<128, kSmallGroup>, SoftNms<512, 1536>>(*plan, stream);
  }
  if (plan->params.max_per_image > 0) {
    status = enqueue_segments(*plan, kIndexBits, plan->num_images, stream);
    if (status != cudaSuccess) return status;
    SNIPER_LAUNCH(limit_kernel, group_blocks(plan->count), kThreads, 0, stream, *plan);
  }
  status = enqueue_sum(*plan, plan->keep, stream);
  if (status != cudaSuccess) return status;
  SNIPER_LAUNCH(write_kernel, blocks(*plan), kThreads, 0, stream, *plan, outputs);
  return cudaGetLastError();
}

}  // namespace
}  // namespace sniper

SNIPER_CUDA_API int sniper_multi_scale_nms_workspace(const sniper::MultiScaleNmsParams* params,
                                                     std::size_t* bytes) {
  sniper::Workspace measure(nullptr);
  sniper::Plan plan;
  const cudaError_t status = sniper::make_plan(*params, &measure, &plan);
  *bytes = measure.bytes();
  return status;
}

// The graph operator: float32 dets (count, 5), levels, classes and images (count,), valid_ranges
// (num_levels, 2). Outputs of the same sizes, padded with -1, and the number of detections (1,).
// The same bits as on the CPU, but rows whose level, class or image does not exist are dropped.
SNIPER_CUDA_API int sniper_multi_scale_nms_forward(
    const sniper::MultiScaleNmsParams* params, const float* dets, const float* levels,
    const float* classes, const float* images, const float* valid_ranges, float* out_dets,
    float* out_classes, float* out_images, float* out_count, void* workspace, void* stream) {
  sniper::Workspace memory(workspace);
  sniper::Plan plan;
  const cudaError_t status = sniper::make_plan(*params, &memory, &plan);
  if (status != cudaSuccess) return status;
  const sniper::Inputs inputs = {dets, levels, classes, images, valid_ranges};
  const sniper::Outputs outputs = {out_dets, out_classes, out_images, out_count};
  return sniper::enqueue_all(&plan, inputs, outputs, stream);
}

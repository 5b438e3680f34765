// CUDA kernels of MultiProposalTarget.

#include "multi_proposal_target/multi_proposal_target.cuh"
#include "multi_proposal_target/multi_proposal_target_cuda.h"

namespace sniper {
namespace {

constexpr int kThreads = 128;

struct TrainPolicies {
  float min_size;
  const float* valid_ranges;  // (N, 2)
  TargetRules rules;

  __device__ MultiProposalTargetPolicy operator()(std::int64_t image) const {
    return {min_size, area_range(valid_ranges + 2 * image), rules};
  }
};

// Lists the used rows of one image in order; every thread of the block gets their number.
__device__ int list_gt(const float* gt_boxes, int max_gt, const ClassTable& classes,
                       std::int32_t* gt_rows) {
  __shared__ int counts[2][kThreads / kWarpSize];
  int num_gt = 0;
  for (int start = 0, turn = 0; start < max_gt; start += kThreads, turn ^= 1) {
    const int row = start + static_cast<int>(threadIdx.x);
    const bool used =
        row < max_gt && gt_is_used(gt_boxes + 5 * static_cast<std::int64_t>(row), classes);
    int found;
    const int rank = block_rank(used, counts[turn], &found);
    if (used) gt_rows[num_gt + rank] = row;
    num_gt += found;
  }
  return num_gt;
}

// One block per image: fills the slots without a proposal, then writes the GT boxes over them.
__global__ void complete_boxes(MultiProposalTargetParams params, TargetInputs inputs,
                               TargetScratchCuda scratch) {
  const std::int64_t image = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const int post = params.limits.post_nms_top_n;
  const float* gt_boxes = inputs.gt_boxes + image * params.max_gt * 5;
  std::int32_t* gt_rows = scratch.gt_rows + image * params.max_gt;
  Box* boxes = scratch.proposals.kept_boxes + image * post;
  for (int i = scratch.proposals.num_kept[image] + thread; i < post; i += kThreads) {
    boxes[i] = fill_box(image, params.grid.count(), i, params.rules);
  }
  const int num_gt = list_gt(gt_boxes, params.max_gt, params.classes, gt_rows);
  __syncthreads();
  const AreaRange range = area_range(inputs.valid_ranges + 2 * image);
  for (int j = thread; j < num_gt; j += kThreads) {
    const int slot = gt_slot(j, num_gt, post, params.rules);
    const Box gt = gt_box(gt_boxes, gt_rows[j]);
    if (slot >= 0 && gt_joins(gt, range, params.rules)) boxes[slot] = gt;
  }
  if (thread == 0) scratch.num_gt[image] = num_gt;
}

// Row of gt_boxes that overlaps the roi most, the first one on ties, and how much; -1: none does.
struct BestGt {
  std::int32_t row;
  float overlap;
};

__device__ BestGt best_gt(const Box& roi, const float* gt_boxes, const std::int32_t* gt_rows,
                          int num_gt, const TargetRules& rules) {
  const float area = overlap_area(roi, rules);
  BestGt best = {-1, 0.0f};
  for (int j = 0; j < num_gt; ++j) {
    const Box gt = gt_box(gt_boxes, gt_rows[j]);
    const float overlap = label_overlap(gt, overlap_area(gt, rules), roi, area, rules);
    if (overlap > best.overlap) best = {gt_rows[j], overlap};
  }
  return best;
}

// Of a roi that no GT matches. `crowd_boxes` of its image, or null.
__device__ float label_of_unmatched(const MultiProposalTargetParams& params,
                                    const float* crowd_boxes, const Box& roi) {
  if (crowd_boxes == nullptr) return 0.0f;
  for (int row = 0; row < params.max_crowd; ++row) {
    if (!gt_is_used(crowd_boxes + 5 * static_cast<std::int64_t>(row))) continue;
    if (is_in_crowd(gt_box(crowd_boxes, row), roi, params.crowd_ioa, params.rules)) {
      return kIgnoreLabel;
    }
  }
  return 0.0f;
}

__global__ void write_targets(MultiProposalTargetParams params, TargetInputs inputs,
                              TargetOutputs outputs, TargetScratchCuda scratch) {
  const std::int64_t post = params.limits.post_nms_top_n;
  for (std::int64_t row = global_thread(); row < params.num_images * post;
       row += global_threads()) {
    const std::int64_t image = row / post;
    const float* gt_boxes = inputs.gt_boxes + image * params.max_gt * 5;
    const float* crowd_boxes = inputs.crowd_boxes == nullptr
                                   ? nullptr
                                   : inputs.crowd_boxes + image * params.max_crowd * 5;
    const Box box = scratch.proposals.kept_boxes[row];
    const BestGt best = best_gt(box, gt_boxes, scratch.gt_rows + image * params.max_gt,
                                scratch.num_gt[image], params.rules);
    const bool foreground = best.overlap > kForegroundOverlap;
    const std::int32_t match = foreground ? best.row : -1;
    float target[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    if (foreground) encode_target(gt_box(gt_boxes, match), box, params.rules, target);
    const float roi[5] = {static_cast<float>(image), box.x1, box.y1, box.x2, box.y2};
    for (int k = 0; k < 5; ++k) outputs.rois[5 * row + k] = roi[k];
    for (int k = 0; k < 4; ++k) {
      outputs.target[4 * row + k] = target[k];
      outputs.weight[4 * row + k] = foreground ? 1.0f : 0.0f;
    }
    outputs.label[row] =
        foreground ? label_of(gt_boxes + 5 * static_cast<std::int64_t>(match), params.classes)
                   : label_of_unmatched(params, crowd_boxes, box);
    if (outputs.label_weights != nullptr) {
      outputs.label_weights[row] = label_weight(best.overlap, params.soft_sampling);
    }
    if (outputs.matches != nullptr) outputs.matches[row] = match;
  }
}

}  // namespace

cudaError_t enqueue_targets(const MultiProposalTargetParams& host_params,
                            const TargetInputs& inputs, const TargetOutputs& outputs,
                            const TargetScratchCuda& scratch, void* stream) {
  MultiProposalTargetParams params = host_params;
  store_values(params.classes.super_of, params.classes.num_classes, scratch.super_of, stream);
  params.classes.super_of = scratch.super_of;
  ProposalBatch batch = {params.num_images, params.grid,      params.limits,
                         inputs.cls_prob,   inputs.bbox_pred, inputs.im_info};
  const cudaError_t status =
      select_proposals(&batch, TrainPolicies{params.min_size, inputs.valid_ranges, params.rules},
                       scratch.proposals, stream);
  if (status != cudaSuccess) return status;
  const std::int64_t rows =
      static_cast<std::int64_t>(params.num_images) * params.limits.post_nms_top_n;
  SNIPER_LAUNCH(complete_boxes, static_cast<unsigned>(params.num_images), kThreads, 0, stream,
                params, inputs, scratch);
  SNIPER_LAUNCH(write_targets, blocks_for(rows, kThreads), kThreads, 0, stream, params, inputs,
                outputs, scratch);
  return cudaPeekAtLastError();
}

}  // namespace sniper

SNIPER_CUDA_API int sniper_multi_proposal_target_workspace(
    const sniper::MultiProposalTargetParams* params, std::size_t* bytes) {
  sniper::Workspace workspace(nullptr);
  sniper::TargetScratchCuda scratch;
  const cudaError_t status = scratch.take(*params, &workspace);
  *bytes = workspace.bytes();
  return status;
}

SNIPER_CUDA_API int sniper_multi_proposal_target_forward(
    const sniper::MultiProposalTargetParams* params, const float* cls_prob, const float* bbox_pred,
    const float* im_info, const float* gt_boxes, const float* valid_ranges,
    const float* crowd_boxes, float* rois, float* label, float* target, float* weight,
    float* label_weights, void* memory, void* stream) {
  if (params->num_images == 0) return cudaSuccess;
  sniper::Workspace workspace(memory);
  sniper::TargetScratchCuda scratch;
  cudaError_t status = scratch.take(*params, &workspace);
  if (status != cudaSuccess) return status;
  status = sniper::enqueue_targets(
      *params, {cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges, crowd_boxes},
      {rois, label, target, weight, label_weights, nullptr}, scratch, stream);
  return status != cudaSuccess ? status : cudaGetLastError();
}

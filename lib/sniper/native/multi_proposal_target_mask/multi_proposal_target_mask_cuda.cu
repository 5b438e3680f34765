// CUDA kernels of MultiProposalTargetMask: MultiProposalTarget, and the positive rois gathered.

#include "common/device_wide.cuh"
#include "multi_proposal_target/multi_proposal_target.cuh"
#include "multi_proposal_target_mask/multi_proposal_target_mask_cuda.h"

namespace sniper {
namespace {

constexpr int kThreads = 128;

struct MaskScratchCuda {
  TargetScratchCuda targets;
  std::int32_t* matches;  // one per roi of the batch
  std::int32_t* ranks;    // first whether the roi trains a mask, then how many before it do
  void* sum_storage;
  std::size_t sum_bytes;

  cudaError_t take(const MultiProposalTargetMaskParams& params, Workspace* workspace) {
    const std::int64_t rois =
        static_cast<std::int64_t>(params.target.num_images) * params.target.limits.post_nms_top_n;
    cudaError_t status = targets.take(params.target, workspace);
    if (status != cudaSuccess) return status;
    sum_bytes = 0;
    // One more than there are rois: the last sum is the total.
    status = exclusive_sum(nullptr, &sum_bytes, nullptr, nullptr, rois + 1, nullptr);
    matches = workspace->take<std::int32_t>(rois);
    ranks = workspace->take<std::int32_t>(rois + 1);
    sum_storage = workspace->take<unsigned char>(static_cast<std::int64_t>(sum_bytes));
    return status;
  }
};

__global__ void flag_rois(const float* label, const std::int32_t* matches, std::int64_t num_rois,
                          std::int32_t* flags) {
  for (std::int64_t i = global_thread(); i <= num_rois; i += global_threads()) {
    flags[i] = i < num_rois && trains_mask(label[i], matches[i]) ? 1 : 0;
  }
}

__global__ void write_mask_rois(MultiProposalTargetMaskParams params, const float* gt_boxes,
                                const float* rois, const float* label, MaskScratchCuda scratch,
                                float* mask_rois, float* mask_ids) {
  const MaskGroups groups = mask_groups(params);
  for (std::int64_t i = global_thread(); i < groups.count * groups.rois; i += global_threads()) {
    if (!trains_mask(label[i], scratch.matches[i])) continue;
    const std::int64_t group = i / groups.rois;
    const std::int64_t rank = scratch.ranks[i] - scratch.ranks[group * groups.rois];
    if (rank >= groups.rows) continue;
    const std::int64_t row = group * groups.rows + rank;
    for (int k = 0; k < 5; ++k) mask_rois[5 * row + k] = rois[5 * i + k];
    mask_ids[row] = mask_id(params, gt_boxes, i, scratch.matches[i]);
  }
  for (std::int64_t row = global_thread(); row < groups.count * groups.rows;
       row += global_threads()) {
    const std::int64_t first_roi = row / groups.rows * groups.rois;
    const std::int64_t used = scratch.ranks[first_roi + groups.rois] - scratch.ranks[first_roi];
    if (row % groups.rows < used) continue;
    fill_mask_roi(params, row, mask_rois + 5 * row);
    mask_ids[row] = kNoMask;
  }
}

}  // namespace
}  // namespace sniper

SNIPER_CUDA_API int sniper_multi_proposal_target_mask_workspace(
    const sniper::MultiProposalTargetMaskParams* params, std::size_t* bytes) {
  sniper::Workspace workspace(nullptr);
  sniper::MaskScratchCuda scratch;
  const cudaError_t status = scratch.take(*params, &workspace);
  *bytes = workspace.bytes();
  return status;
}

SNIPER_CUDA_API int sniper_multi_proposal_target_mask_forward(
    const sniper::MultiProposalTargetMaskParams* params, const float* cls_prob,
    const float* bbox_pred, const float* im_info, const float* gt_boxes, const float* valid_ranges,
    const float* crowd_boxes, float* rois, float* label, float* target, float* weight,
    float* mask_rois, float* mask_ids, float* label_weights, void* memory, void* stream) {
  const int num_images = params->target.num_images;
  if (num_images == 0) return cudaSuccess;
  sniper::Workspace workspace(memory);
  sniper::MaskScratchCuda scratch;
  cudaError_t status = scratch.take(*params, &workspace);
  if (status != cudaSuccess) return status;
  status = sniper::enqueue_targets(
      params->target, {cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges, crowd_boxes},
      {rois, label, target, weight, label_weights, scratch.matches}, scratch.targets, stream);
  if (status != cudaSuccess) return status;
  const std::int64_t num_rois =
      static_cast<std::int64_t>(num_images) * params->target.limits.post_nms_top_n;
  const std::int64_t num_masks = static_cast<std::int64_t>(num_images) * params->max_masks;
  SNIPER_LAUNCH(sniper::flag_rois, sniper::blocks_for(num_rois + 1, sniper::kThreads),
                sniper::kThreads, 0, stream, label, scratch.matches, num_rois, scratch.ranks);
  std::size_t sum_bytes = scratch.sum_bytes;
  status = sniper::exclusive_sum(scratch.sum_storage, &sum_bytes, scratch.ranks, scratch.ranks,
                                 num_rois + 1, stream);
  if (status != cudaSuccess) return status;
  SNIPER_LAUNCH(sniper::write_mask_rois,
                sniper::blocks_for(num_rois > num_masks ? num_rois : num_masks, sniper::kThreads),
                sniper::kThreads, 0, stream, *params, gt_boxes, rois, label, scratch, mask_rois,
                mask_ids);
  return cudaGetLastError();
}

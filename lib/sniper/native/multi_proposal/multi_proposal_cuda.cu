// CUDA kernel of MultiProposal: the selection of common/proposals.cuh, written out.

#include "common/cuda.cuh"
#include "common/proposals.cuh"
#include "multi_proposal/multi_proposal_cuda.h"

namespace sniper {
namespace {

struct TestPolicies {
  float min_size;

  __device__ MultiProposalPolicy operator()(std::int64_t) const { return {min_size}; }
};

__global__ void write_proposals(ProposalBatch batch, ProposalScratchCuda scratch, float* rois,
                                float* scores) {
  const std::int64_t post = batch.limits.post_nms_top_n;
  for (std::int64_t row = global_thread(); row < batch.num_images * post; row += global_threads()) {
    const std::int64_t image = row / post;
    const bool real = row % post < scratch.num_kept[image];
    const Box box = real ? scratch.kept_boxes[row] : Box{0.0f, 0.0f, 0.0f, 0.0f};
    float* roi = rois + 5 * row;
    roi[0] = static_cast<float>(image);
    roi[1] = box.x1;
    roi[2] = box.y1;
    roi[3] = box.x2;
    roi[4] = box.y2;
    scores[row] = real ? batch.maps(image).scores[scratch.kept_anchors[row]] : 0.0f;
  }
}

}  // namespace
}  // namespace sniper

SNIPER_CUDA_API int sniper_multi_proposal_workspace(const sniper::MultiProposalParams* params,
                                                    std::size_t* bytes) {
  sniper::Workspace workspace(nullptr);
  sniper::ProposalScratchCuda scratch;
  const cudaError_t status =
      scratch.take(params->num_images, params->grid, params->limits, &workspace);
  *bytes = workspace.bytes();
  return status;
}

SNIPER_CUDA_API int sniper_multi_proposal_forward(const sniper::MultiProposalParams* params,
                                                  const float* cls_prob, const float* bbox_pred,
                                                  const float* im_info, float* rois, float* scores,
                                                  void* memory, void* stream) {
  if (params->num_images == 0) return cudaSuccess;
  sniper::Workspace workspace(memory);
  sniper::ProposalScratchCuda scratch;
  cudaError_t status = scratch.take(params->num_images, params->grid, params->limits, &workspace);
  if (status != cudaSuccess) return status;
  sniper::ProposalBatch batch = {params->num_images, params->grid, params->limits,
                                 cls_prob,           bbox_pred,    im_info};
  status =
      sniper::select_proposals(&batch, sniper::TestPolicies{params->min_size}, scratch, stream);
  if (status != cudaSuccess) return status;
  const std::int64_t rows =
      static_cast<std::int64_t>(params->num_images) * params->limits.post_nms_top_n;
  SNIPER_LAUNCH(sniper::write_proposals, sniper::blocks_for(rows, 128), 128, 0, stream, batch,
                scratch, rois, scores);
  return cudaGetLastError();
}

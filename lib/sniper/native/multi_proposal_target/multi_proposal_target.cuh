// The device side of MultiProposalTarget, which MultiProposalTargetMask shares.
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_CUH_
#define SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_CUH_

#include "common/cuda.cuh"
#include "common/proposals.cuh"
#include "multi_proposal_target/multi_proposal_target.h"

namespace sniper {

// Device pointers as in multi_proposal_target_cpu.
struct TargetInputs {
  const float *cls_prob, *bbox_pred, *im_info, *gt_boxes, *valid_ranges;
  const float* crowd_boxes;  // or null
};

struct TargetOutputs {
  float *rois, *label, *target, *weight;
  float* label_weights;   // or null
  std::int32_t* matches;  // or null
};

struct TargetScratchCuda {
  ProposalScratchCuda proposals;
  std::int32_t* gt_rows;   // (N, max_gt): the used rows of gt_boxes, ascending
  int* num_gt;             // (N,)
  std::int32_t* super_of;  // of the class table

  cudaError_t take(const MultiProposalTargetParams& params, Workspace* workspace) {
    const cudaError_t status =
        proposals.take(params.num_images, params.grid, params.limits, workspace);
    gt_rows =
        workspace->take<std::int32_t>(static_cast<std::int64_t>(params.num_images) * params.max_gt);
    num_gt = workspace->take<int>(params.num_images);
    super_of = workspace->take<std::int32_t>(params.classes.num_classes);
    return status;
  }
};

// Enqueues all of MultiProposalTarget; params.classes is in host memory.
cudaError_t enqueue_targets(const MultiProposalTargetParams& params, const TargetInputs& inputs,
                            const TargetOutputs& outputs, const TargetScratchCuda& scratch,
                            void* stream);

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_MULTI_PROPOSAL_TARGET_CUH_

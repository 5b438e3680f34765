// From RPN maps to the surviving boxes of a batch on the device: the same choice as
// common/select_proposals.h. One sort of all anchors by (image, score), then one block per image
// for the NMS, which decodes boxes only when their turn comes.
#ifndef SNIPER_NATIVE_COMMON_PROPOSALS_CUH_
#define SNIPER_NATIVE_COMMON_PROPOSALS_CUH_

#include "common/cuda.cuh"
#include "common/nms.cuh"
#include "common/proposals.h"
#include "common/score_key.h"

namespace sniper {

// RPN outputs of a batch, on the device; grid.base points to device memory.
struct ProposalBatch {
  int num_images;
  AnchorGrid grid;
  ProposalLimits limits;
  const float* cls_prob;   // (N, 2, A * h * w); the second plane holds the foreground
  const float* bbox_pred;  // (N, 4A, h, w)
  const float* im_info;    // (N, 3)

  __device__ ProposalMaps maps(std::int64_t image) const {
    const std::int64_t count = grid.count();
    return {cls_prob + (2 * image + 1) * count, bbox_pred + 4 * image * count, grid,
            im_info[3 * image], im_info[3 * image + 1]};
  }
};

constexpr std::uint32_t kNoCandidate = 0xFFFFFFFFu;  // the key of no number

// Scratch of one selection; `kept_*` and num_kept are its result: image n keeps num_kept[n] boxes,
// best first, at n * post.
struct ProposalScratchCuda {
  Box* base;  // anchors of the cell (0, 0)
  std::uint64_t *keys, *sorted_keys;
  std::uint32_t *anchors, *sorted_anchors;  // linear anchor indices of each image
  void* sort_storage;
  std::size_t sort_bytes;
  Box* kept_boxes;
  float* kept_areas;
  std::uint32_t* kept_anchors;
  int* num_kept;

  // Takes the slices from the workspace.
  cudaError_t take(int num_images, const AnchorGrid& grid, const ProposalLimits& limits,
                   Workspace* workspace);
};

// Enqueues the sort of all anchors, best first within each image. `batch` comes with base anchors
// in host memory; on return it points to the device's copy of them.
cudaError_t order_proposals(ProposalBatch* batch, const ProposalScratchCuda& scratch, void* stream);

// How many of the sorted keys of one image belong to candidates. Every thread finds it for itself.
__device__ __forceinline__ std::int64_t count_candidates(const std::uint64_t* keys,
                                                         std::int64_t count) {
  std::int64_t low = 0, high = count;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (static_cast<std::uint32_t>(keys[middle]) == kNoCandidate) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

template <class Policy>
struct ProposalCandidates {
  ProposalMaps maps;
  Policy policy;
  const std::uint32_t* anchors;  // best first

  __device__ bool load(std::uint32_t position, Box* box, float* area) const {
    if (!proposal_at(maps, anchors[position], box) || !policy.accepts(*box)) return false;
    *area = policy.area(*box);
    return true;
  }
};

constexpr int kProposalThreads = 256;

// One block per image. `policies(image)` is the policy of common/select_proposals.h.
template <class Policies>
__global__ void __launch_bounds__(kProposalThreads)
    keep_proposals(ProposalBatch batch, Policies policies, ProposalScratchCuda scratch) {
  __shared__ NmsTile<kProposalThreads> tile;
  const std::int64_t image = blockIdx.x;
  const std::int64_t count = batch.grid.count();
  const int post = batch.limits.post_nms_top_n;
  const std::uint32_t* anchors = scratch.sorted_anchors + image * count;
  const auto policy = policies(image);
  const ProposalCandidates<decltype(policies(image))> candidates = {batch.maps(image), policy,
                                                                    anchors};
  const NmsLimits limits = {batch.limits.pre_nms_top_n > 0 ? batch.limits.pre_nms_top_n : count,
                            post, batch.limits.nms_threshold};
  std::uint32_t* positions = scratch.kept_anchors + image * post;
  const NmsKept kept = {scratch.kept_boxes + image * post, scratch.kept_areas + image * post,
                        positions};
  const int num_kept =
      nms_block(candidates, count_candidates(scratch.sorted_keys + image * count, count), limits,
                kept, &tile);
  for (int i = static_cast<int>(threadIdx.x); i < num_kept; i += kProposalThreads) {
    positions[i] = anchors[positions[i]];
  }
  if (threadIdx.x == 0) scratch.num_kept[image] = num_kept;
}

// Enqueues the whole selection; `batch` changes as in order_proposals.
template <class Policies>
cudaError_t select_proposals(ProposalBatch* batch, const Policies& policies,
                             const ProposalScratchCuda& scratch, void* stream) {
  const cudaError_t status = order_proposals(batch, scratch, stream);
  if (status != cudaSuccess) return status;
  SNIPER_LAUNCH(keep_proposals<Policies>, static_cast<unsigned>(batch->num_images),
                kProposalThreads, 0, stream, *batch, policies, scratch);
  return cudaPeekAtLastError();
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_PROPOSALS_CUH_

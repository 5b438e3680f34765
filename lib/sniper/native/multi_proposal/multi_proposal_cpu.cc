#include <cstdint>
#include <vector>

#include "common/parallel.h"
#include "common/select_proposals.h"
#include "multi_proposal/multi_proposal.h"

namespace sniper {
namespace {

struct Scratch {
  NmsScratch proposals;
  std::vector<Box> boxes;
  std::vector<std::uint32_t> indices;
};

void propose_for_image(const MultiProposalParams& params, std::int64_t image,
                       const ProposalMaps& maps, float* rois, float* scores) {
  thread_local Scratch scratch;
  const int post = params.limits.post_nms_top_n;
  scratch.boxes.resize(post);
  scratch.indices.resize(post);
  const MultiProposalPolicy policy{params.min_size};
  const int num_kept = select_proposals(maps, params.limits, policy, &scratch.proposals,
                                        scratch.boxes.data(), scratch.indices.data());
  for (int i = 0; i < post; ++i) {
    const bool real = i < num_kept;
    const Box box = real ? scratch.boxes[i] : Box{0.0f, 0.0f, 0.0f, 0.0f};
    float* row = rois + 5 * i;
    row[0] = static_cast<float>(image);
    row[1] = box.x1;
    row[2] = box.y1;
    row[3] = box.x2;
    row[4] = box.y2;
    scores[i] = real ? maps.scores[scratch.indices[i]] : 0.0f;
  }
}

}  // namespace

void multi_proposal_cpu(const MultiProposalParams& params, const float* cls_prob,
                        const float* bbox_pred, const float* im_info, float* rois, float* scores) {
  const std::int64_t count = params.grid.count();
  const std::int64_t post = params.limits.post_nms_top_n;
  parallel_for(params.num_images, [&](std::int64_t image) {
    const ProposalMaps maps{cls_prob + (2 * image + 1) * count, bbox_pred + 4 * image * count,
                            params.grid, im_info[3 * image], im_info[3 * image + 1]};
    propose_for_image(params, image, maps, rois + 5 * image * post, scores + image * post);
  });
}

}  // namespace sniper

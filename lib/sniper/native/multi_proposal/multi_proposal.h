// MultiProposal: test-time proposals with scores ("exact" mode of 2018).
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_MULTI_PROPOSAL_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_MULTI_PROPOSAL_H_

#include "common/anchors.h"
#include "common/box.h"
#include "common/macros.h"
#include "common/proposals.h"

namespace sniper {

struct MultiProposalParams {
  int num_images;
  AnchorGrid grid;
  ProposalLimits limits;
  float min_size;  // px
};

// Which boxes take part, and their areas: +1 widths throughout.
struct MultiProposalPolicy {
  float min_size;

  SNIPER_HOST_DEVICE bool accepts(const Box& box) const {
    return box.x2 - box.x1 + 1.0f >= min_size && box.y2 - box.y1 + 1.0f >= min_size;
  }
  SNIPER_HOST_DEVICE float area(const Box& box) const { return area_inclusive(box); }
};

// cls_prob (N, 2A, h, w), bbox_pred (N, 4A, h, w), im_info (N, 3) = height, width, scale.
// Writes rois (N * post, 5) = image, x1, y1, x2, y2 and scores (N * post), best first. Rows without
// a proposal hold the image index and zeros.
void multi_proposal_cpu(const MultiProposalParams& params, const float* cls_prob,
                        const float* bbox_pred, const float* im_info, float* rois, float* scores);

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_MULTI_PROPOSAL_H_

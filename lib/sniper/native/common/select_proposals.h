// From RPN maps to the surviving boxes of one image: decode, filter, NMS (host).
#ifndef SNIPER_NATIVE_COMMON_SELECT_PROPOSALS_H_
#define SNIPER_NATIVE_COMMON_SELECT_PROPOSALS_H_

#include <cstdint>

#include "common/decode.h"
#include "common/greedy_nms.h"
#include "common/proposals.h"
#include "common/score_key.h"

namespace sniper {

// Writes the kept boxes, best first, and their anchor indices; returns how many (at most
// post_nms_top_n). `policy` says which boxes take part and how large they are:
//     bool accepts(const Box&) const;
//     float area(const Box&) const;
template <class Policy>
int select_proposals(const ProposalMaps& maps, const ProposalLimits& limits, const Policy& policy,
                     NmsScratch* scratch, Box* boxes, std::uint32_t* indices) {
  const std::int64_t count = maps.grid.count();
  const GreedyNms greedy = {limits.pre_nms_top_n > 0 ? limits.pre_nms_top_n : count,
                            limits.post_nms_top_n, limits.nms_threshold, kDiscardedScore,
                            /*areas_with_one=*/false};
  const auto load = [&](const std::uint32_t* candidates, int size, NmsTile* tile) {
    decode_proposals(maps, candidates, size, tile);
    for (int i = 0; i < size; ++i) {
      tile->usable[i] = tile->usable[i] && policy.accepts(tile->box[i]);
      tile->area[i] = policy.area(tile->box[i]);
    }
  };
  int num_kept = 0;
  const auto keep = [&](std::uint32_t index, const Box& box) {
    boxes[num_kept] = box;
    indices[num_kept++] = index;
  };
  greedy_nms(greedy, maps.scores, count, load, keep, scratch);
  return num_kept;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_SELECT_PROPOSALS_H_

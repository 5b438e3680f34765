// From RPN maps to the surviving boxes of one image: best first, filter, NMS (host).
#ifndef SNIPER_NATIVE_COMMON_SELECT_PROPOSALS_H_
#define SNIPER_NATIVE_COMMON_SELECT_PROPOSALS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/box.h"
#include "common/nms.h"
#include "common/parallel.h"
#include "common/proposals.h"
#include "common/score_order.h"

namespace sniper {

// Buffers that a thread reuses from call to call.
struct ProposalScratch {
  enum State : std::uint8_t { kDiscarded, kSuppressed, kOpen };
  ScoreOrder order;
  KeptBoxes kept{0.0f};
  std::vector<Box> boxes;
  std::vector<State> states;
};

// Writes the kept boxes, best first, and their anchor indices; returns how many (at most
// post_nms_top_n). `policy` says which boxes take part and how large they are:
//     bool accepts(const Box&) const;
//     float area(const Box&) const;
// Boxes are decoded only when their turn comes. Each block is tested against the boxes kept before
// it in parallel and against the younger ones in order, which gives the sequential result.
template <class Policy>
int select_proposals(const ProposalMaps& maps, const ProposalLimits& limits, const Policy& policy,
                     ProposalScratch* scratch, Box* boxes, std::uint32_t* indices) {
  constexpr int kFirstBlock = 256, kLargestBlock = 2048, kTasksPerThread = 128;
  const std::int64_t count = maps.grid.count();
  std::int64_t entering = limits.pre_nms_top_n > 0 ? limits.pre_nms_top_n : count;
  ScoreOrder& order = scratch->order;
  KeptBoxes& kept = scratch->kept;
  kept.reset(limits.nms_threshold);
  order.start(maps.scores, count);
  scratch->boxes.resize(kLargestBlock);
  scratch->states.resize(kLargestBlock);
  Box* block = scratch->boxes.data();
  ProposalScratch::State* states = scratch->states.data();

  int block_size = kFirstBlock;
  for (std::int64_t wanted = 1024; order.next(wanted); wanted *= 4) {
    const std::vector<std::uint32_t>& chunk = order.chunk();
    const int chunk_size = static_cast<int>(chunk.size());
    for (int start = 0; start < chunk_size;) {
      const int size = std::min(block_size, chunk_size - start);
      const int kept_before = kept.size();
#pragma omp parallel for num_threads(thread_count(size / kTasksPerThread)) schedule(static)
      for (int i = 0; i < size; ++i) {
        const bool usable =
            proposal_at(maps, chunk[start + i], &block[i]) && policy.accepts(block[i]);
        states[i] = !usable ? ProposalScratch::kDiscarded
                    : kept.suppresses(block[i], policy.area(block[i]))
                        ? ProposalScratch::kSuppressed
                        : ProposalScratch::kOpen;
      }
      for (int i = 0; i < size; ++i) {
        if (states[i] == ProposalScratch::kDiscarded) continue;
        if (entering-- == 0) return kept.size();
        if (states[i] == ProposalScratch::kSuppressed) continue;
        const float area = policy.area(block[i]);
        if (kept.suppresses(block[i], area, kept_before)) continue;
        boxes[kept.size()] = block[i];
        indices[kept.size()] = chunk[start + i];
        kept.keep(block[i], area);
        if (kept.size() == limits.post_nms_top_n) return kept.size();
      }
      start += size;
      block_size = std::min(2 * block_size, kLargestBlock);
    }
  }
  return kept.size();
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_SELECT_PROPOSALS_H_

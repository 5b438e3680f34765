// Decoding of many proposals at a time (host).
#ifndef SNIPER_NATIVE_COMMON_DECODE_H_
#define SNIPER_NATIVE_COMMON_DECODE_H_

#include <cstdint>

#include "common/greedy_nms.h"
#include "common/proposals.h"

namespace sniper {

// `proposal_at` of `count` <= NmsTile::kSize anchor indices, with the same bits: fills `box` and
// `usable`.
void decode_proposals(const ProposalMaps& maps, const std::uint32_t* indices, int count,
                      NmsTile* tile);

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_DECODE_H_

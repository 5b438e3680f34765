// Marks of anchors to labels of a random part of them.
#ifndef SNIPER_NATIVE_RPN_TARGETS_RPN_SAMPLER_H_
#define SNIPER_NATIVE_RPN_TARGETS_RPN_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "rpn_targets/rpn_targets.h"

namespace sniper {

// Writes the labels of `count` anchors and returns the positive ones, ascending. The marks are
// those of mark_anchors, and used up. How the draws go stands at rpn_targets_cpu.
std::vector<int32_t> sample_labels(const RpnSettings& settings, uint64_t seed, int64_t count,
                                   std::vector<uint8_t>* marks, int8_t* label);

}  // namespace sniper

#endif  // SNIPER_NATIVE_RPN_TARGETS_RPN_SAMPLER_H_

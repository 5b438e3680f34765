// The dense RPN planes of a whole batch, from its labels and its few positive anchors.
#ifndef SNIPER_NATIVE_BATCH_EXPAND_RPN_BATCH_H_
#define SNIPER_NATIVE_BATCH_EXPAND_RPN_BATCH_H_

#include <cstdint>

namespace sniper {

struct RpnBatch {
  std::int64_t samples;
  std::int64_t anchors;        // of a feature cell
  std::int64_t cells;          // of a chip
  std::int64_t max_positives;  // room for positives in a sample
};

// label: (samples, anchors * cells) of -1, 0, 1. counts: (samples), the positives of each. index:
// (samples, max_positives), values: (samples, max_positives, 4). The outputs are those of
// expand_rpn_cpu, one sample after the other. Throws std::invalid_argument for a count or an index
// that is none.
void expand_rpn_batch_cpu(const RpnBatch& batch, const std::int8_t* label,
                          const std::int32_t* counts, const std::int32_t* index,
                          const float* values, float* out_label, float* out_target,
                          float* out_weight);

}  // namespace sniper

#endif  // SNIPER_NATIVE_BATCH_EXPAND_RPN_BATCH_H_

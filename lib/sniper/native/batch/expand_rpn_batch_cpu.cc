#include <stdexcept>
#include <string>

#include "batch/expand_rpn_batch.h"
#include "common/parallel.h"
#include "rpn_targets/rpn_targets.h"

namespace sniper {

void expand_rpn_batch_cpu(const RpnBatch& batch, const std::int8_t* label,
                          const std::int32_t* counts, const std::int32_t* index,
                          const float* values, float* out_label, float* out_target,
                          float* out_weight) {
  const std::int64_t room = batch.max_positives;
  const std::int64_t plane = batch.anchors * batch.cells;
  for (std::int64_t i = 0; i < batch.samples; ++i) {
    if (counts[i] < 0 || counts[i] > room) {
      throw std::invalid_argument("sample " + std::to_string(i) + " has " +
                                  std::to_string(counts[i]) + " positives, but room for " +
                                  std::to_string(room) + ".");
    }
  }
  parallel_for(batch.samples, [&](long long i) {
    expand_rpn_cpu(label + i * plane, batch.anchors, batch.cells, index + i * room,
                   values + 4 * i * room, counts[i], out_label + i * plane,
                   out_target + 4 * i * plane, out_weight + 4 * i * plane);
  });
}

}  // namespace sniper

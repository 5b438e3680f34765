// Pixels as the network reads them: uint8 BGR rows become float32 RGB planes minus the channel
// means.
#ifndef SNIPER_NATIVE_BATCH_IMAGE_TO_CHW_H_
#define SNIPER_NATIVE_BATCH_IMAGE_TO_CHW_H_

#include <cstdint>

namespace sniper {

struct ChwBatch {
  std::int64_t samples;
  std::int64_t slot_height, slot_width;  // of the pixels of a sample, px
  std::int64_t slot_bytes, row_bytes;    // from sample to sample and from row to row
  std::int64_t height, width;            // of a plane, px
  double means[3];                       // BGR
  bool one_thread;                       // for callers that are one of many threads
};

// pixels: (samples, slot_height, slot_width, 3) BGR, whose pixels lie side by side in a row;
// content_hw: (samples, 2), how many rows and columns from the top left are content. out: (samples,
// 3, height, width) RGB; content beyond it is cut off, and it is 0 where there is no content. All
// of `out` is written, and no pixel outside the content is read. Throws std::invalid_argument for
// content that is larger than its slot.
void image_to_chw_cpu(const ChwBatch& batch, const std::uint8_t* pixels,
                      const std::int32_t* content_hw, float* out);

}  // namespace sniper

#endif  // SNIPER_NATIVE_BATCH_IMAGE_TO_CHW_H_

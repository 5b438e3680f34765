#include "common/device_wide.cuh"
#include "common/proposals.cuh"

namespace sniper {
namespace {

// Bits of a key: the image above the score.
int key_bits(int num_images) { return 32 + bits_for(num_images); }

__global__ void make_keys(ProposalBatch batch, std::uint64_t* keys, std::uint32_t* anchors) {
  const std::int64_t count = batch.grid.count();
  for (std::int64_t i = global_thread(); i < batch.num_images * count; i += global_threads()) {
    const std::int64_t image = i / count, anchor = i % count;
    const float score = batch.cls_prob[(2 * image + 1) * count + anchor];
    keys[i] = static_cast<std::uint64_t>(image) << 32 |
              (is_candidate(score) ? score_key(score) : kNoCandidate);
    anchors[i] = static_cast<std::uint32_t>(anchor);
  }
}

}  // namespace

cudaError_t ProposalScratchCuda::take(int num_images, const AnchorGrid& grid,
                                      const ProposalLimits& limits, Workspace* workspace) {
  const std::int64_t items = num_images * grid.count();
  const std::int64_t rows = static_cast<std::int64_t>(num_images) * limits.post_nms_top_n;
  sort_bytes = 0;
  const cudaError_t status = sort_pairs(nullptr, &sort_bytes, nullptr, nullptr, nullptr, nullptr,
                                        items, key_bits(num_images), nullptr);
  base = workspace->take<Box>(grid.num_anchors);
  keys = workspace->take<std::uint64_t>(items);
  sorted_keys = workspace->take<std::uint64_t>(items);
  anchors = workspace->take<std::uint32_t>(items);
  sorted_anchors = workspace->take<std::uint32_t>(items);
  sort_storage = workspace->take<unsigned char>(static_cast<std::int64_t>(sort_bytes));
  kept_boxes = workspace->take<Box>(rows);
  kept_areas = workspace->take<float>(rows);
  kept_anchors = workspace->take<std::uint32_t>(rows);
  num_kept = workspace->take<int>(num_images);
  return status;
}

cudaError_t order_proposals(ProposalBatch* batch, const ProposalScratchCuda& scratch,
                            void* stream) {
  const std::int64_t items = batch->num_images * batch->grid.count();
  store_values(batch->grid.base, batch->grid.num_anchors, scratch.base, stream);
  batch->grid.base = scratch.base;
  SNIPER_LAUNCH(make_keys, blocks_for(items, 256), 256, 0, stream, *batch, scratch.keys,
                scratch.anchors);
  std::size_t sort_bytes = scratch.sort_bytes;
  return sort_pairs(scratch.sort_storage, &sort_bytes, scratch.keys, scratch.sorted_keys,
                    scratch.anchors, scratch.sorted_anchors, items, key_bits(batch->num_images),
                    stream);
}

}  // namespace sniper

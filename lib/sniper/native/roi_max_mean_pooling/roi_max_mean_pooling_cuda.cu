// CUDA kernels of ROIMaxMeanPooling.
//
// Channels are taken in blocks that fit into a bounded piece of scratch memory. The map of a block
// is transposed to [image][pixel][channel], so that neighbouring threads, which own neighbouring
// channels, read neighbouring floats. Nothing is added atomically: in the backward pass one thread
// owns a channel of an image and walks the RoIs in their order, as the CPU does.

#include "common/cuda.cuh"
#include "common/transpose.cuh"
#include "roi_max_mean_pooling/roi_max_mean_pooling_cuda.h"

namespace sniper {
namespace {

constexpr int kThreads = 128;
#ifdef SNIPER_CUDA_EMULATION
constexpr std::int64_t kMaxScratch = 1 << 18;  // so that tests see several blocks
#else
constexpr std::int64_t kMaxScratch = 1 << 27;  // bytes, unless 32 channels need more
#endif

// A block of channels, and its scratch memory.
struct ChannelBlock {
  RoiMaxMeanParams params;
  std::int64_t capacity;      // channels that fit
  std::int64_t first, count;  // of the block at hand
  float* map;                 // [image][pixel][channel]
  float* gradient;            // of the map
  std::int32_t* maxima;       // [roi][bin][channel]: pixels

  __host__ __device__ std::int64_t map_rows() const { return params.images * params.pixels(); }
};

ChannelBlock make_block(const RoiMaxMeanParams& params, bool backward, Workspace* workspace) {
  ChannelBlock block = {};
  block.params = params;
  std::int64_t bytes = block.map_rows() * static_cast<std::int64_t>(sizeof(float));
  if (backward) bytes = 2 * bytes + params.rois * params.bins() * std::int64_t{4};
  const std::int64_t fitting = kMaxScratch / (bytes > 0 ? bytes : 1) / kPatch * kPatch;
  const std::int64_t least = fitting > kPatch ? fitting : kPatch;
  block.capacity = least < params.channels ? least : params.channels;
  block.map = workspace->take<float>(block.map_rows() * block.capacity);
  if (backward) {
    block.gradient = workspace->take<float>(block.map_rows() * block.capacity);
    block.maxima = workspace->take<std::int32_t>(params.rois * params.bins() * block.capacity);
  }
  return block;
}

__host__ __device__ std::int64_t patch_count(const ChannelBlock& block) {
  return block.params.images * ceil_div(block.count, kPatch) *
         ceil_div(block.params.pixels(), kPatch);
}

// Between [image][channel][pixel] of all channels and [image][pixel][channel] of the block.
template <bool kIntoBlock>
__global__ void transpose_block(ChannelBlock block, const float* source, float* target) {
  const std::int64_t pixels = block.params.pixels();
  const std::int64_t across = ceil_div(pixels, kPatch), down = ceil_div(block.count, kPatch);
  for (std::int64_t task = blockIdx.x; task < patch_count(block); task += gridDim.x) {
    const std::int64_t pixel = task % across * kPatch;
    const std::int64_t channel = task / across % down * kPatch;
    const std::int64_t image = task / across / down;
    const std::int64_t outer =
        (image * block.params.channels + block.first + channel) * pixels + pixel;
    const std::int64_t inner = (image * pixels + pixel) * block.count + channel;
    if (kIntoBlock) {
      transpose_patch(source + outer, pixels, block.count - channel, pixels - pixel, target + inner,
                      block.count);
    } else {
      transpose_patch(source + inner, block.count, pixels - pixel, block.count - channel,
                      target + outer, pixels);
    }
  }
}

// Calls body(bin, largest value, its pixel) for the bins of a RoI that have cells; `map` is one
// channel of the RoI's image.
template <class Body>
__device__ void for_each_bin(const ChannelBlock& block, const RoiOnMap& roi, const float* map,
                             const Body& body) {
  const RoiMaxMeanParams& params = block.params;
  for (int ph = 0; ph < params.pooled; ++ph) {
    const BinCells rows = bin_cells(ph, roi.y, roi.bin_height, params.height);
    for (int pw = 0; pw < params.pooled; ++pw) {
      const BinCells columns = bin_cells(pw, roi.x, roi.bin_width, params.width);
      if (rows.first >= rows.end || columns.first >= columns.end) continue;
      float best = kNoMaximum;
      std::int32_t where = kNoPixel;
      for (std::int64_t y = rows.first; y < rows.end; ++y) {
        for (std::int64_t x = columns.first; x < columns.end; ++x) {
          const std::int64_t pixel = y * params.width + x;
          const float value = map[pixel * block.count];
          if (value > best) {
            best = value;
            where = static_cast<std::int32_t>(pixel);
          }
        }
      }
      body(ph * params.pooled + pw, best, where);
    }
  }
}

__global__ void pool_kernel(ChannelBlock block, const float* rois, float* output) {
  const RoiMaxMeanParams& params = block.params;
  for (std::int64_t i = global_thread(); i < params.rois * block.count; i += global_threads()) {
    const std::int64_t r = i / block.count, channel = i % block.count;
    const RoiOnMap roi = roi_on_map(rois + 5 * r, params);
    float sum = 0.0f;
    if (roi.image >= 0) {
      const float* map = block.map + roi.image * params.pixels() * block.count + channel;
      for_each_bin(block, roi, map, [&](int, float best, std::int32_t) { sum += best; });
    }
    output[r * params.channels + block.first + channel] = sum / static_cast<float>(params.bins());
  }
}

__global__ void find_maxima(ChannelBlock block, const float* rois) {
  const RoiMaxMeanParams& params = block.params;
  const int bins = params.bins();
  for (std::int64_t i = global_thread(); i < params.rois * block.count; i += global_threads()) {
    const std::int64_t r = i / block.count, channel = i % block.count;
    const RoiOnMap roi = roi_on_map(rois + 5 * r, params);
    if (roi.image < 0) continue;  // nobody reads its row
    std::int32_t* maxima = block.maxima + r * bins * block.count + channel;
    for (int bin = 0; bin < bins; ++bin) maxima[bin * block.count] = kNoPixel;
    const float* map = block.map + roi.image * params.pixels() * block.count + channel;
    for_each_bin(block, roi, map,
                 [&](int bin, float, std::int32_t where) { maxima[bin * block.count] = where; });
  }
}

// A thread per image and channel.
__global__ void add_gradients(ChannelBlock block, const float* rois, const float* output_grad) {
  const RoiMaxMeanParams& params = block.params;
  const int bins = params.bins();
  for (std::int64_t i = global_thread(); i < params.images * block.count; i += global_threads()) {
    const std::int64_t image = i / block.count, channel = i % block.count;
    float* gradient = block.gradient + image * params.pixels() * block.count + channel;
    for (std::int64_t p = 0; p < params.pixels(); ++p) gradient[p * block.count] = 0.0f;
    for (std::int64_t r = 0; r < params.rois; ++r) {
      if (roi_on_map(rois + 5 * r, params).image != image) continue;
      const float grad =
          output_grad[r * params.channels + block.first + channel] / static_cast<float>(bins);
      const std::int32_t* maxima = block.maxima + r * bins * block.count + channel;
      for (int bin = 0; bin < bins; ++bin) {
        const std::int64_t where = maxima[bin * block.count];
        if (where >= 0) gradient[where * block.count] += grad;
      }
    }
  }
}

// Calls body() for every block of channels, with its map in place.
template <class Body>
void for_each_block(ChannelBlock* block, const float* data, void* stream, const Body& body) {
  for (block->first = 0; block->first < block->params.channels; block->first += block->capacity) {
    const std::int64_t left = block->params.channels - block->first;
    block->count = left < block->capacity ? left : block->capacity;
    SNIPER_LAUNCH(transpose_block<true>, blocks_for(patch_count(*block), 1),
                  dim3(kPatch, kPatchRows), 0, stream, *block, data, block->map);
    body();
  }
}

}  // namespace
}  // namespace sniper

SNIPER_CUDA_API int sniper_roi_max_mean_pooling_workspace(const sniper::RoiMaxMeanParams* params,
                                                          std::size_t* bytes) {
  sniper::Workspace measure(nullptr);
  sniper::make_block(*params, false, &measure);
  *bytes = measure.bytes();
  return cudaSuccess;
}

SNIPER_CUDA_API int sniper_roi_max_mean_pooling_forward(const sniper::RoiMaxMeanParams* params,
                                                        const float* data, const float* rois,
                                                        float* output, void* workspace,
                                                        void* stream) {
  sniper::Workspace memory(workspace);
  sniper::ChannelBlock block = sniper::make_block(*params, false, &memory);
  sniper::for_each_block(&block, data, stream, [&] {
    SNIPER_LAUNCH(sniper::pool_kernel,
                  sniper::blocks_for(params->rois * block.count, sniper::kThreads),
                  sniper::kThreads, 0, stream, block, rois, output);
  });
  return cudaGetLastError();
}

SNIPER_CUDA_API int sniper_roi_max_mean_pooling_backward_workspace(
    const sniper::RoiMaxMeanParams* params, std::size_t* bytes) {
  sniper::Workspace measure(nullptr);
  sniper::make_block(*params, true, &measure);
  *bytes = measure.bytes();
  return cudaSuccess;
}

SNIPER_CUDA_API int sniper_roi_max_mean_pooling_backward(const sniper::RoiMaxMeanParams* params,
                                                         const float* output_grad,
                                                         const float* data, const float* rois,
                                                         float* data_grad, void* workspace,
                                                         void* stream) {
  sniper::Workspace memory(workspace);
  sniper::ChannelBlock block = sniper::make_block(*params, true, &memory);
  sniper::for_each_block(&block, data, stream, [&] {
    SNIPER_LAUNCH(sniper::find_maxima,
                  sniper::blocks_for(params->rois * block.count, sniper::kThreads),
                  sniper::kThreads, 0, stream, block, rois);
    SNIPER_LAUNCH(sniper::add_gradients,
                  sniper::blocks_for(params->images * block.count, sniper::kThreads),
                  sniper::kThreads, 0, stream, block, rois, output_grad);
    SNIPER_LAUNCH(sniper::transpose_block<false>, sniper::blocks_for(sniper::patch_count(block), 1),
                  dim3(sniper::kPatch, sniper::kPatchRows), 0, stream, block, block.gradient,
                  data_grad);
  });
  return cudaGetLastError();
}

// CPU loops of ROIMaxMeanPooling.
//
// A task owns a block of neighbouring channels of one image: it copies them into [pixel][lane] and
// pools all RoIs of the image from there. So no two threads add to the same number, every sum runs
// over the RoIs in their order, and the scratch memory is one block per thread.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/isa.h"
#include "common/lanes.h"
#include "common/parallel.h"
#include "roi_max_mean_pooling/roi_max_mean_pooling.h"

namespace sniper {
namespace {

constexpr int kLanes = 32;

// The RoIs of a call on the map, with the cells of their bins: rows, then columns.
struct RoiGeometry {
  std::vector<RoiOnMap> rois;
  std::vector<BinCells> cells;  // [roi][y, x][bin]

  RoiGeometry(const RoiMaxMeanParams& params, const float* all_rois)
      : rois(static_cast<std::size_t>(params.rois)),
        cells(static_cast<std::size_t>(params.rois * 2 * params.pooled)) {
    for (std::int64_t r = 0; r < params.rois; ++r) {
      const RoiOnMap roi = roi_on_map(all_rois + 5 * r, params);
      rois[static_cast<std::size_t>(r)] = roi;
      BinCells* rows = cells.data() + r * 2 * params.pooled;
      for (int bin = 0; bin < params.pooled; ++bin) {
        rows[bin] = bin_cells(bin, roi.y, roi.bin_height, params.height);
        rows[params.pooled + bin] = bin_cells(bin, roi.x, roi.bin_width, params.width);
      }
    }
  }
};

// Sums of a RoI's bin maxima, lane by lane; `map` is [y][x][lane]. The loops over the lanes have no
// branches and a fixed length, so that they become SIMD.
SNIPER_ALWAYS_INLINE void sum_maxima(const BinCells* rows, int pooled, std::int64_t width,
                                     const float* map, float* sums) {
  const BinCells* columns = rows + pooled;
  float sum[kLanes] = {};
  for (int ph = 0; ph < pooled; ++ph) {
    for (int pw = 0; pw < pooled; ++pw) {
      if (rows[ph].first >= rows[ph].end || columns[pw].first >= columns[pw].end) continue;
      float best[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) best[lane] = kNoMaximum;
      for (std::int64_t y = rows[ph].first; y < rows[ph].end; ++y) {
        for (std::int64_t x = columns[pw].first; x < columns[pw].end; ++x) {
          const float* pixel = map + (y * width + x) * kLanes;
          for (int lane = 0; lane < kLanes; ++lane) {
            best[lane] = pixel[lane] > best[lane] ? pixel[lane] : best[lane];
          }
        }
      }
      for (int lane = 0; lane < kLanes; ++lane) sum[lane] += best[lane];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) sums[lane] = sum[lane];
}

// Adds `grad`, lane by lane, to the pixel of every bin's maximum.
SNIPER_ALWAYS_INLINE void spread_maxima(const BinCells* rows, int pooled, std::int64_t width,
                                        const float* map, const float* grad, float* map_grad) {
  const BinCells* columns = rows + pooled;
  for (int ph = 0; ph < pooled; ++ph) {
    for (int pw = 0; pw < pooled; ++pw) {
      float best[kLanes];
      std::int32_t where[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) best[lane] = kNoMaximum;
      for (int lane = 0; lane < kLanes; ++lane) where[lane] = kNoPixel;
      for (std::int64_t y = rows[ph].first; y < rows[ph].end; ++y) {
        for (std::int64_t x = columns[pw].first; x < columns[pw].end; ++x) {
          const std::int32_t index = static_cast<std::int32_t>(y * width + x);
          const float* pixel = map + static_cast<std::int64_t>(index) * kLanes;
          for (int lane = 0; lane < kLanes; ++lane) {
            const bool better = pixel[lane] > best[lane];
            best[lane] = better ? pixel[lane] : best[lane];
            where[lane] = better ? index : where[lane];
          }
        }
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        const std::int64_t index = where[lane];
        if (index >= 0) map_grad[index * kLanes + lane] += grad[lane];
      }
    }
  }
}

// Calls body(roi, its rows) for every RoI of an image, in their order.
template <class Body>
void for_each_roi(const RoiMaxMeanParams& params, const RoiGeometry& geometry, std::int64_t image,
                  const Body& body) {
  for (std::int64_t r = 0; r < params.rois; ++r) {
    if (geometry.rois[static_cast<std::size_t>(r)].image != image) continue;
    body(r, geometry.cells.data() + r * 2 * params.pooled);
  }
}

// Calls body(image, first channel, number of channels) for all blocks, on several threads.
template <class Body>
void for_each_block(const RoiMaxMeanParams& params, const Body& body) {
  const std::int64_t blocks = (params.channels + kLanes - 1) / kLanes;
  parallel_for(params.images * blocks, [&](std::int64_t task) {
    const std::int64_t channel = task % blocks * kLanes;
    body(task / blocks, channel,
         static_cast<int>(std::min<std::int64_t>(kLanes, params.channels - channel)));
  });
}

// Memory of one array that the thread keeps for its next block, because fresh pages cost more than
// the pooling.
float* scratch(std::vector<float>* memory, std::int64_t count) {
  if (memory->size() < static_cast<std::size_t>(count)) {
    memory->resize(static_cast<std::size_t>(count));
  }
  return memory->data();
}

thread_local std::vector<float> map_memory, grad_memory;

// The block as [pixel][lane].
const float* packed_block(const RoiMaxMeanParams& params, const float* data, std::int64_t image,
                          std::int64_t channel, int channels) {
  float* map = scratch(&map_memory, params.pixels() * kLanes);
  pack_rows(data + (image * params.channels + channel) * params.pixels(), params.pixels(), channels,
            params.pixels(), kLanes, map);
  return map;
}

}  // namespace

void roi_max_mean_forward_cpu(const RoiMaxMeanParams& params, const float* data, const float* rois,
                              float* output) {
  const RoiGeometry geometry(params, rois);
  for_each_roi(params, geometry, -1, [&](std::int64_t r, const BinCells*) {
    std::fill_n(output + r * params.channels, params.channels, 0.0f);
  });
  for_each_block(params, [&](std::int64_t image, std::int64_t channel, int channels) {
    const float* map = packed_block(params, data, image, channel, channels);
    for_each_roi(params, geometry, image, [&](std::int64_t r, const BinCells* rows) {
      float sums[kLanes];
      per_isa<sum_maxima>(rows, params.pooled, params.width, map, sums);
      float* out = output + r * params.channels + channel;
      for (int lane = 0; lane < channels; ++lane) {
        out[lane] = sums[lane] / static_cast<float>(params.bins());
      }
    });
  });
}

void roi_max_mean_backward_cpu(const RoiMaxMeanParams& params, const float* output_grad,
                               const float* data, const float* rois, float* data_grad) {
  const RoiGeometry geometry(params, rois);
  for_each_block(params, [&](std::int64_t image, std::int64_t channel, int channels) {
    const float* map = packed_block(params, data, image, channel, channels);
    float* map_grad = scratch(&grad_memory, params.pixels() * kLanes);
    std::fill_n(map_grad, params.pixels() * kLanes, 0.0f);
    for_each_roi(params, geometry, image, [&](std::int64_t r, const BinCells* rows) {
      float grad[kLanes] = {};
      const float* head = output_grad + r * params.channels + channel;
      for (int lane = 0; lane < channels; ++lane) {
        grad[lane] = head[lane] / static_cast<float>(params.bins());
      }
      per_isa<spread_maxima>(rows, params.pooled, params.width, map, grad, map_grad);
    });
    unpack_rows(map_grad, params.pixels(), kLanes, channels, params.pixels(),
                data_grad + (image * params.channels + channel) * params.pixels());
  });
}

}  // namespace sniper

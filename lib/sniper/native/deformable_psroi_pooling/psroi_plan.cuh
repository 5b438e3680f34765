// Sizes, scratch memory and geometry that the CUDA kernels of deformable PSROI pooling share.
//
// The map is transposed once to [image][class][group][y][x][channel]: the threads of a warp own
// neighbouring channels and read neighbouring floats. The taps of a bin are computed once for all
// channels. They are kept for as many tiles (up to kTileBins bins of one RoI and class) as fit into
// a bounded piece of scratch memory; the launchers enqueue one round of kernels for each such
// chunk.
#ifndef SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_PLAN_CUH_
#define SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_PLAN_CUH_

#include "common/transpose.cuh"
#include "deformable_psroi_pooling/deformable_psroi_pooling.h"

namespace sniper {

// Where the bins of a tile read; image -1: nowhere. The bounds hold all taps.
struct PsRoiTileInfo {
  int64_t image;
  int32_t bins;
  int32_t first_x, last_x, first_y, last_y;
};

// Sizes and scratch memory of one call.
struct PsRoiPlan {
  PsRoiShape shape;
  int64_t channels, groups, pixels;  // channels: of one class
  int64_t taps_per_axis;
  int64_t tile_bins, tiles_per_roi;  // tiles_per_roi: of one class
  int64_t all_tiles;                 // tile (class * rois + roi) * tiles_per_roi + part
  int64_t chunk;                     // tiles that fit
  int64_t first, count;              // tiles of the chunk at hand
  PsRoiTileInfo* tiles;              // [tile of the chunk]
  PsRoiBin* bins;                    // [tile of the chunk][bin]
  PsRoiTap* taps;                    // [tile of the chunk][bin][x, y][taps_per_axis]
  float* map;                        // [image][class][group][y][x][channel]
  float* gradients;                  // [tile of the chunk][bin][channel]
  float* shifts;                     // [tile][bin][x, y]

  __host__ __device__ int64_t planes() const { return shape.images * shape.classes * groups; }
  __host__ __device__ int64_t channel_patches() const { return ceil_div(channels, kPatch); }
};

// A tile by its number.
struct PsRoiTile {
  int64_t roi, cls, first_bin;
  int bins;
};

__device__ __forceinline__ PsRoiTile psroi_tile(const PsRoiPlan& plan, int64_t index) {
  const int64_t first_bin = index % plan.tiles_per_roi * plan.tile_bins;
  const int64_t left = plan.shape.bins() - first_bin;
  const int64_t row = index / plan.tiles_per_roi;
  return {row % plan.shape.rois, row / plan.shape.rois, first_bin,
          static_cast<int>(left < plan.tile_bins ? left : plan.tile_bins)};
}

__device__ __forceinline__ const PsRoiTap* psroi_taps(const PsRoiPlan& plan, int64_t bin) {
  return plan.taps + bin * 2 * plan.taps_per_axis;
}

// Offset of channel `channel` of a tile in the output: [roi][class][channel][bin].
__device__ __forceinline__ int64_t psroi_output_offset(const PsRoiPlan& plan, const PsRoiTile& tile,
                                                       int64_t channel) {
  const int64_t row = tile.roi * plan.shape.output_dim + tile.cls * plan.channels + channel;
  return row * plan.shape.bins() + tile.first_bin;
}

// Sizes of one call, and its slices of the workspace.
PsRoiPlan make_psroi_plan(const PsRoiShape& shape, bool backward, Workspace* workspace);

// Enqueues the transposition of `data` to plan.map.
void enqueue_psroi_map(const PsRoiPlan& plan, const float* data, void* stream);

// Makes the tiles from `first` on the chunk at hand and enqueues their geometry.
void enqueue_psroi_geometry(PsRoiPlan* plan, int64_t first, const float* rois, const float* trans,
                            void* stream);

}  // namespace sniper

#endif  // SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_PLAN_CUH_

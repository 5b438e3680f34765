// Geometry of the bins and the transposed map of deformable PSROI pooling (CUDA).

#include "deformable_psroi_pooling/psroi_plan.cuh"

namespace sniper {
namespace {

constexpr int kTileBins = 64;
constexpr int64_t kMaxTaps = 1 << 22;       // 48 MiB
constexpr int64_t kMaxGradients = 1 << 25;  // 128 MiB

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// A block of kTileBins threads computes the geometry of a tile, one thread per bin.
__global__ void locate_kernel(PsRoiPlan plan, const float* rois, const float* trans) {
  __shared__ int first_x, last_x, first_y, last_y;
  const PsRoiShape& shape = plan.shape;
  const int64_t field_floats = 2 * static_cast<int64_t>(shape.part) * shape.part;
  for (int64_t k = blockIdx.x; k < plan.count; k += gridDim.x) {
    if (threadIdx.x == 0) {
      first_x = first_y = INT32_MAX;
      last_x = last_y = -1;
    }
    __syncthreads();
    const PsRoiTile tile = psroi_tile(plan, plan.first + k);
    const PsRoiFrame frame = psroi_frame(rois + tile.roi * 5, shape);
    if (frame.image >= 0 && static_cast<int>(threadIdx.x) < tile.bins) {
      const int64_t slot = k * plan.tile_bins + threadIdx.x;
      const int64_t number = tile.first_bin + threadIdx.x;
      const float* field =
          trans ? trans + (tile.roi * shape.classes + tile.cls) * field_floats : nullptr;
      PsRoiTap* taps_x = plan.taps + slot * 2 * plan.taps_per_axis;
      PsRoiTap* taps_y = taps_x + plan.taps_per_axis;
      const PsRoiBin bin =
          psroi_bin(frame, shape, static_cast<int>(number / shape.pooled),
                    static_cast<int>(number % shape.pooled), field, taps_x, taps_y);
      plan.bins[slot] = bin;
      if (bin.taps_x > 0 && bin.taps_y > 0) {
        atomicMin(&first_x, taps_x[0].index);
        atomicMax(&last_x, taps_x[bin.taps_x - 1].index);
        atomicMin(&first_y, taps_y[0].index);
        atomicMax(&last_y, taps_y[bin.taps_y - 1].index);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      plan.tiles[k] = {frame.image, tile.bins, first_x, last_x, first_y, last_y};
    }
  }
}

__global__ void pack_map_kernel(PsRoiPlan plan, const float* data) {
  const int64_t across = ceil_div(plan.pixels, kPatch), down = plan.channel_patches();
  for (int64_t task = blockIdx.x; task < plan.planes() * down * across; task += gridDim.x) {
    const int64_t pixel = task % across * kPatch;
    const int64_t channel = task / across % down * kPatch;
    const int64_t plane = task / across / down;
    const int64_t field = plane / plan.groups, group = plane % plan.groups;
    transpose_patch(
        data + ((field * plan.channels + channel) * plan.groups + group) * plan.pixels + pixel,
        plan.groups * plan.pixels, plan.channels - channel, plan.pixels - pixel,
        plan.map + (plane * plan.pixels + pixel) * plan.channels + channel, plan.channels);
  }
}

}  // namespace

PsRoiPlan make_psroi_plan(const PsRoiShape& shape, bool backward, Workspace* workspace) {
  PsRoiPlan plan = {};
  plan.shape = shape;
  plan.channels = shape.class_channels();
  plan.groups = static_cast<int64_t>(shape.group) * shape.group;
  plan.pixels = shape.height * shape.width;
  plan.taps_per_axis = 2 * static_cast<int64_t>(shape.samples);
  plan.tile_bins = least(shape.bins(), kTileBins);
  plan.tiles_per_roi = ceil_div(shape.bins(), plan.tile_bins);
  plan.all_tiles = shape.classes * shape.rois * plan.tiles_per_roi;
  const int64_t tile_taps = plan.tile_bins * 2 * plan.taps_per_axis;
  int64_t fitting = least(plan.all_tiles, kMaxTaps / tile_taps);
  if (backward) fitting = least(fitting, kMaxGradients / (plan.tile_bins * plan.channels));
  plan.chunk = fitting > 1 ? fitting : 1;
  plan.tiles = workspace->take<PsRoiTileInfo>(plan.chunk);
  plan.bins = workspace->take<PsRoiBin>(plan.chunk * plan.tile_bins);
  plan.taps = workspace->take<PsRoiTap>(plan.chunk * tile_taps);
  plan.map = workspace->take<float>(plan.planes() * plan.pixels * plan.channels);
  if (backward) {
    plan.gradients = workspace->take<float>(plan.chunk * plan.tile_bins * plan.channels);
    plan.shifts = workspace->take<float>(plan.all_tiles * plan.tile_bins * 2);
  }
  return plan;
}

void enqueue_psroi_map(const PsRoiPlan& plan, const float* data, void* stream) {
  const int64_t patches = plan.planes() * plan.channel_patches() * ceil_div(plan.pixels, kPatch);
  SNIPER_LAUNCH(pack_map_kernel, blocks_for(patches, 1), dim3(kPatch, kPatchRows), 0, stream, plan,
                data);
}

void enqueue_psroi_geometry(PsRoiPlan* plan, int64_t first, const float* rois, const float* trans,
                            void* stream) {
  plan->first = first;
  plan->count = least(plan->chunk, plan->all_tiles - first);
  SNIPER_LAUNCH(locate_kernel, blocks_for(plan->count, 1), kTileBins, 0, stream, *plan, rois,
                trans);
}

}  // namespace sniper

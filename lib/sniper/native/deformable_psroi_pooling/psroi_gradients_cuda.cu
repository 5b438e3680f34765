// CUDA kernels of deformable position-sensitive RoI pooling, backward pass.
//
// Nothing is added atomically. A warp owns 32 channels of a strip of a few pixels and walks the
// RoIs in their order, so the gradient of the map has the CPU's bits. Short strips give more warps,
// and a warp passes over the bins that do not reach its strip.

#include "deformable_psroi_pooling/deformable_psroi_pooling_cuda.h"
#include "deformable_psroi_pooling/psroi_plain.cuh"
#include "deformable_psroi_pooling/psroi_plan.cuh"

namespace sniper {
namespace {

constexpr int kSpreadWarps = 4;
constexpr int kStripPixels = 16;

__global__ void pack_gradients_kernel(PsRoiPlan plan, const float* output_grad) {
  const int64_t across = ceil_div(plan.tile_bins, kPatch), down = plan.channel_patches();
  for (int64_t task = blockIdx.x; task < plan.count * down * across; task += gridDim.x) {
    const int64_t bin = task % across * kPatch;
    const int64_t channel = task / across % down * kPatch;
    const int64_t k = task / across / down;
    const PsRoiTile tile = psroi_tile(plan, plan.first + k);
    transpose_patch(output_grad + psroi_output_offset(plan, tile, channel) + bin, plan.shape.bins(),
                    plan.channels - channel, tile.bins - bin,
                    plan.gradients + (k * plan.tile_bins + bin) * plan.channels + channel,
                    plan.channels);
  }
}

// What a warp of the backward pass owns: `channels` channels of `pixels` pixels of one row.
struct Strip {
  int64_t image, cls, group, first_channel;
  int32_t row, first_x;
  int channels, pixels;
  int64_t offset;          // of the first pixel of the first channel in the gradient
  int64_t channel_stride;  // of the gradient
};

__host__ __device__ int64_t strip_count(const PsRoiPlan& plan) {
  return plan.planes() * plan.channel_patches() * plan.shape.height *
         ceil_div(plan.shape.width, kStripPixels);
}

__device__ Strip strip_at(const PsRoiPlan& plan, int64_t index) {
  const int64_t segments = ceil_div(plan.shape.width, kStripPixels);
  const int64_t first_x = index % segments * kStripPixels;
  const int64_t row = index / segments % plan.shape.height;
  const int64_t rest = index / segments / plan.shape.height;
  const int64_t first_channel = rest % plan.channel_patches() * kPatch;
  const int64_t plane = rest / plan.channel_patches();
  const int64_t field = plane / plan.groups, group = plane % plan.groups;
  const int64_t channels = plan.channels - first_channel, pixels = plan.shape.width - first_x;
  Strip strip;
  strip.image = field / plan.shape.classes;
  strip.cls = field % plan.shape.classes;
  strip.group = group;
  strip.first_channel = first_channel;
  strip.row = static_cast<int32_t>(row);
  strip.first_x = static_cast<int32_t>(first_x);
  strip.channels = static_cast<int>(channels < kPatch ? channels : kPatch);
  strip.pixels = static_cast<int>(pixels < kStripPixels ? pixels : kStripPixels);
  strip.offset = ((field * plan.channels + first_channel) * plan.groups + group) * plan.pixels +
                 row * plan.shape.width + first_x;
  strip.channel_stride = plan.groups * plan.pixels;
  return strip;
}

// Whether the bin reads pixels of the strip; the weight of the strip's row goes to `weight`.
__device__ bool reads_strip(const PsRoiPlan& plan, const Strip& strip, int64_t slot,
                            float* weight) {
  const PsRoiBin bin = plan.bins[slot];
  if (bin.group != strip.group || bin.taps_x == 0) return false;
  const PsRoiTap* xs = psroi_taps(plan, slot);
  if (xs[0].index >= strip.first_x + kStripPixels) return false;
  if (xs[bin.taps_x - 1].index < strip.first_x) return false;
  const PsRoiTap* ys = xs + plan.taps_per_axis;
  for (int i = 0; i < bin.taps_y; ++i) {
    if (ys[i].index == strip.row) {
      *weight = ys[i].weight;
      return true;
    }
  }
  return false;
}

// Adds the bins of tile `k` of the chunk. The lanes look for the bins that read the strip, 32 at
// a time; then each adds them, in their order, to the pixels of its channel.
__device__ void spread_tile(const PsRoiPlan& plan, const Strip& strip, int64_t k, int lane,
                            float (*sums)[kPatch + 1]) {
  const int bins = plan.tiles[k].bins;
  const bool owns_channel = lane < strip.channels;
  for (int base = 0; base < bins; base += kWarpSize) {
    const int64_t first_slot = k * plan.tile_bins + base;
    float own_weight = 0.0f;
    const bool reads =
        base + lane < bins && reads_strip(plan, strip, first_slot + lane, &own_weight);
    for (unsigned left = __ballot_sync(kFullWarp, reads); left != 0; left &= left - 1) {
      const int found = __ffs(static_cast<int>(left)) - 1;
      const float weight_y = __shfl_sync(kFullWarp, own_weight, found);
      const int64_t slot = first_slot + found;
      const PsRoiBin bin = plan.bins[slot];
      const PsRoiTap* xs = psroi_taps(plan, slot);
      float gradient = 0.0f;
      if (owns_channel) {
        gradient = plan.gradients[slot * plan.channels + strip.first_channel + lane];
        gradient *= bin.inverse_count;
      }
      for (int j = 0; j < bin.taps_x; ++j) {
        const int32_t x = xs[j].index - strip.first_x;
        const float weight = weight_y * xs[j].weight;
        if (x >= 0 && x < kStripPixels) sums[x][lane] += weight * gradient;
      }
    }
  }
}

// Gradient of the map. A later chunk goes on with the sums of the earlier ones.
__global__ void spread_kernel(PsRoiPlan plan, float* data_grad) {
  __shared__ float all_sums[kSpreadWarps][kStripPixels][kPatch + 1];  // [warp][pixel][channel]
  float (*sums)[kPatch + 1] = all_sums[threadIdx.y];
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t class_tiles = plan.shape.rois * plan.tiles_per_roi;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kSpreadWarps;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSpreadWarps + threadIdx.y;
  for (int64_t index = begin; index < strip_count(plan); index += step) {
    const Strip strip = strip_at(plan, index);
    float* target = data_grad + strip.offset;
    for (int i = lane; i < kStripPixels * kPatch; i += kWarpSize) {
      const int x = i % kStripPixels, c = i / kStripPixels;
      const bool resumes = plan.first > 0 && c < strip.channels && x < strip.pixels;
      sums[x][c] = resumes ? target[c * strip.channel_stride + x] : 0.0f;
    }
    __syncwarp();
    // The tiles of the strip's class, as numbers of the chunk.
    const int64_t class_first = strip.cls * class_tiles - plan.first;
    const int64_t class_last = class_first + class_tiles;
    const int64_t last = class_last < plan.count ? class_last : plan.count;
    for (int64_t base = class_first > 0 ? class_first : 0; base < last; base += kWarpSize) {
      bool touches = false;
      if (base + lane < last) {
        const PsRoiTileInfo info = plan.tiles[base + lane];
        touches = info.image == strip.image && info.first_y <= strip.row &&
                  strip.row <= info.last_y && info.first_x < strip.first_x + kStripPixels &&
                  strip.first_x <= info.last_x;
      }
      for (unsigned left = __ballot_sync(kFullWarp, touches); left != 0; left &= left - 1) {
        spread_tile(plan, strip, base + __ffs(static_cast<int>(left)) - 1, lane, sums);
      }
    }
    __syncwarp();
    for (int i = lane; i < kStripPixels * strip.channels; i += kWarpSize) {
      const int x = i % kStripPixels, c = i / kStripPixels;
      if (x < strip.pixels) target[c * strip.channel_stride + x] = sums[x][c];
    }
  }
}

// Derivatives of one channel of a bin with respect to a shift of the bin along x and y; `map` as in
// pool_bin.
__device__ void shift_bin(const PsRoiPlan& plan, const PsRoiBin& bin, const PsRoiTap* xs,
                          const float* map, float* along_x, float* along_y) {
  const PsRoiTap* ys = xs + plan.taps_per_axis;
  const float* plane = map + bin.group * plan.pixels * plan.channels;
  for (int i = 0; i < bin.taps_y; ++i) {
    const float* line = plane + ys[i].index * plan.shape.width * plan.channels;
    for (int j = 0; j < bin.taps_x; ++j) {
      const float value = line[xs[j].index * plan.channels];
      const float slope_x = ys[i].weight * xs[j].slope;
      const float slope_y = ys[i].slope * xs[j].weight;
      *along_x += slope_x * value;
      *along_y += slope_y * value;
    }
  }
}

__device__ float warp_sum(float value) {
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    value += __shfl_down_sync(kFullWarp, value, step);
  }
  return value;
}

// A warp sums the derivatives of one bin over the channels, in an order that depends on their
// number only.
__global__ void shift_kernel(PsRoiPlan plan) {
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  for (int64_t slot = begin; slot < plan.count * plan.tile_bins; slot += step) {
    const int64_t k = slot / plan.tile_bins;
    const PsRoiTileInfo info = plan.tiles[k];
    float sum_x = 0.0f, sum_y = 0.0f;
    if (info.image >= 0 && slot % plan.tile_bins < info.bins) {
      const PsRoiBin bin = plan.bins[slot];
      const int64_t field = info.image * plan.shape.classes + psroi_tile(plan, plan.first + k).cls;
      const float* map = plan.map + field * plan.groups * plan.pixels * plan.channels;
      for (int64_t channel = lane; channel < plan.channels; channel += kWarpSize) {
        float along_x = 0.0f, along_y = 0.0f;
        shift_bin(plan, bin, psroi_taps(plan, slot), map + channel, &along_x, &along_y);
        const float gradient = plan.gradients[slot * plan.channels + channel] * bin.inverse_count;
        sum_x += along_x * gradient;
        sum_y += along_y * gradient;
      }
    }
    sum_x = warp_sum(sum_x);
    sum_y = warp_sum(sum_y);
    if (lane == 0) {
      float* shift = plan.shifts + (plan.first * plan.tile_bins + slot) * 2;
      shift[0] = sum_x;
      shift[1] = sum_y;
    }
  }
}

// One thread per offset cell adds the shifts of the bins that the cell moves.
__global__ void collect_kernel(PsRoiPlan plan, const float* rois, float* trans_grad) {
  const PsRoiShape& shape = plan.shape;
  const int64_t cells = static_cast<int64_t>(shape.part) * shape.part;
  for (int64_t i = global_thread(); i < shape.rois * shape.classes * cells; i += global_threads()) {
    const int64_t cell = i % cells, cls = i / cells % shape.classes;
    const int64_t roi = i / cells / shape.classes;
    const PsRoiFrame frame = psroi_frame(rois + roi * 5, shape);
    const float* shifts =
        plan.shifts + (cls * shape.rois + roi) * plan.tiles_per_roi * plan.tile_bins * 2;
    float sum_x = 0.0f, sum_y = 0.0f;
    for (int ph = 0; ph < shape.pooled; ++ph) {
      if (psroi_part(ph, shape) != cell / shape.part) continue;
      for (int pw = 0; pw < shape.pooled; ++pw) {
        if (psroi_part(pw, shape) != cell % shape.part) continue;
        // Bin b of a RoI and class has slot b: only the last tile is not full.
        const float* shift = shifts + (static_cast<int64_t>(ph) * shape.pooled + pw) * 2;
        sum_x += psroi_offset_grad(shift[0], frame.width, shape);
        sum_y += psroi_offset_grad(shift[1], frame.height, shape);
      }
    }
    float* field = trans_grad + (roi * shape.classes + cls) * 2 * cells;
    field[cell] = sum_x;
    field[cells + cell] = sum_y;
  }
}

void enqueue_spread(const PsRoiPlan& plan, const float* output_grad, float* data_grad,
                    void* stream) {
  const int64_t patches = plan.count * plan.channel_patches() * ceil_div(plan.tile_bins, kPatch);
  SNIPER_LAUNCH(pack_gradients_kernel, blocks_for(patches, 1), dim3(kPatch, kPatchRows), 0, stream,
                plan, output_grad);
  SNIPER_LAUNCH(spread_kernel, blocks_for(strip_count(plan), kSpreadWarps),
                dim3(kWarpSize, kSpreadWarps), 0, stream, plan, data_grad);
}

}  // namespace
}  // namespace sniper

// Scratch memory of the backward pass, with or without offsets.
SNIPER_CUDA_API int sniper_deformable_psroi_pooling_backward_workspace(
    const sniper::PsRoiShape* params, std::size_t* bytes) {
  sniper::Workspace measure(nullptr);
  sniper::make_psroi_plan(*params, true, &measure);
  *bytes = measure.bytes();
  return cudaSuccess;
}

// As psroi_backward_cpu: overwrites `data_grad` (the same bits) and, when `trans` is not null,
// `trans_grad` (sums over the channels in an order of its own). The RoIs' gradient is zero and left
// to the caller.
SNIPER_CUDA_API int sniper_deformable_psroi_pooling_backward(const sniper::PsRoiShape* params,
                                                             const float* output_grad,
                                                             const float* data, const float* rois,
                                                             const float* trans, float* data_grad,
                                                             float* trans_grad, void* workspace,
                                                             void* stream) {
  if (sniper::psroi_is_plain(*params, trans != nullptr) && sniper::psroi_plain_fits(*params)) {
    sniper::enqueue_plain_backward(*params, output_grad, rois, data_grad, stream);
    return cudaGetLastError();
  }
  sniper::Workspace memory(workspace);
  sniper::PsRoiPlan plan = sniper::make_psroi_plan(*params, true, &memory);
  if (trans) sniper::enqueue_psroi_map(plan, data, stream);
  // Once even without RoIs: the gradient of the map is then zero.
  for (int64_t first = 0; first == 0 || first < plan.all_tiles; first += plan.chunk) {
    sniper::enqueue_psroi_geometry(&plan, first, rois, trans, stream);
    sniper::enqueue_spread(plan, output_grad, data_grad, stream);
    if (!trans) continue;
    SNIPER_LAUNCH(sniper::shift_kernel, sniper::blocks_for(plan.count * plan.tile_bins, 8),
                  dim3(sniper::kWarpSize, 8), 0, stream, plan);
  }
  if (trans) {
    const int64_t cells = plan.shape.rois * plan.shape.classes * plan.shape.part * plan.shape.part;
    SNIPER_LAUNCH(sniper::collect_kernel, sniper::blocks_for(cells, 256), 256, 0, stream, plan,
                  rois, trans_grad);
  }
  return cudaGetLastError();
}

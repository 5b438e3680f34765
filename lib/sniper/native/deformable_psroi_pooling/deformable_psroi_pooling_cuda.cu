// CUDA kernel of deformable position-sensitive RoI pooling, forward pass.

#include "deformable_psroi_pooling/deformable_psroi_pooling_cuda.h"
#include "deformable_psroi_pooling/psroi_plain.cuh"
#include "deformable_psroi_pooling/psroi_plan.cuh"

namespace sniper {
namespace {

constexpr int kPoolThreads = 256;

// Mean of one channel over a bin; `map` is that channel of the bin's first plane.
__device__ float pool_bin(const PsRoiPlan& plan, const PsRoiBin& bin, const PsRoiTap* xs,
                          const float* map) {
  const PsRoiTap* ys = xs + plan.taps_per_axis;
  const float* plane = map + bin.group * plan.pixels * plan.channels;
  float sum = 0.0f;
  for (int i = 0; i < bin.taps_y; ++i) {
    const float* line = plane + ys[i].index * plan.shape.width * plan.channels;
    const float weight_y = ys[i].weight;
    for (int j = 0; j < bin.taps_x; ++j) {
      const float weight = weight_y * xs[j].weight;
      sum += weight * line[xs[j].index * plan.channels];
    }
  }
  return sum * bin.inverse_count;
}

// A block pools blockDim.x channels of one tile and writes them through shared memory, because the
// output has the bins innermost.
__global__ void pool_kernel(PsRoiPlan plan, float* output) {
  SNIPER_DYNAMIC_SHARED(float, staged);  // [bin][channel], rows one float longer
  const int lanes = static_cast<int>(blockDim.x), lane = static_cast<int>(threadIdx.x);
  const int stride = lanes + 1;
  const int64_t channel_tiles = ceil_div(plan.channels, lanes);
  for (int64_t task = blockIdx.x; task < plan.count * channel_tiles; task += gridDim.x) {
    const int64_t k = task % plan.count;
    const int64_t first_channel = task / plan.count * lanes;
    const int64_t channels_left = plan.channels - first_channel;
    const int channels = static_cast<int>(channels_left < lanes ? channels_left : lanes);
    const PsRoiTile tile = psroi_tile(plan, plan.first + k);
    const int64_t image = plan.tiles[k].image;
    const int64_t field = image * plan.shape.classes + tile.cls;
    const float* map =
        plan.map + field * plan.groups * plan.pixels * plan.channels + first_channel + lane;
    for (int b = static_cast<int>(threadIdx.y); b < tile.bins; b += static_cast<int>(blockDim.y)) {
      const int64_t slot = k * plan.tile_bins + b;
      if (lane < channels) {
        staged[b * stride + lane] =
            image < 0 ? 0.0f : pool_bin(plan, plan.bins[slot], psroi_taps(plan, slot), map);
      }
    }
    __syncthreads();
    float* out = output + psroi_output_offset(plan, tile, first_channel);
    const int threads = lanes * static_cast<int>(blockDim.y);
    for (int i = static_cast<int>(threadIdx.y) * lanes + lane; i < channels * tile.bins;
         i += threads) {
      const int channel = i / tile.bins, b = i % tile.bins;
      out[channel * plan.shape.bins() + b] = staged[b * stride + channel];
    }
    __syncthreads();
  }
}

void enqueue_pool(const PsRoiPlan& plan, float* output, void* stream) {
  int lanes = kWarpSize;  // fewer where a class has few channels
  while (lanes / 2 >= plan.channels) lanes /= 2;
  const int64_t tasks = plan.count * ceil_div(plan.channels, lanes);
  const std::size_t shared = static_cast<std::size_t>(plan.tile_bins) *
                             static_cast<std::size_t>(lanes + 1) * sizeof(float);
  SNIPER_LAUNCH(pool_kernel, blocks_for(tasks, 1), dim3(lanes, kPoolThreads / lanes), shared,
                stream, plan, output);
}

}  // namespace
}  // namespace sniper

// Scratch memory of the forward pass.
SNIPER_CUDA_API int sniper_deformable_psroi_pooling_workspace(const sniper::PsRoiShape* params,
                                                              std::size_t* bytes) {
  sniper::Workspace measure(nullptr);
  sniper::make_psroi_plan(*params, false, &measure);
  *bytes = measure.bytes();
  return cudaSuccess;
}

// As psroi_forward_cpu, with the same bits.
SNIPER_CUDA_API int sniper_deformable_psroi_pooling_forward(const sniper::PsRoiShape* params,
                                                            const float* data, const float* rois,
                                                            const float* trans, float* output,
                                                            void* workspace, void* stream) {
  if (sniper::psroi_is_plain(*params, trans != nullptr)) {
    sniper::enqueue_plain_forward(*params, data, rois, output, stream);
    return cudaGetLastError();
  }
  sniper::Workspace memory(workspace);
  sniper::PsRoiPlan plan = sniper::make_psroi_plan(*params, false, &memory);
  sniper::enqueue_psroi_map(plan, data, stream);
  for (int64_t first = 0; first < plan.all_tiles; first += plan.chunk) {
    sniper::enqueue_psroi_geometry(&plan, first, rois, trans, stream);
    sniper::enqueue_pool(plan, output, stream);
  }
  return cudaGetLastError();
}

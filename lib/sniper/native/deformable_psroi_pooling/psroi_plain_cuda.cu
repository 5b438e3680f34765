// CUDA kernels of PSROI pooling without offsets. Neither needs scratch memory. Nothing is added
// atomically: a warp owns a plane of the gradient, keeps it in shared memory and walks the RoIs in
// their order; the pixels of a bin differ, so that its lanes add to different numbers.

#include "deformable_psroi_pooling/psroi_plain.cuh"

namespace sniper {
namespace {

constexpr int kThreads = 128;

// A thread per number of the output.
__global__ void plain_pool(PsRoiShape shape, const float* data, const float* rois, float* output) {
  const int64_t bins = shape.bins(), pixels = shape.height * shape.width;
  const int64_t groups = static_cast<int64_t>(shape.group) * shape.group;
  for (int64_t i = global_thread(); i < shape.rois * shape.output_dim * bins;
       i += global_threads()) {
    const int ph = static_cast<int>(i % bins / shape.pooled);
    const int pw = static_cast<int>(i % bins % shape.pooled);
    const int64_t channel = i / bins % shape.output_dim;
    const PsRoiFrame frame = psroi_frame(rois + 5 * (i / bins / shape.output_dim), shape);
    if (frame.image < 0) {
      output[i] = 0.0f;
      continue;
    }
    const PsRoiLine row = psroi_row(ph, frame, shape), column = psroi_column(pw, frame, shape);
    const int64_t group =
        static_cast<int64_t>(psroi_group(ph, shape)) * shape.group + psroi_group(pw, shape);
    const float* plane =
        data + ((frame.image * shape.output_dim + channel) * groups + group) * pixels;
    float sum = 0.0f;
    for (int k = 0; k < row.count; ++k) {
      for (int j = 0; j < column.count; ++j) {
        const float weight = row.taps[k].weight * column.taps[j].weight;
        sum += weight * plane[row.taps[k].index * shape.width + column.taps[j].index];
      }
    }
    output[i] = sum * psroi_inverse_count(row, column);
  }
}

// Adds one bin to the plane; called by a warp.
__device__ void add_bin(const PsRoiShape& shape, const PsRoiLine& row, const PsRoiLine& column,
                        float output_grad, float* plane) {
  const float gradient = output_grad * psroi_inverse_count(row, column);
  for (int t = static_cast<int>(threadIdx.x); t < row.count * column.count; t += kWarpSize) {
    const PsRoiTap &y = row.taps[t / column.count], &x = column.taps[t % column.count];
    plane[y.index * shape.width + x.index] += y.weight * x.weight * gradient;
  }
  __syncwarp();
}

// A block is a warp, and owns one channel of the map at a time.
__global__ void plain_spread(PsRoiShape shape, const float* output_grad, const float* rois,
                             float* data_grad) {
  SNIPER_DYNAMIC_SHARED(float, plane);
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t bins = shape.bins(), pixels = shape.height * shape.width;
  for (int64_t task = blockIdx.x; task < shape.images * shape.channels(); task += gridDim.x) {
    const int64_t image = task / shape.channels();
    const int64_t channel = task % shape.channels() / shape.group / shape.group;
    const int group_y = static_cast<int>(task / shape.group % shape.group);
    const int group_x = static_cast<int>(task % shape.group);
    for (int64_t p = lane; p < pixels; p += kWarpSize) plane[p] = 0.0f;
    __syncwarp();
    for (int64_t base = 0; base < shape.rois; base += kWarpSize) {
      const int64_t own = base + lane;
      const bool here = own < shape.rois && psroi_frame(rois + 5 * own, shape).image == image;
      for (unsigned left = __ballot_sync(kFullWarp, here); left != 0; left &= left - 1) {
        const int64_t r = base + __ffs(static_cast<int>(left)) - 1;
        const PsRoiFrame frame = psroi_frame(rois + 5 * r, shape);
        const float* head = output_grad + (r * shape.output_dim + channel) * bins;
        for (int ph = 0; ph < shape.pooled; ++ph) {
          if (psroi_group(ph, shape) != group_y) continue;
          const PsRoiLine row = psroi_row(ph, frame, shape);
          for (int pw = 0; pw < shape.pooled; ++pw) {
            if (psroi_group(pw, shape) != group_x) continue;
            add_bin(shape, row, psroi_column(pw, frame, shape), head[ph * shape.pooled + pw],
                    plane);
          }
        }
      }
    }
    for (int64_t p = lane; p < pixels; p += kWarpSize) data_grad[task * pixels + p] = plane[p];
    __syncwarp();
  }
}

}  // namespace

void enqueue_plain_forward(const PsRoiShape& shape, const float* data, const float* rois,
                           float* output, void* stream) {
  SNIPER_LAUNCH(plain_pool, blocks_for(shape.rois * shape.output_dim * shape.bins(), kThreads),
                kThreads, 0, stream, shape, data, rois, output);
}

void enqueue_plain_backward(const PsRoiShape& shape, const float* output_grad, const float* rois,
                            float* data_grad, void* stream) {
  const std::size_t shared = static_cast<std::size_t>(shape.height * shape.width) * sizeof(float);
  SNIPER_LAUNCH(plain_spread, blocks_for(shape.images * shape.channels(), 1), kWarpSize, shared,
                stream, shape, output_grad, rois, data_grad);
}

}  // namespace sniper

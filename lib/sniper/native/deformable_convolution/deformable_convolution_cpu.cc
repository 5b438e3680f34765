// Deformable convolution, forward.
//
// A task takes some cells of the output. For each block of channels it samples what lies under the
// taps, cells x (taps x lanes), which stays in the L2 cache, and multiplies it by the weights of
// that block. The columns of the whole map are nowhere, which other implementations write to
// memory.

#include <omp.h>

#include <algorithm>
#include <vector>

#include "common/panels.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "deformable_convolution/deformable_convolution.h"
#include "deformable_convolution/deformable_samples.h"

namespace sniper {
namespace {

constexpr int kMostRows = 96;      // cells of a task: samples and sums fill the L2 cache
constexpr int kFewestRows = 24;    // for many threads
constexpr int kColumnCells = 256;  // of deformable_columns_cpu

struct Workspace {
  KeptArray planes, taps, weights, samples, sums;
};

thread_local Workspace workspace;

// Filters of a convolution group in whole panels.
std::int64_t panels_of_group(const DeformableShape& shape) {
  return padded_columns(shape.filters / shape.conv_groups) / kPanelColumns;
}

// packed[block][panel][tap x lane][filter of the panel].
void pack_weights(const DeformableShape& shape, const std::vector<DeformableBlock>& blocks,
                  const float* weight, float* packed) {
  const std::int64_t taps = shape.taps(), depth = taps * kDeformableLanes;
  const std::int64_t filters = shape.filters / shape.conv_groups;
  const std::int64_t channels = shape.channels / shape.conv_groups;
  const std::int64_t panels = panels_of_group(shape);
  parallel_for(static_cast<std::int64_t>(blocks.size()) * panels, [&](std::int64_t task) {
    const DeformableBlock& block = blocks[task / panels];
    const std::int64_t first = task % panels * kPanelColumns;
    const std::int64_t rows = std::min<std::int64_t>(kPanelColumns, filters - first);
    float* to = packed + task * depth * kPanelColumns;
    if (rows < kPanelColumns || block.lanes < kDeformableLanes) {
      std::fill(to, to + depth * kPanelColumns, 0.0f);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t filter = block.conv_group * filters + first + r;
      const std::int64_t channel = block.first - block.conv_group * channels;
      const float* from = weight + (filter * channels + channel) * taps;
      for (int lane = 0; lane < block.lanes; ++lane) {
        for (std::int64_t t = 0; t < taps; ++t) {
          to[(t * kDeformableLanes + lane) * kPanelColumns + r] = from[lane * taps + t];
        }
      }
    }
  });
}

// Rows of a task, so that the last threads do not wait long for one of them.
std::int64_t rows_of_task(std::int64_t cells) {
  std::int64_t best = kMostRows, best_time = 0;
  for (std::int64_t rows = kMostRows; rows >= kFewestRows; rows -= kRowsAtOnce) {
    const std::int64_t tasks = (cells + rows - 1) / rows;
    const std::int64_t threads = thread_count(tasks);
    const std::int64_t time = (tasks + threads - 1) / threads * rows;
    if (best_time != 0 && time >= best_time) continue;
    best = rows;
    best_time = time;
  }
  return best;
}

// One image.
struct Pass {
  const DeformableShape& shape;
  const std::vector<DeformableBlock>& blocks;
  const DeformableTap* taps;
  const float* planes;
  const float* weights;
  const float* bias;
  float* output;

  std::int64_t depth() const { return shape.taps() * kDeformableLanes; }
  // Odd lines, so that rows do not fall on the same sets of a cache.
  std::int64_t sum_stride() const { return panels_of_group(shape) * kPanelColumns + kPanelColumns; }

  // Cells [first, first + count) of the output of a group.
  void run(std::int64_t group, std::int64_t first, std::int64_t count, float* samples,
           float* sums) const {
    const std::int64_t panels = panels_of_group(shape), rows = padded_rows(count);
    std::fill(sums, sums + rows * sum_stride(), 0.0f);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      if (blocks[b].conv_group != group) continue;
      const float* plane = planes + b * shape.cells_in() * kDeformableLanes;
      sample_block({taps, shape.cells_out(), shape.taps(), first, count, depth(), kPanelColumns},
                   blocks[b], plane, samples);
      const float* packed = weights + b * panels * depth() * kPanelColumns;
      add_products({samples, depth(), rows}, {packed, depth(), panels}, depth(), sums,
                   sum_stride());
    }
    store(group, first, count, sums);
  }

  void store(std::int64_t group, std::int64_t first, std::int64_t count, float* sums) const {
    const std::int64_t filters = shape.filters / shape.conv_groups;
    if (bias) {
      for (std::int64_t row = 0; row < count; ++row) {
        for (std::int64_t f = 0; f < filters; ++f) {
          sums[row * sum_stride() + f] += bias[group * filters + f];
        }
      }
    }
    transpose(sums, sum_stride(), count, filters,
              output + group * filters * shape.cells_out() + first, shape.cells_out());
  }
};

}  // namespace

void deformable_convolution_cpu(const DeformableShape& shape, const float* data,
                                const float* offset, const float* weight, const float* bias,
                                float* output) {
  const std::vector<DeformableBlock> blocks = deformable_blocks(shape);
  const std::int64_t cells = shape.cells_out(), taps = shape.taps();
  const std::int64_t rows = rows_of_task(cells), parts = (cells + rows - 1) / rows;
  const std::int64_t tasks = parts * shape.conv_groups;
  const std::int64_t count = static_cast<std::int64_t>(blocks.size());
  const int threads = thread_count(tasks);
  auto* located = workspace.taps.take<DeformableTap>(shape.groups * cells * taps);
  auto* planes = workspace.planes.take<float>(count * shape.cells_in() * kDeformableLanes);
  const std::int64_t depth = taps * kDeformableLanes;
  auto* weights =
      workspace.weights.take<float>(count * panels_of_group(shape) * depth * kPanelColumns);
  Pass pass{shape, blocks, located, planes, weights, bias, output};
  auto* samples = workspace.samples.take<float>(threads * rows * depth);
  auto* sums = workspace.sums.take<float>(threads * rows * pass.sum_stride());
  pack_weights(shape, blocks, weight, weights);
  for (std::int64_t image = 0; image < shape.images; ++image) {
    pack_planes(shape, blocks, data + image * shape.channels * shape.cells_in(), planes);
    locate_taps(shape, offset + image * shape.groups * taps * 2 * cells, located);
    pass.output = output + image * shape.filters * cells;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (std::int64_t task = 0; task < tasks; ++task) {
      const std::int64_t thread = omp_get_thread_num(), first = task % parts * rows;
      pass.run(task / parts, first, std::min(rows, cells - first), samples + thread * rows * depth,
               sums + thread * rows * pass.sum_stride());
    }
  }
}

void deformable_columns_cpu(const DeformableShape& shape, const float* data, const float* offset,
                            float* columns) {
  const std::vector<DeformableBlock> blocks = deformable_blocks(shape);
  const std::int64_t cells = shape.cells_out(), taps = shape.taps();
  const std::int64_t parts = (cells + kColumnCells - 1) / kColumnCells;
  const std::int64_t count = static_cast<std::int64_t>(blocks.size());
  const std::int64_t tile_floats = taps * kDeformableLanes * kColumnCells;
  const int threads = thread_count(count * parts);
  auto* located = workspace.taps.take<DeformableTap>(shape.groups * cells * taps);
  auto* planes = workspace.planes.take<float>(count * shape.cells_in() * kDeformableLanes);
  auto* tiles = workspace.samples.take<float>(threads * tile_floats);
  for (std::int64_t image = 0; image < shape.images; ++image) {
    pack_planes(shape, blocks, data + image * shape.channels * shape.cells_in(), planes);
    locate_taps(shape, offset + image * shape.groups * taps * 2 * cells, located);
    float* out = columns + image * shape.channels * taps * cells;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (std::int64_t task = 0; task < count * parts; ++task) {
      const DeformableBlock& block = blocks[task / parts];
      const std::int64_t first = task % parts * kColumnCells;
      const std::int64_t size = std::min<std::int64_t>(kColumnCells, cells - first);
      float* tile = tiles + omp_get_thread_num() * tile_floats;
      sample_block({located, cells, taps, first, size, kPanelColumns, size * kPanelColumns}, block,
                   planes + task / parts * shape.cells_in() * kDeformableLanes, tile);
      for (std::int64_t half = 0; half < 2 * taps; ++half) {
        const int begin = static_cast<int>(half % 2) * kPanelColumns;
        const int end = std::min(block.lanes, begin + kPanelColumns);
        for (int lane = begin; lane < end; ++lane) {
          float* row = out + ((block.first + lane) * taps + half / 2) * cells + first;
          const float* from = tile + half * size * kPanelColumns + (lane - begin);
          for (std::int64_t i = 0; i < size; ++i) row[i] = from[i * kPanelColumns];
        }
      }
    }
  }
}

}  // namespace sniper

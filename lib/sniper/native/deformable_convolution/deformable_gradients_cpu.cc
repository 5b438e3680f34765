// Deformable convolution, backward.
//
// A block of channels is the unit of work: its part of the map's gradient, of the offsets' and of
// the weights' is made by one thread, cell after cell and image after image, so that no bit depends
// on the number of threads.

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

constexpr std::int64_t kDepth = 256;  // filters, or cells, that are summed up at once
constexpr std::int64_t kRows = 96;    // cells, or filters, of a product: they fill the L2 cache

struct Workspace {
  KeptArray planes, plane_grads, taps, weights, by_cell, by_filter, shifts, weight_sums, columns;
};

thread_local Workspace workspace;

// Sizes, and the arrays that all threads share.
struct Plan {
  DeformableShape shape;
  std::vector<DeformableBlock> blocks;
  std::int64_t filters, filter_rows, filter_parts;  // of a convolution group
  std::int64_t cell_rows, cell_parts;
  std::int64_t depth;          // columns of a block: taps x lanes
  std::int64_t segments;       // of all blocks
  std::int64_t block_weights;  // floats of weight_sums per block
  DeformableTap* taps;
  float *planes, *plane_grads;  // [block][cell][lane]
  float* weights;               // [block][part of filters][tap, half][filter][16 lanes]
  float* by_cell;      // [group, part of filters][cell][filter]: the gradient of the output
  float* by_filter;    // [part of cells][group, filter][cell]: the same
  float* shifts;       // [segment][cell][tap][y, x]
  float* weight_sums;  // [block][filter][tap x lane]

  std::int64_t count() const { return static_cast<std::int64_t>(blocks.size()); }
  std::int64_t plane() const { return shape.cells_in() * kDeformableLanes; }
  std::int64_t halves() const { return 2 * shape.taps(); }
};

Plan make_plan(const DeformableShape& shape) {
  Plan plan{};
  plan.shape = shape;
  plan.blocks = deformable_blocks(shape);
  plan.filters = shape.filters / shape.conv_groups;
  plan.filter_rows = padded_rows(plan.filters);
  plan.filter_parts = (plan.filters + kDepth - 1) / kDepth;
  plan.cell_rows = padded_rows(shape.cells_out());
  plan.cell_parts = (shape.cells_out() + kDepth - 1) / kDepth;
  plan.depth = shape.taps() * kDeformableLanes;
  plan.segments = plan.blocks.back().segments.back().number + 1;
  plan.block_weights = plan.filter_rows * plan.depth;
  Workspace& kept = workspace;
  plan.taps = kept.taps.take<DeformableTap>(shape.groups * shape.cells_out() * shape.taps());
  plan.planes = kept.planes.take<float>(plan.count() * plan.plane());
  plan.plane_grads = kept.plane_grads.take<float>(plan.count() * plan.plane());
  plan.weights = kept.weights.take<float>(plan.count() * plan.filter_parts * kDepth * plan.depth);
  plan.by_cell =
      kept.by_cell.take<float>(shape.conv_groups * plan.filter_parts * plan.cell_rows * kDepth);
  plan.by_filter =
      kept.by_filter.take<float>(plan.cell_parts * shape.conv_groups * plan.filter_rows * kDepth);
  plan.shifts = kept.shifts.take<float>(plan.segments * shape.cells_out() * shape.taps() * 2);
  plan.weight_sums = kept.weight_sums.take<float>(plan.count() * plan.block_weights);
  return plan;
}

void pack_weights(const Plan& plan, const float* weight) {
  const std::int64_t taps = plan.shape.taps();
  const std::int64_t channels = plan.shape.channels / plan.shape.conv_groups;
  parallel_for(plan.count() * plan.filter_parts, [&](std::int64_t task) {
    const DeformableBlock& block = plan.blocks[task / plan.filter_parts];
    const std::int64_t first = task % plan.filter_parts * kDepth;
    const std::int64_t rows = std::min(kDepth, plan.filters - first);
    float* to = plan.weights + task * kDepth * plan.depth;
    if (block.lanes < kDeformableLanes) std::fill(to, to + kDepth * plan.depth, 0.0f);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t filter = block.conv_group * plan.filters + first + r;
      const std::int64_t channel = block.first - block.conv_group * channels;
      const float* from = weight + (filter * channels + channel) * taps;
      for (int lane = 0; lane < block.lanes; ++lane) {
        const int half = lane / kPanelColumns, column = lane % kPanelColumns;
        for (std::int64_t t = 0; t < taps; ++t) {
          to[((t * 2 + half) * kDepth + r) * kPanelColumns + column] = from[lane * taps + t];
        }
      }
    }
  });
}

// Both layouts of the gradient of an image's output.
void pack_output_grad(const Plan& plan, const float* output_grad) {
  const std::int64_t cells = plan.shape.cells_out(), groups = plan.shape.conv_groups;
  const std::int64_t parts = groups * plan.filter_parts;
  parallel_for(parts * plan.cell_parts, [&](std::int64_t task) {
    const std::int64_t part = task / plan.cell_parts, cell = task % plan.cell_parts * kDepth;
    const std::int64_t group = part / plan.filter_parts;
    const std::int64_t first = part % plan.filter_parts * kDepth;
    const float* from = output_grad + (group * plan.filters + first) * cells + cell;
    transpose(from, cells, std::min(kDepth, plan.filters - first), std::min(kDepth, cells - cell),
              plan.by_cell + (part * plan.cell_rows + cell) * kDepth, kDepth);
  });
  parallel_for(plan.cell_parts * groups, [&](std::int64_t task) {
    const std::int64_t cell = task / groups * kDepth, group = task % groups;
    float* to = plan.by_filter + task * plan.filter_rows * kDepth;
    for (std::int64_t f = 0; f < plan.filters; ++f) {
      const float* from = output_grad + (group * plan.filters + f) * cells + cell;
      std::copy(from, from + std::min(kDepth, cells - cell), to + f * kDepth);
    }
  });
}

// Gradients of map and offsets of a block; `columns` holds kRows x depth.
void spread(const Plan& plan, std::int64_t b, float* columns) {
  const DeformableBlock& block = plan.blocks[b];
  const std::int64_t cells = plan.shape.cells_out();
  float* plane_grad = plan.plane_grads + b * plan.plane();
  std::fill(plane_grad, plane_grad + plan.plane(), 0.0f);
  for (std::int64_t first = 0; first < cells; first += kRows) {
    const std::int64_t count = std::min(kRows, cells - first), rows = padded_rows(count);
    std::fill(columns, columns + rows * plan.depth, 0.0f);
    for (std::int64_t part = 0; part < plan.filter_parts; ++part) {
      const std::int64_t of_group = block.conv_group * plan.filter_parts + part;
      add_products({plan.by_cell + (of_group * plan.cell_rows + first) * kDepth, kDepth, rows},
                   {plan.weights + (b * plan.filter_parts + part) * kDepth * plan.depth, kDepth,
                    plan.halves()},
                   std::min(kDepth, plan.filters - part * kDepth), columns, plan.depth);
    }
    spread_block({plan.taps, cells, plan.shape.taps(), first, count, plan.depth, kPanelColumns},
                 block, columns, plan.planes + b * plan.plane(), plane_grad, plan.shifts);
  }
}

// Adds to the gradient of a block's weights; `columns` holds kDepth x depth.
void add_weight_grad(const Plan& plan, std::int64_t b, float* columns) {
  const DeformableBlock& block = plan.blocks[b];
  const std::int64_t cells = plan.shape.cells_out();
  float* sums = plan.weight_sums + b * plan.block_weights;
  for (std::int64_t part = 0; part < plan.cell_parts; ++part) {
    const std::int64_t first = part * kDepth, count = std::min(kDepth, cells - first);
    sample_block(
        {plan.taps, cells, plan.shape.taps(), first, count, kPanelColumns, kDepth * kPanelColumns},
        block, plan.planes + b * plan.plane(), columns);
    const float* grads = plan.by_filter + (part * plan.shape.conv_groups + block.conv_group) *
                                              plan.filter_rows * kDepth;
    for (std::int64_t row = 0; row < plan.filter_rows; row += kRows) {
      add_products({grads + row * kDepth, kDepth, std::min(kRows, plan.filter_rows - row)},
                   {columns, kDepth, plan.halves()}, count, sums + row * plan.depth, plan.depth);
    }
  }
}

void store_offset_grad(const Plan& plan, float* offset_grad) {
  const std::int64_t cells = plan.shape.cells_out(), fields = plan.shape.taps() * 2;
  std::vector<std::vector<std::int64_t>> segments(plan.shape.groups);
  for (const DeformableBlock& block : plan.blocks) {
    for (const DeformableSegment& segment : block.segments) {
      segments[segment.group].push_back(segment.number);
    }
  }
  parallel_for(plan.shape.groups * fields, [&](std::int64_t task) {
    const std::int64_t group = task / fields, field = task % fields;
    float* out = offset_grad + task * cells;
    std::fill(out, out + cells, 0.0f);
    for (const std::int64_t segment : segments[group]) {
      const float* from = plan.shifts + segment * cells * fields + field;
      for (std::int64_t cell = 0; cell < cells; ++cell) out[cell] += from[cell * fields];
    }
  });
}

void store_weight_grad(const Plan& plan, float* weight_grad) {
  const std::int64_t taps = plan.shape.taps();
  const std::int64_t channels = plan.shape.channels / plan.shape.conv_groups;
  parallel_for(plan.count(), [&](std::int64_t b) {
    const DeformableBlock& block = plan.blocks[b];
    for (std::int64_t f = 0; f < plan.filters; ++f) {
      const float* from = plan.weight_sums + b * plan.block_weights + f * plan.depth;
      const std::int64_t filter = block.conv_group * plan.filters + f;
      const std::int64_t channel = block.first - block.conv_group * channels;
      transpose(from, kDeformableLanes, taps, block.lanes,
                weight_grad + (filter * channels + channel) * taps, taps);
    }
  });
}

// Doubles: one number stands for all cells of all images.
void store_bias_grad(const DeformableShape& shape, const float* output_grad, float* bias_grad) {
  const std::int64_t cells = shape.cells_out();
  parallel_for(shape.filters, [&](std::int64_t filter) {
    double sum = 0.0;
    for (std::int64_t image = 0; image < shape.images; ++image) {
      const float* from = output_grad + (image * shape.filters + filter) * cells;
      for (std::int64_t cell = 0; cell < cells; ++cell) sum += from[cell];
    }
    bias_grad[filter] = static_cast<float>(sum);
  });
}

}  // namespace

void deformable_gradients_cpu(const DeformableShape& shape, const float* output_grad,
                              const float* data, const float* offset, const float* weight,
                              float* data_grad, float* offset_grad, float* weight_grad,
                              float* bias_grad) {
  const Plan plan = make_plan(shape);
  const std::int64_t cells = shape.cells_out(), offsets = shape.groups * shape.taps() * 2 * cells;
  const std::int64_t map = shape.channels * shape.cells_in(), tile = kDepth * plan.depth;
  const int threads = thread_count(plan.count());
  float* columns = workspace.columns.take<float>(threads * tile);
  std::fill(plan.weight_sums, plan.weight_sums + plan.count() * plan.block_weights, 0.0f);
  pack_weights(plan, weight);
  for (std::int64_t image = 0; image < shape.images; ++image) {
    pack_planes(shape, plan.blocks, data + image * map, plan.planes);
    locate_taps(shape, offset + image * offsets, plan.taps);
    pack_output_grad(plan, output_grad + image * shape.filters * cells);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (std::int64_t b = 0; b < plan.count(); ++b) {
      float* own = columns + omp_get_thread_num() * tile;
      spread(plan, b, own);
      add_weight_grad(plan, b, own);
    }
    store_offset_grad(plan, offset_grad + image * offsets);
    unpack_planes(shape, plan.blocks, plan.plane_grads, data_grad + image * map);
  }
  store_weight_grad(plan, weight_grad);
  if (bias_grad) store_bias_grad(shape, output_grad, bias_grad);
}

}  // namespace sniper

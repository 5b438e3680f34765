#include <algorithm>

#include "common/isa.h"
#include "common/lanes.h"
#include "common/parallel.h"
#include "deformable_convolution/deformable_samples.h"

namespace sniper {
namespace {

constexpr int kHalf = kDeformableLanes / 2;

// The four cells of a tap and their weights.
struct Corners {
  std::int64_t cell[4];  // upper left, upper right, lower left, lower right
  float weight[4];
};

SNIPER_ALWAYS_INLINE Corners corners_of(const DeformableTap& tap) {
  const float up = 1.0f - tap.y, left = 1.0f - tap.x;
  const std::int64_t cell = tap.cell;
  return {{cell, cell + tap.right, cell + tap.below, cell + tap.below + tap.right},
          {up * left, up * tap.x, tap.y * left, tap.y * tap.x}};
}

// Lanes begin..end-1, one by one, of which a half has `half_stride` floats to the next.
SNIPER_ALWAYS_INLINE void sample_lanes(const Corners& corners, int begin, int end,
                                       const float* plane, std::int64_t half_stride, float* out) {
  for (int lane = begin; lane < end; ++lane) {
    float sum = 0.0f;
    for (int i = 0; i < 4; ++i) {
      const float part = corners.weight[i] * plane[corners.cell[i] * kDeformableLanes + lane];
      sum = i == 0 ? part : sum + part;
    }
    out[lane / kHalf * half_stride + lane % kHalf] = sum;
  }
}

SNIPER_ALWAYS_INLINE void sample_whole(const Corners& corners, const float* plane,
                                       std::int64_t half_stride, float* out) {
  const float* at[4];
  for (int i = 0; i < 4; ++i) at[i] = plane + corners.cell[i] * kDeformableLanes;
  for (int half = 0; half < 2; ++half) {
    float* to = out + half * half_stride;
#pragma omp simd
    for (int i = 0; i < kHalf; ++i) {
      const int lane = half * kHalf + i;
      to[i] = corners.weight[0] * at[0][lane] + corners.weight[1] * at[1][lane] +
              corners.weight[2] * at[2][lane] + corners.weight[3] * at[3][lane];
    }
  }
}

SNIPER_ALWAYS_INLINE void sample_segment(const DeformableSamples& samples,
                                         const DeformableSegment& segment, const float* plane,
                                         float* out) {
  const bool whole = segment.begin == 0 && segment.end == kDeformableLanes;
  const DeformableTap* taps =
      samples.taps + (segment.group * samples.cells_out + samples.first) * samples.taps_per_cell;
  for (std::int64_t cell = 0; cell < samples.count; ++cell) {
    for (std::int64_t t = 0; t < samples.taps_per_cell; ++t) {
      const DeformableTap& tap = taps[cell * samples.taps_per_cell + t];
      float* to = out + cell * samples.cell_stride + t * 2 * samples.half_stride;
      if (tap.cell < 0) {
        for (int lane = segment.begin; lane < segment.end; ++lane) {
          to[lane / kHalf * samples.half_stride + lane % kHalf] = 0.0f;
        }
      } else if (whole) {
        sample_whole(corners_of(tap), plane, samples.half_stride, to);
      } else {
        sample_lanes(corners_of(tap), segment.begin, segment.end, plane, samples.half_stride, to);
      }
    }
  }
}

// Sum of the lanes, halves upon halves.
SNIPER_ALWAYS_INLINE float total(float* lanes) {
  for (int width = kDeformableLanes / 2; width > 0; width /= 2) {
#pragma omp simd
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// Adds to the gradient of the map; the gradients of y and x go to `offset_grad`.
SNIPER_ALWAYS_INLINE void spread_whole(const DeformableTap& tap, const float* grad,
                                       const float* plane, float* plane_grad, float* offset_grad) {
  const Corners corners = corners_of(tap);
  const float up = 1.0f - tap.y, left = 1.0f - tap.x;
  const float* at[4];
  for (int i = 0; i < 4; ++i) {
    const std::int64_t place = corners.cell[i] * kDeformableLanes;
    at[i] = plane + place;
    float* to = plane_grad + place;
#pragma omp simd
    for (int lane = 0; lane < kDeformableLanes; ++lane) to[lane] += corners.weight[i] * grad[lane];
  }
  float along_y[kDeformableLanes], along_x[kDeformableLanes];
#pragma omp simd
  for (int lane = 0; lane < kDeformableLanes; ++lane) {
    const float a = at[0][lane], b = at[1][lane], c = at[2][lane], d = at[3][lane];
    along_y[lane] = (left * (c - a) + tap.x * (d - b)) * grad[lane];
    along_x[lane] = (up * (b - a) + tap.y * (d - c)) * grad[lane];
  }
  offset_grad[0] = total(along_y);
  offset_grad[1] = total(along_x);
}

SNIPER_ALWAYS_INLINE void spread_lanes(const DeformableTap& tap, int begin, int end,
                                       const float* grad, const float* plane, float* plane_grad,
                                       float* offset_grad) {
  const Corners corners = corners_of(tap);
  float along_y = 0.0f, along_x = 0.0f;
  for (int lane = begin; lane < end; ++lane) {
    const float value = grad[lane];
    float at[4];
    for (int i = 0; i < 4; ++i) {
      const std::int64_t place = corners.cell[i] * kDeformableLanes + lane;
      plane_grad[place] += corners.weight[i] * value;
      at[i] = plane[place];
    }
    along_y += ((1.0f - tap.x) * (at[2] - at[0]) + tap.x * (at[3] - at[1])) * value;
    along_x += ((1.0f - tap.y) * (at[1] - at[0]) + tap.y * (at[3] - at[2])) * value;
  }
  offset_grad[0] = along_y;
  offset_grad[1] = along_x;
}

SNIPER_ALWAYS_INLINE void spread_segment(const DeformableSamples& samples,
                                         const DeformableSegment& segment, const float* grad,
                                         const float* plane, float* plane_grad,
                                         float* offset_grad) {
  const bool whole = segment.begin == 0 && segment.end == kDeformableLanes;
  const std::int64_t taps_per_cell = samples.taps_per_cell;
  const DeformableTap* taps =
      samples.taps + (segment.group * samples.cells_out + samples.first) * taps_per_cell;
  float* shifts =
      offset_grad + (segment.number * samples.cells_out + samples.first) * taps_per_cell * 2;
  for (std::int64_t i = 0; i < samples.count * taps_per_cell; ++i) {
    const DeformableTap& tap = taps[i];
    const float* from = grad + i * kDeformableLanes;
    float* shift = shifts + i * 2;
    if (tap.cell < 0) {
      shift[0] = shift[1] = 0.0f;
    } else if (whole) {
      spread_whole(tap, from, plane, plane_grad, shift);
    } else {
      spread_lanes(tap, segment.begin, segment.end, from, plane, plane_grad, shift);
    }
  }
}

}  // namespace

std::vector<DeformableBlock> deformable_blocks(const DeformableShape& shape) {
  std::vector<DeformableBlock> blocks;
  const std::int64_t of_conv_group = shape.channels / shape.conv_groups;
  const std::int64_t of_group = shape.channels / shape.groups;
  std::int64_t segments = 0;
  for (std::int64_t channel = 0; channel < shape.channels;) {
    DeformableBlock block{channel, 0, channel / of_conv_group, {}};
    const std::int64_t end =
        std::min(channel + kDeformableLanes, (block.conv_group + 1) * of_conv_group);
    while (channel < end) {
      const std::int64_t group = channel / of_group;
      const std::int64_t stop = std::min(end, (group + 1) * of_group);
      block.segments.push_back({static_cast<int>(channel - block.first),
                                static_cast<int>(stop - block.first), group, segments++});
      channel = stop;
    }
    block.lanes = static_cast<int>(end - block.first);
    blocks.push_back(block);
  }
  return blocks;
}

void pack_planes(const DeformableShape& shape, const std::vector<DeformableBlock>& blocks,
                 const float* map, float* planes) {
  const std::int64_t cells = shape.cells_in();
  parallel_for(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b) {
    pack_rows(map + blocks[b].first * cells, cells, blocks[b].lanes, cells, kDeformableLanes,
              planes + b * cells * kDeformableLanes);
  });
}

void unpack_planes(const DeformableShape& shape, const std::vector<DeformableBlock>& blocks,
                   const float* planes, float* map) {
  const std::int64_t cells = shape.cells_in();
  parallel_for(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b) {
    unpack_rows(planes + b * cells * kDeformableLanes, cells, kDeformableLanes, blocks[b].lanes,
                cells, map + blocks[b].first * cells);
  });
}

void locate_taps(const DeformableShape& shape, const float* offset, DeformableTap* taps) {
  const std::int64_t cells = shape.cells_out(), taps_per_cell = shape.taps();
  parallel_for(shape.groups * shape.y.out, [&](std::int64_t task) {
    const std::int64_t group = task / shape.y.out, row = task % shape.y.out;
    const float* field = offset + group * taps_per_cell * 2 * cells;
    for (std::int64_t column = 0; column < shape.x.out; ++column) {
      const std::int64_t cell = row * shape.x.out + column;
      for (std::int64_t t = 0; t < taps_per_cell; ++t) {
        const float* shift = field + t * 2 * cells + cell;
        const DeformablePlace y = deformable_place(shape.y, row, t / shape.x.kernel, shift[0]);
        const DeformablePlace x =
            deformable_place(shape.x, column, t % shape.x.kernel, shift[cells]);
        DeformableTap& tap = taps[(group * cells + cell) * taps_per_cell + t];
        if (y.low < 0 || x.low < 0) {
          tap = {-1, 0, 0, 0.0f, 0.0f};
        } else {
          const auto width = static_cast<std::int32_t>(shape.x.in);
          tap = {y.low * width + x.low, x.step, y.step * width, y.fraction, x.fraction};
        }
      }
    }
  });
}

void sample_block(const DeformableSamples& samples, const DeformableBlock& block,
                  const float* plane, float* out) {
  for (const DeformableSegment& segment : block.segments) {
    per_isa<sample_segment>(samples, segment, plane, out);
  }
  if (block.lanes == kDeformableLanes) return;
  // Lanes without channels: their weights are 0, but what was in memory may not be finite.
  for (std::int64_t cell = 0; cell < samples.count; ++cell) {
    for (std::int64_t t = 0; t < samples.taps_per_cell; ++t) {
      float* to = out + cell * samples.cell_stride + t * 2 * samples.half_stride;
      for (int lane = block.lanes; lane < kDeformableLanes; ++lane) {
        to[lane / kHalf * samples.half_stride + lane % kHalf] = 0.0f;
      }
    }
  }
}

void spread_block(const DeformableSamples& samples, const DeformableBlock& block, const float* grad,
                  const float* plane, float* plane_grad, float* offset_grad) {
  for (const DeformableSegment& segment : block.segments) {
    per_isa<spread_segment>(samples, segment, grad, plane, plane_grad, offset_grad);
  }
}

}  // namespace sniper

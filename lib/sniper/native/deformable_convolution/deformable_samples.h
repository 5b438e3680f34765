// Where the taps of deformable convolution read, and its inner loops.
//
// Channels lie in blocks of 32, [block][y][x][lane], so that a tap reads and adds whole vectors,
// and the plane of a block stays in the cache. A block of the columns has `taps x 32` of them.
#ifndef SNIPER_NATIVE_DEFORMABLE_CONVOLUTION_DEFORMABLE_SAMPLES_H_
#define SNIPER_NATIVE_DEFORMABLE_CONVOLUTION_DEFORMABLE_SAMPLES_H_

#include <cstdint>
#include <vector>

#include "deformable_convolution/deformable_convolution.h"

namespace sniper {

constexpr int kDeformableLanes = 32;

// Four cells around a sample and its place between them.
struct DeformableTap {
  std::int32_t cell;          // upper left; -1: the sample is outside of the map
  std::int32_t right, below;  // cells from there to the neighbours, 0 at the last column or row
  float y, x;                 // from there to the sample, in cells
};

// Lanes [begin, end) of a block, which share their offsets.
struct DeformableSegment {
  int begin, end;
  std::int64_t group;   // of the offsets
  std::int64_t number;  // counted over all blocks
};

// At most 32 channels of one convolution group.
struct DeformableBlock {
  std::int64_t first;  // channel
  int lanes;           // channels; the other lanes are 0
  std::int64_t conv_group;
  std::vector<DeformableSegment> segments;
};

std::vector<DeformableBlock> deformable_blocks(const DeformableShape& shape);

// The map of an image, [channel][cell], as planes [block][cell][lane]; and back.
void pack_planes(const DeformableShape& shape, const std::vector<DeformableBlock>& blocks,
                 const float* map, float* planes);
void unpack_planes(const DeformableShape& shape, const std::vector<DeformableBlock>& blocks,
                   const float* planes, float* map);

// The taps of an image: taps[(group * cells_out + cell) * taps() + tap].
void locate_taps(const DeformableShape& shape, const float* offset, DeformableTap* taps);

// Samples of `count` cells from `first` on, in halves of 16 lanes:
// out[cell * cell_stride + (tap * 2 + half) * half_stride + lane].
struct DeformableSamples {
  const DeformableTap* taps;
  std::int64_t cells_out, taps_per_cell, first, count;
  std::int64_t cell_stride, half_stride;
};

// `plane`: the map of a block, [cell][lane].
void sample_block(const DeformableSamples& samples, const DeformableBlock& block,
                  const float* plane, float* out);

// The other way: adds the gradients of the samples, `grad` as `out` above with cell_stride 32 x
// taps and half_stride 16, to `plane_grad`, and writes those of the offsets of each segment:
// offset_grad[((segment number * cells_out) + cell) * taps * 2 + tap * 2 + (0: y, 1: x)].
void spread_block(const DeformableSamples& samples, const DeformableBlock& block, const float* grad,
                  const float* plane, float* plane_grad, float* offset_grad);

}  // namespace sniper

#endif  // SNIPER_NATIVE_DEFORMABLE_CONVOLUTION_DEFORMABLE_SAMPLES_H_

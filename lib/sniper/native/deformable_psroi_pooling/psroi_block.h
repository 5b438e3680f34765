// One RoI and one block of channels: the inner loops of deformable PSROI pooling on the CPU.
#ifndef SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_BLOCK_H_
#define SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_BLOCK_H_

#include <cstdint>

#include "deformable_psroi_pooling/deformable_psroi_pooling.h"

namespace sniper {

// Channels of a block: wide ones for speed, narrow ones where a class has few channels.
constexpr int kPsRoiWideLanes = 64;
constexpr int kPsRoiNarrowLanes = 16;

// What the inner kernels need of one RoI, class and block.
struct PsRoiBins {
  const PsRoiBin* bins;
  const PsRoiTap* taps;
  int64_t bin_count, taps_per_axis, plane, width;
};

// Pools every bin from `map` ([group][y][x][lane]) into `tile` ([bin][lane]).
void psroi_pool_wide(const PsRoiBins& roi, const float* map, float* tile);
void psroi_pool_narrow(const PsRoiBins& roi, const float* map, float* tile);

// Adds the bins' gradients (`tile`) to `map_grad`; when `shift_grad` is not null, writes the
// derivatives of each bin with respect to its x and y, summed over the lanes, from `map`.
void psroi_spread_wide(const PsRoiBins& roi, const float* tile, const float* map, float* map_grad,
                       float* shift_grad);
void psroi_spread_narrow(const PsRoiBins& roi, const float* tile, const float* map, float* map_grad,
                         float* shift_grad);

}  // namespace sniper

#endif  // SNIPER_NATIVE_DEFORMABLE_PSROI_POOLING_PSROI_BLOCK_H_

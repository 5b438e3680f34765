#include "common/isa.h"
#include "common/simd.h"
#include "deformable_psroi_pooling/psroi_block.h"

namespace sniper {
namespace {

// Lanes over which products are summed side by side, whatever the width of the registers.
constexpr int kSums = 16;

// `kLanes` is the width of a register, `kWide` the channels of a block.
template <int kLanes, int kWide>
SNIPER_ALWAYS_INLINE void pool_bins(const PsRoiBins& roi, const float* map, float* tile) {
  typedef Simd<kLanes> Lanes;
  constexpr int kVectors = kWide / kLanes;
  for (int64_t b = 0; b < roi.bin_count; ++b) {
    const PsRoiBin& bin = roi.bins[b];
    const PsRoiTap* xs = roi.taps + b * 2 * roi.taps_per_axis;
    const PsRoiTap* ys = xs + roi.taps_per_axis;
    const float* plane = map + bin.group * roi.plane;
    typename Lanes::Floats sum[kVectors] = {};
    for (int i = 0; i < bin.taps_y; ++i) {
      const float* line = plane + ys[i].index * roi.width * kWide;
      for (int j = 0; j < bin.taps_x; ++j) {
        const float weight = ys[i].weight * xs[j].weight;
        const float* pixel = line + static_cast<int64_t>(xs[j].index) * kWide;
        for (int v = 0; v < kVectors; ++v) sum[v] += weight * Lanes::load(pixel + v * kLanes);
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      Lanes::store(tile + b * kWide + v * kLanes, sum[v] * bin.inverse_count);
    }
  }
}

// Sum of kSums lanes in their order.
template <int kLanes>
SNIPER_ALWAYS_INLINE float sum_in_order(const typename Simd<kLanes>::Floats* sums) {
  float total = 0.0f;
  for (int lane = 0; lane < kSums; ++lane) total += sums[lane / kLanes][lane % kLanes];
  return total;
}

template <int kLanes, int kWide>
SNIPER_ALWAYS_INLINE void spread_bins(const PsRoiBins& roi, const float* tile, const float* map,
                                      float* map_grad, float* shift_grad) {
  typedef Simd<kLanes> Lanes;
  typedef typename Lanes::Floats Floats;
  constexpr int kVectors = kWide / kLanes, kParts = kSums / kLanes;
  for (int64_t b = 0; b < roi.bin_count; ++b) {
    const PsRoiBin& bin = roi.bins[b];
    const PsRoiTap* xs = roi.taps + b * 2 * roi.taps_per_axis;
    const PsRoiTap* ys = xs + roi.taps_per_axis;
    const int64_t plane = bin.group * roi.plane;
    Floats grad[kVectors], along_x[kParts] = {}, along_y[kParts] = {};
    for (int v = 0; v < kVectors; ++v) {
      grad[v] = Lanes::load(tile + b * kWide + v * kLanes) * bin.inverse_count;
    }
    for (int i = 0; i < bin.taps_y; ++i) {
      for (int j = 0; j < bin.taps_x; ++j) {
        const int64_t pixel = plane + (ys[i].index * roi.width + xs[j].index) * kWide;
        const float weight = ys[i].weight * xs[j].weight;
        for (int v = 0; v < kVectors; ++v) {
          float* to = map_grad + pixel + v * kLanes;
          Lanes::store(to, Lanes::load(to) + weight * grad[v]);
        }
        if (!shift_grad) continue;
        // What the pixel contributes, before its slopes: they are the same for all channels.
        Floats products[kParts] = {};
        for (int v = 0; v < kVectors; ++v) {
          products[v % kParts] += Lanes::load(map + pixel + v * kLanes) * grad[v];
        }
        const float slope_x = ys[i].weight * xs[j].slope;
        const float slope_y = ys[i].slope * xs[j].weight;
        for (int part = 0; part < kParts; ++part) {
          along_x[part] += slope_x * products[part];
          along_y[part] += slope_y * products[part];
        }
      }
    }
    if (!shift_grad) continue;
    shift_grad[b * 2] = sum_in_order<kLanes>(along_x);
    shift_grad[b * 2 + 1] = sum_in_order<kLanes>(along_y);
  }
}

template <int kWide>
constexpr auto& kPool = per_isa<pool_bins<4, kWide>, pool_bins<8, kWide>, pool_bins<16, kWide>>;

template <int kWide>
constexpr auto& kSpread =
    per_isa<spread_bins<4, kWide>, spread_bins<8, kWide>, spread_bins<16, kWide>>;

}  // namespace

void psroi_pool_wide(const PsRoiBins& roi, const float* map, float* tile) {
  kPool<kPsRoiWideLanes>(roi, map, tile);
}

void psroi_pool_narrow(const PsRoiBins& roi, const float* map, float* tile) {
  kPool<kPsRoiNarrowLanes>(roi, map, tile);
}

void psroi_spread_wide(const PsRoiBins& roi, const float* tile, const float* map, float* map_grad,
                       float* shift_grad) {
  kSpread<kPsRoiWideLanes>(roi, tile, map, map_grad, shift_grad);
}

void psroi_spread_narrow(const PsRoiBins& roi, const float* tile, const float* map, float* map_grad,
                         float* shift_grad) {
  kSpread<kPsRoiNarrowLanes>(roi, tile, map, map_grad, shift_grad);
}

}  // namespace sniper

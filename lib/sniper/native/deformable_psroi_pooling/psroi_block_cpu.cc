#include "common/isa.h"
#include "deformable_psroi_pooling/psroi_block.h"

namespace sniper {
namespace {

// 16 floats: one AVX-512 register, two AVX2 or four SSE registers. The types are unaligned.
constexpr int kVector = 16;
typedef float Vector __attribute__((vector_size(kVector * 4), aligned(4), may_alias));

template <int kVectors>
SNIPER_ALWAYS_INLINE void pool_bins(const PsRoiBins& roi, const float* map, float* tile) {
  constexpr int kLanes = kVectors * kVector;
  for (int64_t b = 0; b < roi.bin_count; ++b) {
    const PsRoiBin& bin = roi.bins[b];
    const PsRoiTap* xs = roi.taps + b * 2 * roi.taps_per_axis;
    const PsRoiTap* ys = xs + roi.taps_per_axis;
    const float* plane = map + bin.group * roi.plane;
    Vector sum[kVectors] = {};
    for (int i = 0; i < bin.taps_y; ++i) {
      const float* line = plane + ys[i].index * roi.width * kLanes;
      for (int j = 0; j < bin.taps_x; ++j) {
        const float weight = ys[i].weight * xs[j].weight;
        const float* pixel = line + static_cast<int64_t>(xs[j].index) * kLanes;
        for (int v = 0; v < kVectors; ++v) {
          sum[v] += weight * *reinterpret_cast<const Vector*>(pixel + v * kVector);
        }
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      *reinterpret_cast<Vector*>(tile + b * kLanes + v * kVector) = sum[v] * bin.inverse_count;
    }
  }
}

// Sum of the products in a fixed order.
template <int kVectors>
SNIPER_ALWAYS_INLINE float dot(const Vector* a, const Vector* b) {
  Vector sum = a[0] * b[0];
  for (int v = 1; v < kVectors; ++v) sum += a[v] * b[v];
  float total = 0.0f;
  for (int lane = 0; lane < kVector; ++lane) total += sum[lane];
  return total;
}

template <int kVectors>
SNIPER_ALWAYS_INLINE void spread_bins(const PsRoiBins& roi, const float* tile, const float* map,
                                      float* map_grad, float* shift_grad) {
  constexpr int kLanes = kVectors * kVector;
  for (int64_t b = 0; b < roi.bin_count; ++b) {
    const PsRoiBin& bin = roi.bins[b];
    const PsRoiTap* xs = roi.taps + b * 2 * roi.taps_per_axis;
    const PsRoiTap* ys = xs + roi.taps_per_axis;
    const int64_t plane = bin.group * roi.plane;
    Vector grad[kVectors], along_x[kVectors] = {}, along_y[kVectors] = {};
    for (int v = 0; v < kVectors; ++v) {
      grad[v] =
          *reinterpret_cast<const Vector*>(tile + b * kLanes + v * kVector) * bin.inverse_count;
    }
    for (int i = 0; i < bin.taps_y; ++i) {
      for (int j = 0; j < bin.taps_x; ++j) {
        const int64_t pixel = plane + (ys[i].index * roi.width + xs[j].index) * kLanes;
        const float weight = ys[i].weight * xs[j].weight;
        for (int v = 0; v < kVectors; ++v) {
          *reinterpret_cast<Vector*>(map_grad + pixel + v * kVector) += weight * grad[v];
        }
        if (!shift_grad) continue;
        const float slope_x = ys[i].weight * xs[j].slope;
        const float slope_y = ys[i].slope * xs[j].weight;
        for (int v = 0; v < kVectors; ++v) {
          const Vector value = *reinterpret_cast<const Vector*>(map + pixel + v * kVector);
          along_x[v] += slope_x * value;
          along_y[v] += slope_y * value;
        }
      }
    }
    if (!shift_grad) continue;
    shift_grad[b * 2] = dot<kVectors>(along_x, grad);
    shift_grad[b * 2 + 1] = dot<kVectors>(along_y, grad);
  }
}

}  // namespace

void psroi_pool_wide(const PsRoiBins& roi, const float* map, float* tile) {
  per_isa<pool_bins<kPsRoiWideLanes / kVector>>(roi, map, tile);
}

void psroi_pool_narrow(const PsRoiBins& roi, const float* map, float* tile) {
  per_isa<pool_bins<kPsRoiNarrowLanes / kVector>>(roi, map, tile);
}

void psroi_spread_wide(const PsRoiBins& roi, const float* tile, const float* map, float* map_grad,
                       float* shift_grad) {
  per_isa<spread_bins<kPsRoiWideLanes / kVector>>(roi, tile, map, map_grad, shift_grad);
}

void psroi_spread_narrow(const PsRoiBins& roi, const float* tile, const float* map, float* map_grad,
                         float* shift_grad) {
  per_isa<spread_bins<kPsRoiNarrowLanes / kVector>>(roi, tile, map, map_grad, shift_grad);
}

}  // namespace sniper

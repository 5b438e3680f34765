// Maps of squares for the gradients, and what moves tiles in and out of maps. Names of matrices are
// those of Lavin and Gray (2016): output = A^T [(G weight G^T) * (B^T data B)] A.
#ifndef SNIPER_NATIVE_WINOGRAD_CONVOLUTION_WINOGRAD_TILES_H_
#define SNIPER_NATIVE_WINOGRAD_CONVOLUTION_WINOGRAD_TILES_H_

#include <algorithm>
#include <cstdint>

#include "common/isa.h"
#include "common/macros.h"
#include "common/simd.h"
#include "winograd_convolution/winograd_transforms.h"

namespace sniper {

constexpr int kWinogradTaps = 3;
constexpr int kSquaresAtOnce = 16;  // of tiles, channels or filters

// B^T: cells of the map to points.
struct DataToPoints {
  static constexpr int kIn = kWinogradPatch, kOut = kWinogradPatch;
  template <class V>
  static SNIPER_ALWAYS_INLINE void apply(const V (&d)[kIn], V (&t)[kOut]) {
    winograd_patch(d, t);
  }
};

// G: taps to points.
struct WeightToPoints {
  static constexpr int kIn = kWinogradTaps, kOut = kWinogradPatch;
  template <class V>
  static SNIPER_ALWAYS_INLINE void apply(const V (&g)[kIn], V (&u)[kOut]) {
    winograd_filter(g, u);
  }
};

// B: gradients of points to gradients of cells.
struct PointsToData {
  static constexpr int kIn = kWinogradPatch, kOut = kWinogradPatch;
  template <class V>
  static SNIPER_ALWAYS_INLINE void apply(const V (&t)[kIn], V (&d)[kOut]) {
    const V sum = t[1] + t[2], difference = t[2] - t[1];
    const V sum2 = t[3] + t[4], difference2 = 2.0f * (t[4] - t[3]);
    d[0] = 4.0f * t[0];
    d[1] = 4.0f * (difference + t[5]) + difference2;
    d[2] = -5.0f * t[0] - 4.0f * sum - sum2;
    d[3] = -difference - difference2 - 5.0f * t[5];
    d[4] = t[0] + sum + sum2;
    d[5] = t[5];
  }
};

// G^T: gradients of points to gradients of taps.
struct PointsToWeight {
  static constexpr int kIn = kWinogradPatch, kOut = kWinogradTaps;
  template <class V>
  static SNIPER_ALWAYS_INLINE void apply(const V (&u)[kIn], V (&g)[kOut]) {
    const V sum = (u[1] + u[2]) * (1.0f / 6), sum2 = u[3] + u[4];
    g[0] = u[0] * 0.25f - sum + sum2 * (1.0f / 24);
    g[1] = (u[2] - u[1]) * (1.0f / 6) + (u[3] - u[4]) * (1.0f / 12);
    g[2] = sum2 * (1.0f / 6) - sum + u[5];
  }
};

// A: gradients of cells of the output to gradients of points.
struct OutputToPoints {
  static constexpr int kIn = kWinogradTile, kOut = kWinogradPatch;
  template <class V>
  static SNIPER_ALWAYS_INLINE void apply(const V (&y)[kIn], V (&m)[kOut]) {
    const V even = y[0] + y[2], odd = y[1] + y[3];
    const V even2 = y[0] + 4.0f * y[2], odd2 = 2.0f * y[1] + 8.0f * y[3];
    m[0] = y[0];
    m[1] = even + odd;
    m[2] = even - odd;
    m[3] = even2 + odd2;
    m[4] = even2 - odd2;
    m[5] = y[3];
  }
};

template <class Map, int kLanes>
SNIPER_ALWAYS_INLINE void map_squares(const float* in, std::int64_t in_stride, float* out,
                                      std::int64_t out_stride) {
  using Vectors = Simd<kLanes>;
  for (int lane = 0; lane < kSquaresAtOnce; lane += kLanes) {
    typename Vectors::Floats line[Map::kIn], mapped[Map::kOut], columns[Map::kOut][Map::kIn];
    for (int x = 0; x < Map::kIn; ++x) {
      for (int y = 0; y < Map::kIn; ++y) {
        line[y] = Vectors::load(in + (y * Map::kIn + x) * in_stride + lane);
      }
      Map::apply(line, mapped);
      for (int y = 0; y < Map::kOut; ++y) columns[y][x] = mapped[y];
    }
    for (int y = 0; y < Map::kOut; ++y) {
      Map::apply(columns[y], mapped);
      for (int x = 0; x < Map::kOut; ++x) {
        Vectors::store(out + (y * Map::kOut + x) * out_stride + lane, mapped[x]);
      }
    }
  }
}

// Map X Map^T for kSquaresAtOnce squares X: cell (y, x) of them is at in[(y * kIn + x) *
// in_stride].
template <class Map>
inline void map_16_squares(const float* in, std::int64_t in_stride, float* out,
                           std::int64_t out_stride) {
  per_isa<map_squares<Map, 4>, map_squares<Map, 8>, map_squares<Map, 16>>(in, in_stride, out,
                                                                          out_stride);
}

// A square of cells whose first one is (y, x), possibly beyond the map, and the part on the map.
struct TileWindow {
  std::int64_t y, x;
  int top, bottom, left, right;

  TileWindow(std::int64_t y, std::int64_t x, int side, std::int64_t height, std::int64_t width)
      : y(y),
        x(x),
        top(clamped(-y, side)),
        bottom(clamped(height - y, side)),
        left(clamped(-x, side)),
        right(clamped(width - x, side)) {}

 private:
  static int clamped(std::int64_t value, int side) {
    return static_cast<int>(std::min<std::int64_t>(std::max<std::int64_t>(value, 0), side));
  }
};

// to[(y * kSide + x) * kSquaresAtOnce] = the cell, where it is on the map.
template <int kSide>
inline void read_tile(const TileWindow& window, const float* plane, std::int64_t width, float* to) {
  const float* from = plane + window.y * width + window.x;
  if (window.top == 0 && window.left == 0 && window.bottom == kSide && window.right == kSide) {
    for (int y = 0; y < kSide; ++y) {
      for (int x = 0; x < kSide; ++x) to[(y * kSide + x) * kSquaresAtOnce] = from[y * width + x];
    }
    return;
  }
  for (int y = window.top; y < window.bottom; ++y) {
    for (int x = window.left; x < window.right; ++x) {
      to[(y * kSide + x) * kSquaresAtOnce] = from[y * width + x];
    }
  }
}

// Adds the cells that are on the map.
template <int kSide>
inline void add_tile(const TileWindow& window, const float* from, float* plane,
                     std::int64_t width) {
  float* to = plane + window.y * width + window.x;
  for (int y = window.top; y < window.bottom; ++y) {
    for (int x = window.left; x < window.right; ++x) {
      to[y * width + x] += from[(y * kSide + x) * kSquaresAtOnce];
    }
  }
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_WINOGRAD_CONVOLUTION_WINOGRAD_TILES_H_

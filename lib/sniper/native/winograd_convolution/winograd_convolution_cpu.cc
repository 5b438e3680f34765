// A pass takes a block of tiles. Per chunk of channels it transforms the patches under them; then,
// per chunk of filters, the weights, which stay in the L3 cache, and adds 36 products of matrices
// (tiles x channels times channels x filters) to the sums. These become the output at last.
// Weights are transformed in every call: kept, they would be four times as large as they are.

#include <omp.h>

#include <algorithm>

#include "common/isa.h"
#include "common/lanes.h"
#include "common/panels.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/simd.h"
#include "winograd_convolution/winograd_convolution.h"
#include "winograd_convolution/winograd_transforms.h"

namespace sniper {
namespace {

constexpr std::int64_t kLanes = kPanelColumns;  // channels or filters side by side
constexpr std::int64_t kChannels = 192;         // of a chunk at most
constexpr std::int64_t kFilters = 128;          // of a chunk
constexpr std::int64_t kWeightChannels = 32;    // of a task that transforms weights
constexpr std::int64_t kProductRows = 96;       // of a task that multiplies
// Floats of patches and sums of a block of tiles: of one chunk of channels, and of several, where
// each block transforms all weights anew.
constexpr std::int64_t kBlockFloats = 1 << 20;
constexpr std::int64_t kLargeBlockFloats = 1 << 24;
constexpr std::int64_t kTilesAtOnce = 8;  // of a row of tiles, side by side, in the transforms

struct Workspace {
  KeptArray patches, weights, sums, strips;
};

thread_local Workspace workspace;

template <int kWide>
SNIPER_ALWAYS_INLINE typename Simd<kWide>::Floats load(const float* from) {
  return Simd<kWide>::load(from);
}

// ---- Transforms of vectors of kLanes floats ----------------------------------------------------

// Tiles side by side: `cells` holds 6 rows of `width` cells, of which a tile has 6 and the next one
// begins 4 further. Number p of tile t goes to out + p * pitch + t * row.
template <int kWide>
SNIPER_ALWAYS_INLINE void patches_of_strip(const float* cells, std::int64_t width,
                                           std::int64_t tiles, float* out, std::int64_t pitch,
                                           std::int64_t row) {
  typedef typename Simd<kWide>::Floats Floats;
  for (std::int64_t t = 0; t < tiles; ++t) {
    for (int lane = 0; lane < kLanes; lane += kWide) {
      const float* from = cells + t * kWinogradTile * kLanes + lane;
      Floats columns[6][6];  // [x][p along y]
      for (int x = 0; x < 6; ++x) {
        Floats in[6];
        for (int y = 0; y < 6; ++y) in[y] = load<kWide>(from + (y * width + x) * kLanes);
        winograd_patch(in, columns[x]);
      }
      for (int y = 0; y < 6; ++y) {
        Floats in[6], transformed[6];
        for (int x = 0; x < 6; ++x) in[x] = columns[x][y];
        winograd_patch(in, transformed);
        for (int x = 0; x < 6; ++x) {
          Simd<kWide>::store(out + (y * 6 + x) * pitch + t * row + lane, transformed[x]);
        }
      }
    }
  }
}

// Filters of a panel, for `channels`: cells[channel * 9 + tap], vectors of filters. Number p of a
// channel goes to out + p * pitch + channel * kLanes.
template <int kWide>
SNIPER_ALWAYS_INLINE void filters_of_panel(const float* cells, std::int64_t channels, float* out,
                                           std::int64_t pitch) {
  typedef typename Simd<kWide>::Floats Floats;
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (int lane = 0; lane < kLanes; lane += kWide) {
      const float* from = cells + channel * 9 * kLanes + lane;
      Floats columns[3][6];
      for (int x = 0; x < 3; ++x) {
        Floats in[3];
        for (int y = 0; y < 3; ++y) in[y] = load<kWide>(from + (y * 3 + x) * kLanes);
        winograd_filter(in, columns[x]);
      }
      for (int y = 0; y < 6; ++y) {
        Floats in[3], transformed[6];
        for (int x = 0; x < 3; ++x) in[x] = columns[x][y];
        winograd_filter(in, transformed);
        for (int x = 0; x < 6; ++x) {
          Simd<kWide>::store(out + (y * 6 + x) * pitch + channel * kLanes + lane, transformed[x]);
        }
      }
    }
  }
}

// The inverse way: 36 numbers of each tile become 4x4 cells in 4 rows of `width`.
template <int kWide>
SNIPER_ALWAYS_INLINE void tiles_of_strip(const float* sums, std::int64_t pitch, std::int64_t row,
                                         std::int64_t tiles, const float* bias, bool relu,
                                         float* cells, std::int64_t width) {
  typedef typename Simd<kWide>::Floats Floats;
  for (std::int64_t t = 0; t < tiles; ++t) {
    for (int lane = 0; lane < kLanes; lane += kWide) {
      const float* from = sums + t * row + lane;
      const Floats shift = load<kWide>(bias + lane);
      Floats columns[6][4];
      for (int x = 0; x < 6; ++x) {
        Floats in[6];
        for (int y = 0; y < 6; ++y) in[y] = load<kWide>(from + (y * 6 + x) * pitch);
        winograd_tile(in, columns[x]);
      }
      for (int y = 0; y < 4; ++y) {
        Floats in[6], transformed[4];
        for (int x = 0; x < 6; ++x) in[x] = columns[x][y];
        winograd_tile(in, transformed);
        for (int x = 0; x < 4; ++x) {
          Floats value = transformed[x] + shift;
          // NaN stays, as in MXNet's.
          if (relu) value = value < 0.0f ? Floats{} : value;
          Simd<kWide>::store(cells + (y * width + t * kWinogradTile + x) * kLanes + lane, value);
        }
      }
    }
  }
}

// ---- The convolution ---------------------------------------------------------------------------

struct Span {
  std::int64_t first, count;
};

// Number `number` of the parts of `size` things, `step` each.
Span part(std::int64_t number, std::int64_t step, std::int64_t size) {
  return {number * step, std::min(step, size - number * step)};
}

std::int64_t parts(std::int64_t size, std::int64_t step) { return (size + step - 1) / step; }

class Convolution {
 public:
  Convolution(const WinogradShape& shape, const float* data, const float* weight, const float* bias,
              float* output)
      : shape_(shape),
        data_(data),
        weight_(weight),
        bias_(bias),
        output_(output),
        tiles_y_(parts(shape.out_height(), kWinogradTile)),
        tiles_x_(parts(shape.out_width(), kWinogradTile)),
        strips_x_(parts(tiles_x_, kTilesAtOnce)),
        chunks_(parts(shape.channels, kChannels)),
        channels_(rounded_up(parts(shape.channels, chunks_), kLanes)),
        row_(channels_ + kLanes),
        sum_row_(padded_columns(std::min(shape.filters, kFilters)) + kLanes),
        strips_(shape.images * tiles_y_ * strips_x_),
        filter_chunks_(parts(shape.filters, kFilters)),
        panels_(padded_columns(std::min(shape.filters, kFilters)) / kPanelColumns) {
    const std::int64_t floats = chunks_ == 1 ? kBlockFloats : kLargeBlockFloats;
    const std::int64_t tile_floats = kWinogradProducts * (row_ + filter_chunks_ * sum_row_);
    // Of small maps a strip has a few tiles only, and a block with few tiles reads all weights for
    // them.
    const std::int64_t strip_tiles = std::min(kTilesAtOnce, tiles_x_);
    block_strips_ = std::max<std::int64_t>(1, floats / tile_floats / strip_tiles);
    block_strips_ = std::min(block_strips_, strips_);
    const std::int64_t rows = padded_rows(block_strips_ * strip_tiles);
    pitch_ = rows * row_;
    sum_pitch_ = rows * sum_row_;
    panel_pitch_ = channels_ * kPanelColumns;
  }

  void run() {
    const std::int64_t sum_floats = filter_chunks_ * kWinogradProducts * sum_pitch_;
    patches_ = workspace.patches.take<float>(kWinogradProducts * pitch_);
    sums_ = workspace.sums.take<float>(sum_floats);
    // A single chunk of channels is transformed once, for all blocks of tiles.
    const std::int64_t kept = chunks_ == 1 ? filter_chunks_ : 1;
    weights_ = workspace.weights.take<float>(kept * weight_floats());
    strip_floats_ = kWinogradPatch * (kTilesAtOnce * kWinogradTile + 2) * kLanes;
    strip_floats_ = std::max(strip_floats_, kWeightChannels * 9 * kLanes);
    const std::int64_t threads = thread_count(1 << 20);
    buffers_ = workspace.strips.take<float>(threads * strip_floats_);
    if (chunks_ == 1) {
      for (std::int64_t f = 0; f < filter_chunks_; ++f) {
        transform_weights({0, shape_.channels}, f, weights_ + f * weight_floats());
      }
    }
    for (std::int64_t first = 0; first < strips_; first += block_strips_) {
      const Span block = {first, std::min(block_strips_, strips_ - first)};
      parallel_for(kWinogradProducts * filter_chunks_, [&](std::int64_t task) {
        std::fill_n(sums_ + task * sum_pitch_, rows_of(block) * sum_row_, 0.0f);
      });
      for (std::int64_t chunk = 0; chunk < chunks_; ++chunk) {
        const Span channels = part(chunk, channels_, shape_.channels);
        transform_patches(block, channels);
        for (std::int64_t f = 0; f < filter_chunks_; ++f) {
          const float* weights = weights_ + (chunks_ == 1 ? f * weight_floats() : 0);
          if (chunks_ > 1) transform_weights(channels, f, weights_);
          multiply(block, channels, f, weights);
        }
      }
      store(block);
    }
  }

 private:
  std::int64_t weight_floats() const { return kWinogradProducts * panels_ * panel_pitch_; }
  float* buffer() const { return buffers_ + omp_get_thread_num() * strip_floats_; }

  // A strip: up to kTilesAtOnce tiles side by side.
  struct Strip {
    std::int64_t image, y, x, tiles;  // y and x of its first cell in the output
    std::int64_t first;               // tile, of all tiles of the batch
  };

  Strip strip(std::int64_t number) const {
    const std::int64_t line = number / strips_x_;  // of tiles
    const Span tiles = part(number % strips_x_, kTilesAtOnce, tiles_x_);
    return {line / tiles_y_, line % tiles_y_ * kWinogradTile, tiles.first * kWinogradTile,
            tiles.count, line * tiles_x_ + tiles.first};
  }

  // Tiles of a block, with unused ones at the end.
  std::int64_t rows_of(const Span& block) const {
    const Strip last = strip(block.first + block.count - 1);
    return padded_rows(last.first + last.tiles - strip(block.first).first);
  }

  void transform_patches(const Span& block, const Span& channels) {
    const std::int64_t groups = parts(channels.count, kLanes), origin = strip(block.first).first;
    parallel_for(block.count * groups, [&](std::int64_t task) {
      const Span lanes = part(task % groups, kLanes, channels.count);
      const Strip at = strip(block.first + task / groups);
      const std::int64_t width = at.tiles * kWinogradTile + 2;
      float* cells = buffer();
      read_cells(at, {channels.first + lanes.first, lanes.count}, width, cells);
      per_isa<patches_of_strip<4>, patches_of_strip<8>, patches_of_strip<16>>(
          cells, width, at.tiles, patches_ + (at.first - origin) * row_ + lanes.first, pitch_,
          row_);
    });
  }

  // 6 rows of `width` cells of up to kLanes channels, zeros outside of the map.
  void read_cells(const Strip& at, const Span& channels, std::int64_t width, float* cells) {
    const std::int64_t area = shape_.height * shape_.width, left = at.x - shape_.pad_x;
    const std::int64_t begin = std::max<std::int64_t>(0, -left);
    const std::int64_t end = std::min(width, shape_.width - left);
    const float* maps = data_ + (at.image * shape_.channels + channels.first) * area;
    for (std::int64_t row = 0; row < kWinogradPatch; ++row) {
      const std::int64_t y = at.y - shape_.pad_y + row;
      float* to = cells + row * width * kLanes;
      if (y < 0 || y >= shape_.height || begin >= end) {
        std::fill_n(to, width * kLanes, 0.0f);
        continue;
      }
      std::fill_n(to, begin * kLanes, 0.0f);
      pack_rows(maps + y * shape_.width + left + begin, area, static_cast<int>(channels.count),
                end - begin, kLanes, to + begin * kLanes);
      std::fill(to + end * kLanes, to + width * kLanes, 0.0f);
    }
  }

  // weights[p][panel][channel][filter of the panel].
  void transform_weights(const Span& channels, std::int64_t chunk, float* weights) {
    const Span filters = part(chunk, kFilters, shape_.filters);
    const std::int64_t panels = padded_columns(filters.count) / kPanelColumns;
    const std::int64_t groups = parts(channels.count, kWeightChannels);
    parallel_for(panels * groups, [&](std::int64_t task) {
      const std::int64_t panel = task / groups, first = panel * kPanelColumns;
      const std::int64_t count = std::clamp<std::int64_t>(filters.count - first, 0, kPanelColumns);
      const Span range = part(task % groups, kWeightChannels, channels.count);
      const std::int64_t channel = channels.first + range.first;
      float* cells = buffer();
      pack_rows(weight_ + ((filters.first + first) * shape_.channels + channel) * 9,
                shape_.channels * 9, static_cast<int>(count), range.count * 9, kLanes, cells);
      per_isa<filters_of_panel<4>, filters_of_panel<8>, filters_of_panel<16>>(
          cells, range.count, weights + panel * panel_pitch_ + range.first * kPanelColumns,
          panels_ * panel_pitch_);
    });
  }

  void multiply(const Span& block, const Span& channels, std::int64_t chunk, const float* weights) {
    const Span filters = part(chunk, kFilters, shape_.filters);
    const std::int64_t panels = padded_columns(filters.count) / kPanelColumns;
    const std::int64_t rows = rows_of(block);
    const std::int64_t row_parts = parts(rows, kProductRows);
    parallel_for(kWinogradProducts * row_parts, [&](std::int64_t task) {
      const std::int64_t p = task / row_parts;
      const Span range = part(task % row_parts, kProductRows, rows);
      add_products({patches_ + p * pitch_ + range.first * row_, row_, range.count},
                   {weights + p * panels_ * panel_pitch_, channels_, panels}, channels.count,
                   sums_ + (chunk * kWinogradProducts + p) * sum_pitch_ + range.first * sum_row_,
                   sum_row_);
    });
  }

  void store(const Span& block) {
    const std::int64_t groups = parts(shape_.filters, kLanes);
    const std::int64_t height = shape_.out_height(), width = shape_.out_width();
    const std::int64_t origin = strip(block.first).first;
    parallel_for(block.count * groups, [&](std::int64_t task) {
      const Span filters = part(task % groups, kLanes, shape_.filters);
      const Strip at = strip(block.first + task / groups);
      const std::int64_t chunk = filters.first / kFilters, cells_x = at.tiles * kWinogradTile;
      float shift[kLanes] = {};
      if (bias_) std::copy_n(bias_ + filters.first, filters.count, shift);
      float* cells = buffer();
      per_isa<tiles_of_strip<4>, tiles_of_strip<8>, tiles_of_strip<16>>(
          sums_ + chunk * kWinogradProducts * sum_pitch_ + (at.first - origin) * sum_row_ +
              filters.first % kFilters,
          sum_pitch_, sum_row_, at.tiles, shift, shape_.relu, cells, cells_x);
      float* out = output_ + (at.image * shape_.filters + filters.first) * height * width;
      for (std::int64_t y = at.y; y < std::min(height, at.y + kWinogradTile); ++y) {
        unpack_rows(cells + (y - at.y) * cells_x * kLanes, std::min(cells_x, width - at.x), kLanes,
                    static_cast<int>(filters.count), height * width, out + y * width + at.x);
      }
    });
  }

  const WinogradShape& shape_;
  const float *data_, *weight_, *bias_;
  float* output_;
  std::int64_t tiles_y_, tiles_x_, strips_x_;
  std::int64_t chunks_, channels_;  // chunks of channels, and channels of one
  // Floats of a tile's patches and sums of one product; a cache line more than needed, so that rows
  // do not fall on the same sets of a cache.
  std::int64_t row_, sum_row_;
  std::int64_t strips_, block_strips_;
  std::int64_t filter_chunks_, panels_;  // chunks of filters, and panels of one
  // From one product, or panel, to the next.
  std::int64_t pitch_, sum_pitch_, panel_pitch_;
  std::int64_t strip_floats_;  // of a thread's buffer
  float *patches_, *weights_, *sums_, *buffers_;
};

}  // namespace

void winograd_convolution_cpu(const WinogradShape& shape, const float* data, const float* weight,
                              const float* bias, float* output) {
  Convolution(shape, data, weight, bias, output).run();
}

}  // namespace sniper

// Gradients of the convolution, by the transposes of what the forward pass computes: 36 products of
// matrices for the map, and as many for the weights.

#include <algorithm>
#include <iterator>
#include <vector>

#include "common/panels.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "winograd_convolution/winograd_convolution.h"
#include "winograd_convolution/winograd_tiles.h"

namespace sniper {
namespace {

static_assert(kSquaresAtOnce == kPanelColumns, "a panel of products is transformed at once");

constexpr std::int64_t kTaps = kWinogradTaps * kWinogradTaps;
constexpr std::int64_t kDepth = 256;            // of a product that is summed up at once
constexpr std::int64_t kRows = 96;              // of a product: they fill the L2 cache
constexpr std::int64_t kChunkFloats = 4 << 20;  // of transformed tiles that are in memory at once

struct Workspace {
  KeptArray weights, data, output_grads, output_grads_by_filter, data_grads, weight_grads, masked;
};

thread_local Workspace workspace;

// From one point's matrix of so many floats to the next one's. An odd number of cache lines: at a
// power of two all points of a transform would share a few lines of the cache.
constexpr std::int64_t point_step(std::int64_t floats) { return ((floats + 15) / 16 | 1) * 16; }

// Tiles are numbered through all images, and taken in chunks whose size is a matter of the shape
// alone: sums must not depend on threads.
struct Tiles {
  std::int64_t of_row, of_image, count, chunk;

  explicit Tiles(const WinogradShape& shape)
      : of_row((shape.out_width() + kWinogradTile - 1) / kWinogradTile),
        of_image(of_row * ((shape.out_height() + kWinogradTile - 1) / kWinogradTile)),
        count(of_image * shape.images) {
    const std::int64_t floats = kWinogradProducts * (shape.channels + 2 * shape.filters);
    const std::int64_t at_once = std::max<std::int64_t>(kChunkFloats / floats, 1);
    chunk = padded_columns(std::min(at_once, count));
  }

  std::int64_t panels() const { return chunk / kPanelColumns; }
};

// A tile and its place in the output.
struct TilePlace {
  std::int64_t image, y, x;

  TilePlace(const Tiles& tiles, std::int64_t tile)
      : image(tile / tiles.of_image),
        y(tile % tiles.of_image / tiles.of_row * kWinogradTile),
        x(tile % tiles.of_row * kWinogradTile) {}
};

// A map, or the output; tiles begin so many cells before their place.
struct Side {
  std::int64_t channels, height, width, pad_y, pad_x;

  std::int64_t cells() const { return height * width; }
  std::int64_t plane(const TilePlace& place, std::int64_t channel) const {
    return (place.image * channels + channel) * cells();
  }
  TileWindow window(const TilePlace& place, int side) const {
    return {place.y - pad_y, place.x - pad_x, side, height, width};
  }
};

// The places of a chunk's tiles.
std::vector<TilePlace> places_of(const Tiles& tiles, std::int64_t first) {
  std::vector<TilePlace> places;
  const std::int64_t end = std::min(first + tiles.chunk, tiles.count);
  places.reserve(end - first);
  for (std::int64_t tile = first; tile < end; ++tile) places.emplace_back(tiles, tile);
  return places;
}

// c = a * b for every point: rows of a and c padded, b in panels. a[point][row][pitch],
// b[point][panel][b_pitch][16], c[point][row][c_stride]; `keep` adds to what is in c.
struct Product {
  const float* a;
  std::int64_t rows, a_pitch;
  const float* b;
  std::int64_t panels, b_pitch;
  float* c;
  std::int64_t depth;
  bool keep;
};

void multiply(const Product& product) {
  const std::int64_t parts = (product.rows + kRows - 1) / kRows;
  const std::int64_t stride = product.panels * kPanelColumns;
  const std::int64_t a_step = point_step(product.rows * product.a_pitch);
  const std::int64_t b_step = point_step(stride * product.b_pitch);
  const std::int64_t c_step = point_step(product.rows * stride);
  parallel_for(kWinogradProducts * parts, [&](std::int64_t task) {
    const std::int64_t point = task / parts, row = task % parts * kRows;
    const std::int64_t rows = std::min(kRows, product.rows - row);
    const float* a = product.a + point * a_step + row * product.a_pitch;
    const float* b = product.b + point * b_step;
    float* c = product.c + point * c_step + row * stride;
    if (!product.keep) std::fill(c, c + rows * stride, 0.0f);
    for (std::int64_t k = 0; k < product.depth; k += kDepth) {
      add_products({a + k, product.a_pitch, rows},
                   {b + k * kPanelColumns, product.b_pitch, product.panels},
                   std::min(kDepth, product.depth - k), c, stride);
    }
  });
}

// Which index of the weights is a row, and which one lies along it.
struct WeightOrder {
  std::int64_t rows, row_step, columns, column_step;

  std::int64_t pitch() const { return rounded_up(columns, kPanelColumns); }
  std::int64_t padded() const { return padded_rows(rows); }
  std::int64_t step() const { return point_step(padded() * pitch()); }
};

// to[point][row][column].
void pack_weights(const WeightOrder& order, const float* weight, float* to) {
  parallel_for(order.padded(), [&](std::int64_t row) {
    float taps[kTaps * kSquaresAtOnce];
    for (std::int64_t first = 0; first < order.pitch(); first += kSquaresAtOnce) {
      std::fill(taps, taps + kTaps * kSquaresAtOnce, 0.0f);
      const std::int64_t end = std::min<std::int64_t>(kSquaresAtOnce, order.columns - first);
      for (std::int64_t lane = 0; row < order.rows && lane < end; ++lane) {
        const float* from = weight + row * order.row_step + (first + lane) * order.column_step;
        for (int tap = 0; tap < kTaps; ++tap) taps[tap * kSquaresAtOnce + lane] = from[tap];
      }
      map_16_squares<WeightToPoints>(taps, kSquaresAtOnce, to + row * order.pitch() + first,
                                     order.step());
    }
  });
}

// Channels, transformed: [point][panel][channel][16 tiles], or [point][channel][tile].
struct ChannelLayout {
  std::int64_t panel_step, channel_step, step;

  static ChannelLayout in_panels(const Side& side, const Tiles& tiles) {
    return {side.channels * kPanelColumns, kPanelColumns, point_step(side.channels * tiles.chunk)};
  }
  static ChannelLayout in_rows(const Side& side, const Tiles& tiles) {
    return {kPanelColumns, tiles.chunk, point_step(padded_rows(side.channels) * tiles.chunk)};
  }
};

// Tiles of a chunk beyond the last one become zeros.
template <class Map>
void pack_tiles(const Side& side, const Tiles& tiles, const std::vector<TilePlace>& places,
                const float* map, const ChannelLayout& layout, float* to) {
  parallel_for(side.channels, [&](std::int64_t channel) {
    float cells[Map::kIn * Map::kIn * kSquaresAtOnce];
    for (std::int64_t panel = 0; panel < tiles.panels(); ++panel) {
      std::fill(std::begin(cells), std::end(cells), 0.0f);
      for (std::size_t lane = 0; lane < kSquaresAtOnce; ++lane) {
        const std::size_t tile = panel * kSquaresAtOnce + lane;
        if (tile >= places.size()) break;
        read_tile<Map::kIn>(side.window(places[tile], Map::kIn),
                            map + side.plane(places[tile], channel), side.width, cells + lane);
      }
      map_16_squares<Map>(cells, kSquaresAtOnce,
                          to + panel * layout.panel_step + channel * layout.channel_step,
                          layout.step);
    }
  });
}

// Channels side by side: to[point][panel][tile][16 channels].
template <class Map>
void pack_channels(const Side& side, const Tiles& tiles, const std::vector<TilePlace>& places,
                   const float* map, float* to) {
  const std::int64_t panels = padded_columns(side.channels) / kPanelColumns;
  const std::int64_t step = point_step(panels * tiles.chunk * kPanelColumns);
  parallel_for(panels, [&](std::int64_t panel) {
    float cells[Map::kIn * Map::kIn * kSquaresAtOnce];
    const std::int64_t first = panel * kSquaresAtOnce;
    const std::int64_t lanes = std::min<std::int64_t>(kSquaresAtOnce, side.channels - first);
    for (std::size_t tile = 0; tile < places.size(); ++tile) {
      const TileWindow window = side.window(places[tile], Map::kIn);
      std::fill(std::begin(cells), std::end(cells), 0.0f);
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        read_tile<Map::kIn>(window, map + side.plane(places[tile], first + lane), side.width,
                            cells + lane);
      }
      map_16_squares<Map>(cells, kSquaresAtOnce, to + (panel * tiles.chunk + tile) * kPanelColumns,
                          step);
    }
  });
}

// Maps back what has the layout in_rows, and adds the tiles up.
template <class Map>
void add_tiles(const Side& side, const Tiles& tiles, const std::vector<TilePlace>& places,
               const float* from, float* map) {
  const ChannelLayout layout = ChannelLayout::in_rows(side, tiles);
  parallel_for(side.channels, [&](std::int64_t channel) {
    float cells[Map::kOut * Map::kOut * kSquaresAtOnce];
    for (std::size_t tile = 0; tile < places.size(); ++tile) {
      const std::size_t lane = tile % kSquaresAtOnce;
      if (lane == 0) {
        map_16_squares<Map>(from + channel * layout.channel_step + tile, layout.step, cells,
                            kSquaresAtOnce);
      }
      add_tile<Map::kOut>(side.window(places[tile], Map::kOut), cells + lane,
                          map + side.plane(places[tile], channel), side.width);
    }
  });
}

// sums[point][channel][filter] back to the taps of the weights.
void unpack_weight_grad(const WinogradShape& shape, const float* sums, float* weight_grad) {
  const std::int64_t pitch = padded_columns(shape.filters);
  const std::int64_t step = point_step(padded_rows(shape.channels) * pitch);
  parallel_for(shape.channels, [&](std::int64_t channel) {
    float taps[kTaps * kSquaresAtOnce];
    for (std::int64_t first = 0; first < shape.filters; first += kSquaresAtOnce) {
      map_16_squares<PointsToWeight>(sums + channel * pitch + first, step, taps, kSquaresAtOnce);
      const std::int64_t end = std::min<std::int64_t>(kSquaresAtOnce, shape.filters - first);
      for (std::int64_t lane = 0; lane < end; ++lane) {
        float* to = weight_grad + ((first + lane) * shape.channels + channel) * kTaps;
        for (int tap = 0; tap < kTaps; ++tap) to[tap] = taps[tap * kSquaresAtOnce + lane];
      }
    }
  });
}

// Doubles: one number stands for all cells of all images.
void sum_bias_grad(const Side& side, std::int64_t images, const float* output_grad,
                   float* bias_grad) {
  parallel_for(side.channels, [&](std::int64_t filter) {
    double sum = 0.0;
    for (std::int64_t image = 0; image < images; ++image) {
      const float* from = output_grad + (image * side.channels + filter) * side.cells();
      for (std::int64_t cell = 0; cell < side.cells(); ++cell) sum += from[cell];
    }
    bias_grad[filter] = static_cast<float>(sum);
  });
}

// The gradient behind the ReLU.
const float* masked(std::int64_t count, const float* output_grad, const float* output) {
  float* to = workspace.masked.take<float>(count);
  for (std::int64_t i = 0; i < count; ++i) to[i] = output[i] > 0.0f ? output_grad[i] : 0.0f;
  return to;
}

}  // namespace

void winograd_gradients_cpu(const WinogradShape& shape, const float* output_grad, const float* data,
                            const float* weight, const float* output, float* data_grad,
                            float* weight_grad, float* bias_grad) {
  const Tiles tiles(shape);
  const Side in{shape.channels, shape.height, shape.width, shape.pad_y, shape.pad_x};
  const Side out{shape.filters, shape.out_height(), shape.out_width(), 0, 0};
  const std::int64_t rows = padded_rows(shape.channels), columns = padded_columns(shape.filters);
  const WeightOrder order{shape.channels, kTaps, shape.filters, shape.channels * kTaps};
  const auto take = [](KeptArray& kept, std::int64_t floats) {
    return kept.take<float>(kWinogradProducts * point_step(floats));
  };
  float* weights = take(workspace.weights, rows * order.pitch());
  float* points = take(workspace.data, rows * tiles.chunk);
  float* grads = take(workspace.output_grads, shape.filters * tiles.chunk);
  float* by_filter = take(workspace.output_grads_by_filter, columns * tiles.chunk);
  float* point_grads = take(workspace.data_grads, rows * tiles.chunk);
  float* sums = take(workspace.weight_grads, rows * columns);
  if (shape.relu) {
    output_grad = masked(shape.images * shape.filters * out.cells(), output_grad, output);
  }
  pack_weights(order, weight, weights);
  std::fill(data_grad, data_grad + shape.images * shape.channels * in.cells(), 0.0f);
  for (std::int64_t first = 0; first < tiles.count; first += tiles.chunk) {
    const std::vector<TilePlace> places = places_of(tiles, first);
    pack_tiles<OutputToPoints>(out, tiles, places, output_grad,
                               ChannelLayout::in_panels(out, tiles), grads);
    multiply({weights, rows, order.pitch(), grads, tiles.panels(), shape.filters, point_grads,
              shape.filters, false});
    add_tiles<PointsToData>(in, tiles, places, point_grads, data_grad);
    pack_tiles<DataToPoints>(in, tiles, places, data, ChannelLayout::in_rows(in, tiles), points);
    pack_channels<OutputToPoints>(out, tiles, places, output_grad, by_filter);
    multiply({points, rows, tiles.chunk, by_filter, columns / kPanelColumns, tiles.chunk, sums,
              static_cast<std::int64_t>(places.size()), first > 0});
  }
  unpack_weight_grad(shape, sums, weight_grad);
  if (bias_grad != nullptr) sum_bias_grad(out, shape.images, output_grad, bias_grad);
}

}  // namespace sniper

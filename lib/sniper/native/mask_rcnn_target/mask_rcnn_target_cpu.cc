#include <algorithm>
#include <cstddef>
#include <vector>

#include "common/isa.h"
#include "common/parallel.h"
#include "mask_rcnn_target/mask_rcnn_target.h"

namespace sniper {
namespace {

constexpr int kWordBits = 32;
constexpr std::int64_t kRoisPerThread = 128;

// Bits of a mask_size x mask_size grid; a scan row is `words` words.
struct MaskBits {
  int size, words;
  std::vector<std::uint32_t> bits;

  void reset(int mask_size) {
    size = mask_size;
    words = (mask_size + kWordBits - 1) / kWordBits;
    bits.assign(static_cast<std::size_t>(size) * words, 0);
  }
  // Inverts row `row` from pixel `pixel` on.
  void toggle(int row, int pixel) {
    if (pixel >= size) return;
    std::uint32_t* word = &bits[static_cast<std::size_t>(row) * words];
    const int first = pixel / kWordBits;
    word[first] ^= ~std::uint32_t{0} << (pixel % kWordBits);
    for (int i = first + 1; i < words; ++i) word[i] = ~word[i];
  }
};

struct Scratch {
  std::vector<MaskVertex> vertices;
  MaskBits segment, mask;
};

// Inverts, for every scan row that the edge crosses, the pixels after the crossing.
void trace_edge(const MaskVertex& a, const MaskVertex& b, MaskBits* bits) {
  const int first = std::min(a.rows_before, b.rows_before);
  const int end = std::max(a.rows_before, b.rows_before);
  for (int row = first; row < end; ++row) bits->toggle(row, mask_crossing(a, b, row, bits->size));
}

// Maps the vertices of one segment; false when one is not finite. A loop without branches, so that
// it becomes SIMD.
SNIPER_ALWAYS_INLINE bool map_vertices(const MaskFrame& frame, int mask_size, const float* points,
                                       int count, MaskVertex* vertices) {
  std::int32_t finite = 1;
  for (int i = 0; i < count; ++i) {
    finite &= static_cast<std::int32_t>(
        mask_vertex(frame, mask_size, points[2 * i], points[2 * i + 1], &vertices[i]));
  }
  return finite != 0;
}

// Adds the pixels of one segment to the mask; false when a vertex is not finite.
bool add_segment(const MaskFrame& frame, const float* points, int num_vertices, Scratch* scratch) {
  const int mask_size = scratch->mask.size;
  std::vector<MaskVertex>& vertices = scratch->vertices;
  vertices.resize(num_vertices);
  if (!per_isa<map_vertices>(frame, mask_size, points, num_vertices, vertices.data())) return false;
  scratch->segment.reset(mask_size);
  trace_edge(vertices.back(), vertices.front(), &scratch->segment);
  for (int i = 1; i < num_vertices; ++i) {
    trace_edge(vertices[i - 1], vertices[i], &scratch->segment);
  }
  for (std::size_t i = 0; i < scratch->mask.bits.size(); ++i) {
    scratch->mask.bits[i] |= scratch->segment.bits[i];
  }
  return true;
}

// Rasterises all segments; false when the target is ignored.
bool rasterise(const MaskPolygon& polygon, const MaskFrame& frame, int mask_size,
               Scratch* scratch) {
  scratch->mask.reset(mask_size);
  const float* points = polygon.points;
  for (int i = 0; i < polygon.segments; ++i) {
    const int length = static_cast<int>(polygon.lengths[i]);
    if (!add_segment(frame, points, length / 2, scratch)) return false;
    points += length;
  }
  return polygon.segments > 0;
}

// The bits of one word as zeros and ones.
SNIPER_ALWAYS_INLINE void write_word(std::uint32_t word, int count, float* pixels) {
  for (int i = 0; i < count; ++i) pixels[i] = static_cast<float>((word >> i) & 1);
}

void write_mask(const MaskBits& mask, float* target) {
  for (int row = 0; row < mask.size; ++row) {
    const std::uint32_t* words = &mask.bits[static_cast<std::size_t>(row) * mask.words];
    float* pixels = target + static_cast<std::int64_t>(row) * mask.size;
    for (int start = 0; start < mask.size; start += kWordBits) {
      per_isa<write_word>(words[start / kWordBits], std::min(kWordBits, mask.size - start),
                          pixels + start);
    }
  }
}

}  // namespace

void mask_rcnn_target_cpu(const MaskRcnnTargetParams& params, const float* rois,
                          const float* mask_polys, const float* mask_ids, float* targets,
                          float* classes) {
  const std::int64_t area = static_cast<std::int64_t>(params.mask_size) * params.mask_size;
  const auto target_of_roi = [&](std::int64_t n) {
    thread_local Scratch scratch;
    const float* roi = rois + 5 * n;
    const MaskPolygon polygon = mask_polygon(params, mask_polys, roi, mask_ids[n]);
    const bool real = rasterise(polygon, mask_frame(roi), params.mask_size, &scratch);
    if (real) {
      write_mask(scratch.mask, targets + n * area);
    } else {
      std::fill_n(targets + n * area, area, params.ignore_label);
    }
    std::fill_n(classes + n * area, area, real ? polygon.cls : 0.0f);
  };
  parallel_for(params.num_rois, target_of_roi, kRoisPerThread);
}

}  // namespace sniper

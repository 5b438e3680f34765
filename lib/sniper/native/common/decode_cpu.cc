#include "common/decode.h"
#include "common/isa.h"

namespace sniper {
namespace {

// Quotient of 32-bit numbers by one multiplication: a division of a variable takes longer than the
// decoding of a box.
class Divisor {
 public:
  explicit Divisor(std::uint32_t divisor) : inverse_(~std::uint64_t{0} / divisor + 1) {}
  std::uint32_t quotient(std::uint32_t number) const {
    return static_cast<std::uint32_t>(static_cast<unsigned __int128>(inverse_) * number >> 64);
  }

 private:
  std::uint64_t inverse_;  // 2^64 / divisor, rounded up: exact for 32-bit numbers
};

// x1 .. y2 hold the anchors until they are decoded.
struct Columns {
  float dx[NmsTile::kSize], dy[NmsTile::kSize], dw[NmsTile::kSize], dh[NmsTile::kSize];
  float x1[NmsTile::kSize], y1[NmsTile::kSize], x2[NmsTile::kSize], y2[NmsTile::kSize];
  std::int32_t usable[NmsTile::kSize];
};

SNIPER_ALWAYS_INLINE void decode_columns(Columns* columns, int count, float image_height,
                                         float image_width) {
  for (int i = 0; i < count; ++i) {
    const Box anchor = {columns->x1[i], columns->y1[i], columns->x2[i], columns->y2[i]};
    Box box;
    columns->usable[i] = decode_proposal(anchor, columns->dx[i], columns->dy[i], columns->dw[i],
                                         columns->dh[i], image_height, image_width, &box);
    columns->x1[i] = box.x1;
    columns->y1[i] = box.y1;
    columns->x2[i] = box.x2;
    columns->y2[i] = box.y2;
  }
}

void gather(const ProposalMaps& maps, const std::uint32_t* indices, int count, Columns* columns) {
  const std::int64_t cells = maps.grid.cells();
  const std::uint32_t plane = static_cast<std::uint32_t>(cells);
  const std::uint32_t width = static_cast<std::uint32_t>(maps.grid.width);
  // A divisor of 1 has no 64-bit inverse.
  const Divisor by_plane(plane > 1 ? plane : 2), by_width(width > 1 ? width : 2);
  for (int i = 0; i < count; ++i) {
    const std::uint32_t index = indices[i];
    const std::uint32_t anchor = plane > 1 ? by_plane.quotient(index) : index;
    const std::uint32_t cell = index - anchor * plane;
    const std::uint32_t y = width > 1 ? by_width.quotient(cell) : cell;
    const std::uint32_t x = cell - y * width;
    const float* delta = maps.deltas + 4 * anchor * cells + cell;
    columns->dx[i] = delta[0];
    columns->dy[i] = delta[cells];
    columns->dw[i] = delta[2 * cells];
    columns->dh[i] = delta[3 * cells];
    const Box box =
        anchor_at(maps.grid, static_cast<int>(anchor), static_cast<int>(y), static_cast<int>(x));
    columns->x1[i] = box.x1;
    columns->y1[i] = box.y1;
    columns->x2[i] = box.x2;
    columns->y2[i] = box.y2;
  }
}

}  // namespace

void decode_proposals(const ProposalMaps& maps, const std::uint32_t* indices, int count,
                      NmsTile* tile) {
  Columns columns;
  gather(maps, indices, count, &columns);
  per_isa<decode_columns>(&columns, count, maps.image_height, maps.image_width);
  for (int i = 0; i < count; ++i) {
    tile->box[i] = {columns.x1[i], columns.y1[i], columns.x2[i], columns.y2[i]};
    tile->usable[i] = columns.usable[i] != 0;
  }
}

}  // namespace sniper

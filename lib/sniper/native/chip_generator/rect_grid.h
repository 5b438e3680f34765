// Rectangles by place: finds those near a window without a look at all of them.
#ifndef SNIPER_NATIVE_RECT_GRID_H_
#define SNIPER_NATIVE_RECT_GRID_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sniper {

// Corners; touching counts as near.
struct GridRect {
  double x1, y1, x2, y2;
};

// A box with this much around it.
inline GridRect widened(const float* box, double by) {
  return {box[0] - by, box[1] - by, box[2] + by, box[3] + by};
}

// Grids of square cells, each twice as coarse as the one before. A rectangle stands in the cell of
// its x1, y1 in the finest grid whose cells are as long as its longer side, so that small windows
// stay cheap where large rectangles lie about. Those that are longer than the image or not finite
// are near everything. Keeps its memory from use to use.
class RectGrid {
 public:
  // Empties it. `cell` is about the side of the windows to come; `count` is how many rectangles
  // there will be (more are allowed): there are about as many cells as these.
  void reset(double width, double height, double cell, std::size_t count) {
    grids_.clear();
    std::size_t cells = 0;
    if (count > kFew) {
      const double most = static_cast<double>(count);
      double side = std::max({cell, std::sqrt(width * height / most), (width + height) / most});
      for (; side < std::max(width, height); side *= 2)
        cells += add_grid(side, width, height, cells);
    }
    grids_.push_back({0, 1, 1, cells, 0});
    first_.assign(cells + 1, kNone);
    next_.clear();
  }

  // The next number: rectangles count from 0.
  void add(const GridRect& rect) {
    std::size_t level = 0;
    while (level + 1 < grids_.size() &&
           !(rect.x2 - rect.x1 <= grids_[level].side && rect.y2 - rect.y1 <= grids_[level].side)) {
      ++level;
    }
    Grid& grid = grids_[level];
    ++grid.count;
    int32_t& first = first_[grid.cell(grid.column(rect.x1), grid.row(rect.y1))];
    next_.push_back(first);
    first = static_cast<int32_t>(next_.size()) - 1;
  }

  // Calls `visit` with the number of each rectangle that has a point in common with the window, and
  // of some others, in no order.
  template <class Visit>
  void visit_near(const GridRect& window, Visit&& visit) const {
    for (const Grid& grid : grids_) {
      if (grid.count == 0) continue;
      const Span columns = grid.columns_near(window.x1 - grid.side, window.x2);
      const Span rows = grid.rows_near(window.y1 - grid.side, window.y2);
      for (std::size_t i = columns.first; i <= columns.last; ++i) {
        for (std::size_t j = rows.first; j <= rows.last; ++j) {
          for (int32_t n = first_[grid.cell(i, j)]; n != kNone; n = next_[as_size(n)]) visit(n);
        }
      }
    }
  }

  // Calls `take` with the number of each rectangle inside the window, and of some others, in no
  // order; those for which it returns true leave the grid.
  template <class Take>
  void take_inside(const GridRect& window, Take&& take) {
    const double longer = std::max(window.x2 - window.x1, window.y2 - window.y1);
    for (std::size_t level = 0; level < grids_.size(); ++level) {
      Grid& grid = grids_[level];
      if (level > 0 && grids_[level - 1].side > longer) return;  // all others are longer
      if (grid.count == 0) continue;
      const Span columns = grid.columns_near(window.x1, window.x2);
      const Span rows = grid.rows_near(window.y1, window.y2);
      for (std::size_t i = columns.first; i <= columns.last; ++i) {
        for (std::size_t j = rows.first; j <= rows.last; ++j) {
          take_of_cell(&first_[grid.cell(i, j)], &grid, take);
        }
      }
    }
  }

 private:
  static constexpr int32_t kNone = -1;
  static constexpr std::size_t kFew = 16;  // so many are looked at one by one

  struct Span {
    std::size_t first, last;
  };

  struct Grid {
    double side;  // of a cell; 0: one cell for all
    std::size_t width, height, begin, count;

    static std::size_t step(double place, double side, std::size_t steps) {
      const double exact = place / side;
      if (!(exact > 0)) return 0;
      return exact < static_cast<double>(steps) ? static_cast<std::size_t>(exact) : steps - 1;
    }
    std::size_t column(double x) const { return width == 1 ? 0 : step(x, side, width); }
    std::size_t row(double y) const { return height == 1 ? 0 : step(y, side, height); }
    Span columns_near(double from, double to) const { return {column(from), column(to)}; }
    Span rows_near(double from, double to) const { return {row(from), row(to)}; }
    std::size_t cell(std::size_t i, std::size_t j) const { return begin + i * height + j; }
  };

  static std::size_t as_size(int32_t number) { return static_cast<std::size_t>(number); }

  std::size_t add_grid(double side, double width, double height, std::size_t begin) {
    const std::size_t columns = static_cast<std::size_t>(width / side) + 1;
    const std::size_t rows = static_cast<std::size_t>(height / side) + 1;
    grids_.push_back({side, columns, rows, begin, 0});
    return columns * rows;
  }

  template <class Take>
  void take_of_cell(int32_t* link, Grid* grid, Take&& take) {
    while (*link != kNone) {
      const int32_t number = *link;
      int32_t& next = next_[as_size(number)];
      if (take(number)) {
        *link = next;
        --grid->count;
      } else {
        link = &next;
      }
    }
  }

  std::vector<Grid> grids_;
  std::vector<int32_t> first_;  // [cell]: a number, or kNone
  std::vector<int32_t> next_;   // [number]: another one of the same cell, or kNone
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_RECT_GRID_H_

#include <algorithm>
#include <cstddef>
#include <utility>

#include "rpn_targets/rpn_matcher.h"

namespace sniper {
namespace {

// Windows are computed with rounding; they must never miss an anchor.
constexpr double kShareMargin = 1.0 - 1e-9;
constexpr double kCellMargin = 1e-6;

// Px that the interval of an anchor and [low, high] have in common.
double common_length(const AnchorAxis& axis, double shift, double low, double high) {
  const double length = std::min(axis.high + shift, high) - std::max(axis.low + shift, low) + 1.0;
  return std::max(length, 0.0);
}

// Cells where the anchors of an axis and [low, high] may have `needed` px in common.
CellRange cells_that_reach(const AnchorAxis& axis, double needed, double low, double high,
                           double cells_per_px) {
  const double first = (needed - 1.0 + low - axis.high) * cells_per_px - kCellMargin;
  const double last = (high + 1.0 - needed - axis.low) * cells_per_px + kCellMargin;
  CellRange cells = axis.trained;
  if (first > cells.last || last < cells.first) return {};
  if (first > cells.first) {
    cells.first = static_cast<int32_t>(first);
    if (cells.first < first) ++cells.first;
  }
  if (last < cells.last) cells.last = static_cast<int32_t>(last);
  return cells;
}

double longest(const AnchorAxis& axis, const CellRange& cells, double low, double high,
               double stride) {
  double most = 0.0;
  for (int32_t cell = cells.first; cell <= cells.last; ++cell) {
    most = std::max(most, common_length(axis, cell * stride, low, high));
  }
  return most;
}

// Least share of the two areas' sum that an intersection needs for an IoU.
double needed_share(double iou) { return iou / (1.0 + iou) * kShareMargin; }

// Collects what the boxes of a chip say about its anchors.
class Matcher {
 public:
  Matcher(const RpnAnchors& anchors, const RpnSettings& settings)
      : anchors_(anchors),
        settings_(settings),
        cells_per_px_(1.0 / anchors.stride),
        marks_(anchors.first_marks),
        sums_(anchors.shapes.size()),
        bounds_(anchors.shapes.size()),
        lengths_(static_cast<std::size_t>(anchors.cells)) {}

  void add_valid(const GtBox& box) {
    look_at(box);
    const double highest = highest_overlap();
    // A box that no anchor touches must not make every anchor positive.
    if (highest <= 0.0) return;
    visit(highest, [=](double overlap, uint8_t* mark) {
      if (overlap == highest) *mark |= kRpnPositive;
    });
    const double near = settings_.negative_overlap, positive = settings_.positive_overlap;
    if (highest < std::min(near, positive)) return;
    visit(std::min(near, positive), [=](double overlap, uint8_t* mark) {
      const int reached =
          (overlap >= near ? kRpnNear : 0) | (overlap >= positive ? kRpnPositive : 0);
      *mark = static_cast<uint8_t>(*mark | reached);
    });
  }

  void add_invalid(const GtBox& box) {
    look_at(box);
    const double ignore = settings_.ignore_overlap;
    visit(ignore, [=](double overlap, uint8_t* mark) {
      *mark = static_cast<uint8_t>(*mark | (overlap > ignore ? kRpnIgnored : 0));
    });
  }

  // What lies in a region of many objects is no background, though it may be an object.
  void add_crowd(const GtBox& box) {
    for (std::size_t s = 0; s < anchors_.shapes.size(); ++s) {
      const AnchorShape& shape = anchors_.shapes[s];
      const CellRange columns = shape.x.trained, rows = shape.y.trained;
      for (int32_t row = rows.first; row <= rows.last; ++row) {
        const double height = common_length(shape.y, row * anchors_.stride, box.y1, box.y2);
        uint8_t* marks = &marks_[(s * anchors_.cells + row) * anchors_.cells];
        for (int32_t c = columns.first; c <= columns.last; ++c) {
          const double width = common_length(shape.x, c * anchors_.stride, box.x1, box.x2);
          if (width * height / shape.area > settings_.crowd_ioa) marks[c] |= kRpnNear;
        }
      }
    }
  }

  // Also the anchors that no valid box touches reach an overlap of 0.
  void add_absence_of_overlap() {
    if (settings_.negative_overlap > 0.0) return;
    for (uint8_t& mark : marks_) mark |= kRpnNear;
  }

  std::vector<uint8_t> take_marks() { return std::move(marks_); }

 private:
  struct Window {
    CellRange columns, rows;
  };

  void look_at(const GtBox& box) {
    box_ = box;
    for (std::size_t s = 0; s < sums_.size(); ++s) {
      const AnchorShape& shape = anchors_.shapes[s];
      sums_[s] = shape.area + box.area;
      bounds_[s] = std::min(shape.x.length, box.width) * std::min(shape.y.length, box.height);
    }
  }

  // The anchors of a shape whose intersection with the box may be `share` of the areas' sum.
  bool find_window(std::size_t s, double share, Window* window) const {
    const double needed = share * sums_[s];
    if (bounds_[s] < needed) return false;
    const AnchorShape& shape = anchors_.shapes[s];
    const double needed_x = needed / std::min(shape.y.length, box_.height);
    window->columns = cells_that_reach(shape.x, needed_x, box_.x1, box_.x2, cells_per_px_);
    if (window->columns.last < window->columns.first) return false;
    const double needed_y = needed / std::min(shape.x.length, box_.width);
    window->rows = cells_that_reach(shape.y, needed_y, box_.y1, box_.y2, cells_per_px_);
    return window->rows.last >= window->rows.first;
  }

  // The largest IoU of a shape if it is at least `least`, else something smaller.
  double shape_overlap(std::size_t s, double least) const {
    Window window;
    if (!find_window(s, needed_share(least), &window)) return 0.0;
    const AnchorShape& shape = anchors_.shapes[s];
    const double stride = anchors_.stride;
    const double intersection = longest(shape.y, window.rows, box_.y1, box_.y2, stride) *
                                longest(shape.x, window.columns, box_.x1, box_.x2, stride);
    return intersection / (sums_[s] - intersection);
  }

  double highest_overlap() const {
    std::size_t promising = 0;
    double most = 0.0;
    for (std::size_t s = 0; s < sums_.size(); ++s) {
      const double share = bounds_[s] / sums_[s];
      if (share > most) {
        most = share;
        promising = s;
      }
    }
    double highest = shape_overlap(promising, 0.0);
    for (std::size_t s = 0; s < sums_.size(); ++s) {
      if (s != promising) highest = std::max(highest, shape_overlap(s, highest));
    }
    return highest;
  }

  // Calls visit(IoU, mark) for all trained anchors whose IoU is at least `least`, and for some
  // others.
  template <class Visit>
  void visit(double least, const Visit& visit) {
    const double share = needed_share(least), stride = anchors_.stride;
    for (std::size_t s = 0; s < sums_.size(); ++s) {
      Window window;
      if (!find_window(s, share, &window)) continue;
      const AnchorShape& shape = anchors_.shapes[s];
      const int32_t columns = window.columns.last - window.columns.first + 1;
      double* lengths = lengths_.data();  // copies: marks are bytes, which could be anything
      const double sum = sums_[s];
      for (int32_t i = 0; i < columns; ++i) {
        lengths[i] = common_length(shape.x, (window.columns.first + i) * stride, box_.x1, box_.x2);
      }
      for (int32_t row = window.rows.first; row <= window.rows.last; ++row) {
        const double length = common_length(shape.y, row * stride, box_.y1, box_.y2);
        uint8_t* marks =
            &marks_[(s * anchors_.cells + row) * anchors_.cells + window.columns.first];
        for (int32_t i = 0; i < columns; ++i) {
          const double intersection = length * lengths[i];
          visit(intersection / (sum - intersection), marks + i);
        }
      }
    }
  }

  const RpnAnchors& anchors_;
  const RpnSettings& settings_;
  const double cells_per_px_;
  std::vector<uint8_t> marks_;
  GtBox box_{};
  std::vector<double> sums_;     // by shape: area of an anchor and the box
  std::vector<double> bounds_;   // by shape: largest intersection that the sides allow
  std::vector<double> lengths_;  // by column
};

}  // namespace

std::vector<uint8_t> mark_anchors(const RpnAnchors& anchors, const RpnSettings& settings,
                                  const std::vector<GtBox>& valid, bool has_valid,
                                  const std::vector<GtBox>& invalid,
                                  const std::vector<GtBox>& crowd) {
  Matcher matcher(anchors, settings);
  for (const GtBox& box : valid) matcher.add_valid(box);
  if (has_valid) matcher.add_absence_of_overlap();
  for (const GtBox& box : invalid) matcher.add_invalid(box);
  for (const GtBox& box : crowd) matcher.add_crowd(box);
  return matcher.take_marks();
}

}  // namespace sniper

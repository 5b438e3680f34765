#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>

#include "common/box.h"
#include "common/isa.h"
#include "rpn_targets/rpn_matcher.h"
#include "rpn_targets/rpn_sampler.h"
#include "rpn_targets/rpn_targets.h"

namespace sniper {
namespace {

constexpr int64_t kMaxChipSize = 1 << 20;
constexpr int64_t kMaxAnchors = 1 << 24;
constexpr float kMaxCorner = 1 << 24;  // px: keeps sums of corners and shifts exact enough

constexpr double kEncodeEpsilon = 1e-7;  // 2018 behaviour

void require(bool holds, const char* what, double got, const char* expected) {
  if (holds) return;
  throw std::invalid_argument(std::string("RPN targets: ") + what + " is " + std::to_string(got) +
                              ", expected " + expected + ".");
}

// The boxes that have an area: no anchor overlaps the others.
std::vector<GtBox> read_boxes(const float* rows, int64_t count, const char* kind) {
  std::vector<GtBox> boxes;
  boxes.reserve(static_cast<std::size_t>(count));
  for (int64_t n = 0; n < count; ++n) {
    const float* row = rows + 4 * n;
    if (!is_finite(Box{row[0], row[1], row[2], row[3]})) {
      throw std::invalid_argument(std::string("RPN targets: ") + kind + " box " +
                                  std::to_string(n) + " is (" + std::to_string(row[0]) + ", " +
                                  std::to_string(row[1]) + ", " + std::to_string(row[2]) + ", " +
                                  std::to_string(row[3]) + "), expected four finite numbers.");
    }
    GtBox box = {row[0], row[1], row[2], row[3], 0, 0, 0};
    box.width = box.x2 - box.x1 + 1.0;
    box.height = box.y2 - box.y1 + 1.0;
    box.area = box.width * box.height;
    if (box.width > 0.0 && box.height > 0.0) boxes.push_back(box);
  }
  return boxes;
}

struct Anchor {
  double x1, y1, x2, y2, area;
};

Anchor anchor_at(const RpnAnchors& anchors, int32_t index) {
  const int32_t column = index % anchors.cells, rest = index / anchors.cells;
  const AnchorShape& shape = anchors.shapes[static_cast<std::size_t>(rest / anchors.cells)];
  const double x = column * anchors.stride, y = rest % anchors.cells * anchors.stride;
  return {shape.x.low + x, shape.y.low + y, shape.x.high + x, shape.y.high + y, shape.area};
}

SNIPER_ALWAYS_INLINE void anchor_overlaps(const Anchor& anchor, const double* x1, const double* y1,
                                          const double* x2, const double* y2, const double* areas,
                                          int64_t count, double* overlaps) {
  const Anchor a = anchor;
  for (int64_t n = 0; n < count; ++n) {
    const double right = a.x2 < x2[n] ? a.x2 : x2[n], left = a.x1 > x1[n] ? a.x1 : x1[n];
    const double bottom = a.y2 < y2[n] ? a.y2 : y2[n], top = a.y1 > y1[n] ? a.y1 : y1[n];
    const double width = right - left + 1.0, height = bottom - top + 1.0;
    const double intersection = (width > 0.0 ? width : 0.0) * (height > 0.0 ? height : 0.0);
    overlaps[n] = intersection / (a.area + areas[n] - intersection);
  }
}

// Finds the box that an anchor overlaps most.
class BestBox {
 public:
  explicit BestBox(const std::vector<GtBox>& boxes) : boxes_(boxes) {
    for (auto* column : {&x1_, &y1_, &x2_, &y2_, &areas_}) column->reserve(boxes.size());
    for (const GtBox& box : boxes) {
      x1_.push_back(box.x1);
      y1_.push_back(box.y1);
      x2_.push_back(box.x2);
      y2_.push_back(box.y2);
      areas_.push_back(box.area);
    }
    overlaps_.resize(boxes.size());
  }

  // Ties go to the first.
  const GtBox& of(const Anchor& anchor) {
    per_isa<anchor_overlaps>(anchor, x1_.data(), y1_.data(), x2_.data(), y2_.data(), areas_.data(),
                             static_cast<int64_t>(boxes_.size()), overlaps_.data());
    const auto best = std::max_element(overlaps_.begin(), overlaps_.end());
    return boxes_[static_cast<std::size_t>(best - overlaps_.begin())];
  }

 private:
  const std::vector<GtBox>& boxes_;
  std::vector<double> x1_, y1_, x2_, y2_, areas_, overlaps_;
};

// The same as sniper.boxes.encode.
void encode(const Anchor& anchor, const GtBox& box, float* values) {
  const double width = anchor.x2 - anchor.x1 + 1.0, height = anchor.y2 - anchor.y1 + 1.0;
  const double centre_x = anchor.x1 + 0.5 * (width - 1.0);
  const double centre_y = anchor.y1 + 0.5 * (height - 1.0);
  const double box_x = box.x1 + 0.5 * (box.width - 1.0), box_y = box.y1 + 0.5 * (box.height - 1.0);
  values[0] = static_cast<float>((box_x - centre_x) / (width + kEncodeEpsilon));
  values[1] = static_cast<float>((box_y - centre_y) / (height + kEncodeEpsilon));
  values[2] = static_cast<float>(std::log(box.width / (width + kEncodeEpsilon)));
  values[3] = static_cast<float>(std::log(box.height / (height + kEncodeEpsilon)));
}

AnchorAxis make_axis(double low, double high, const RpnAnchors& anchors, double chip_size,
                     double border) {
  AnchorAxis axis;
  axis.low = low;
  axis.high = high;
  axis.length = high - low + 1.0;
  for (int32_t cell = 0; cell < anchors.cells; ++cell) {
    const double shift = cell * anchors.stride;
    if (low + shift >= -border && high + shift < chip_size + border) {
      if (axis.trained.last < 0) axis.trained.first = cell;
      axis.trained.last = cell;
    }
  }
  return axis;
}

SNIPER_ALWAYS_INLINE void labels_to_float(const int8_t* label, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(label[i]);
}

}  // namespace

RpnAnchors make_rpn_anchors(const float* base, int64_t count, int64_t stride, int64_t chip_size,
                            double border) {
  require(chip_size >= 1 && chip_size <= kMaxChipSize, "the chip size",
          static_cast<double>(chip_size), "1 to 1048576 px");
  require(stride >= 1 && stride <= chip_size && chip_size % stride == 0, "the feature stride",
          static_cast<double>(stride), "a divisor of the chip size");
  require(std::fabs(border) <= kMaxCorner, "the border", border, "at most 16777216 px");
  const int64_t cells = chip_size / stride;
  require(count >= 1 && count <= kMaxAnchors / (cells * cells), "the number of anchors in a cell",
          static_cast<double>(count), "1 or more, and at most 16777216 anchors in all");
  RpnAnchors anchors;
  anchors.cells = static_cast<int32_t>(cells);
  anchors.stride = static_cast<double>(stride);
  for (int64_t n = 0; n < count; ++n) {
    const float* row = base + 4 * n;
    for (int64_t k = 0; k < 4; ++k) {
      require(std::fabs(row[k]) <= kMaxCorner, "a corner of an anchor", row[k],
              "at most 16777216 px from the origin");
    }
    require(row[0] <= row[2] && row[1] <= row[3], "the right or lower end of an anchor",
            row[0] <= row[2] ? row[3] : row[2], "no less than its left or upper end");
    const double size = static_cast<double>(chip_size);
    AnchorShape shape;
    shape.x = make_axis(row[0], row[2], anchors, size, border);
    shape.y = make_axis(row[1], row[3], anchors, size, border);
    shape.area = shape.x.length * shape.y.length;
    anchors.shapes.push_back(shape);
  }
  const int64_t blocks = (anchors.count() + kRpnBlock - 1) / kRpnBlock;
  anchors.first_marks.assign(static_cast<std::size_t>(blocks * kRpnBlock), kRpnIgnored);
  for (std::size_t s = 0; s < anchors.shapes.size(); ++s) {
    const AnchorShape& shape = anchors.shapes[s];
    for (int32_t row = shape.y.trained.first; row <= shape.y.trained.last; ++row) {
      uint8_t* marks = anchors.first_marks.data() + (s * cells + row) * cells;
      for (int32_t c = shape.x.trained.first; c <= shape.x.trained.last; ++c) marks[c] = 0;
    }
  }
  return anchors;
}

void check_rpn_settings(const RpnSettings& settings) {
  require(settings.positive_overlap > 0.0 && settings.positive_overlap <= 1.0,
          "the positive overlap", settings.positive_overlap, "above 0 and at most 1");
  require(settings.negative_overlap >= 0.0 && settings.negative_overlap <= 1.0,
          "the negative overlap", settings.negative_overlap, "0 to 1");
  require(settings.ignore_overlap >= 0.0 && settings.ignore_overlap <= 1.0, "the ignore overlap",
          settings.ignore_overlap, "0 to 1");
  require(settings.crowd_ioa >= 0.0 && settings.crowd_ioa <= 1.0, "the share in a crowd region",
          settings.crowd_ioa, "0 to 1");
  require(settings.batch_size >= 0, "the number of sampled anchors",
          static_cast<double>(settings.batch_size), "0 or more");
  require(settings.max_positives >= 0, "the number of sampled positives",
          static_cast<double>(settings.max_positives), "0 or more");
}

RpnPositives rpn_targets_cpu(const RpnAnchors& anchors, const RpnSettings& settings,
                             const float* valid, int64_t num_valid, const float* invalid,
                             int64_t num_invalid, const float* crowd, int64_t num_crowd,
                             uint64_t seed, int8_t* label) {
  const std::vector<GtBox> boxes = read_boxes(valid, num_valid, "valid");
  const std::vector<GtBox> other_boxes = read_boxes(invalid, num_invalid, "invalid");
  const std::vector<GtBox> regions = read_boxes(crowd, num_crowd, "crowd");
  std::vector<uint8_t> marks =
      mark_anchors(anchors, settings, boxes, num_valid > 0, other_boxes, regions);
  RpnPositives positives;
  positives.index = sample_labels(settings, seed, anchors.count(), &marks, label);
  positives.values.resize(positives.index.size() * 4);
  BestBox best(boxes);
  for (std::size_t i = 0; i < positives.index.size(); ++i) {
    const Anchor anchor = anchor_at(anchors, positives.index[i]);
    encode(anchor, best.of(anchor), positives.values.data() + 4 * i);
  }
  return positives;
}

void expand_rpn_cpu(const int8_t* label, int64_t anchors, int64_t cells, const int32_t* index,
                    const float* values, int64_t count, float* out_label, float* out_target,
                    float* out_weight) {
  for (int64_t i = 0; i < count; ++i) {
    require(index[i] >= 0 && index[i] < anchors * cells, "the index of a positive anchor", index[i],
            "the number of an anchor");
  }
  per_isa<labels_to_float>(label, anchors * cells, out_label);
  std::fill(out_target, out_target + 4 * anchors * cells, 0.0f);
  std::fill(out_weight, out_weight + 4 * anchors * cells, 0.0f);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t anchor = index[i] / cells, cell = index[i] % cells;
    for (int64_t k = 0; k < 4; ++k) {
      out_target[(4 * anchor + k) * cells + cell] = values[4 * i + k];
      out_weight[(4 * anchor + k) * cells + cell] = 1.0f;
    }
  }
}

}  // namespace sniper

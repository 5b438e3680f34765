// Labels and regression targets of the region proposal network for one chip (2018 behaviour).
//
// Decisions compare the double precision quotient intersection / union, with +1 sides. It is found
// without looking at every anchor. The anchors of one shape stand on a grid, so their intersection
// with a box is one length that depends on the column times one that depends on the row; and since
// rounding keeps the order of numbers, the computed quotient, too, grows with both lengths. So the
// longest column length and the longest row length give a shape's largest quotient to the last bit,
// and the anchors that reach a given quotient lie in a window of columns and rows.
#ifndef SNIPER_NATIVE_RPN_TARGETS_RPN_TARGETS_H_
#define SNIPER_NATIVE_RPN_TARGETS_RPN_TARGETS_H_

#include <cstdint>
#include <vector>

namespace sniper {

struct RpnSettings {
  double positive_overlap = 0.5;  // positive from this IoU with a valid box on; above 0
  double negative_overlap = 0.4;  // negative below this IoU with every valid box
  double ignore_overlap = 0.3;    // not trained above this IoU with an invalid box
  double crowd_ioa = 0.9;         // not negative above this share of its area in a crowd region
  int64_t batch_size = 256;       // most anchors with a label of 0 or 1
  int64_t max_positives = 128;    // most anchors with a label of 1
};

// Closed range of feature cells along one axis; empty when last < first.
struct CellRange {
  int32_t first = 0, last = -1;
};

// One axis of the anchors of one shape: an interval in every cell.
struct AnchorAxis {
  double low = 0, high = 0;  // inclusive, of cell 0, chip px
  double length = 0;         // +1
  CellRange trained;         // cells whose interval does not stick out of the chip too far
};

// The anchors of one shape.
struct AnchorShape {
  AnchorAxis x, y;
  double area = 0;
};

// All anchors of a chip; anchor i = (shape * cells + row) * cells + column. Made once, never
// changed.
struct RpnAnchors {
  int32_t cells = 0;  // per side of the chip
  double stride = 1;  // px per cell
  std::vector<AnchorShape> shapes;
  // One mark per anchor, filled up to whole blocks: which anchors are not trained whatever boxes
  // there are.
  std::vector<uint8_t> first_marks;

  int64_t count() const { return static_cast<int64_t>(shapes.size()) * cells * cells; }
};

// Positive anchors and their regression targets.
struct RpnPositives {
  std::vector<int32_t> index;  // ascending
  std::vector<float> values;   // 4 each: dx, dy, dw, dh
};

// base: (count, 4) float32 x1 y1 x2 y2 of the cell in row 0 and column 0. Anchors that stick out of
// the chip by more than `border` px are not trained. Throws std::invalid_argument when a number
// makes no sense.
RpnAnchors make_rpn_anchors(const float* base, int64_t count, int64_t stride, int64_t chip_size,
                            double border);

// Throws std::invalid_argument when a number makes no sense.
void check_rpn_settings(const RpnSettings& settings);

// Targets of one chip. Positive are, for every valid box, the anchors with the largest IoU with it
// (all ties, if it is above 0), and all anchors with IoU >= positive_overlap. A surplus of
// positives and then of negatives is given up by chance: numbers come from draw_below
// (common/splitmix.h), one stream for both, and are places in the list of positives, and anchors.
// Drawing goes on until enough different positives (negatives) have been met: all that are kept or,
// where these are more, all that are given up.
//
// valid: (num_valid, 4), invalid: (num_invalid, 4), crowd: (num_crowd, 4) float32, chip px.
// label: (anchors.count()) of -1, 0, 1.
// Throws std::invalid_argument for a box that is not finite.
RpnPositives rpn_targets_cpu(const RpnAnchors& anchors, const RpnSettings& settings,
                             const float* valid, int64_t num_valid, const float* invalid,
                             int64_t num_invalid, const float* crowd, int64_t num_crowd,
                             uint64_t seed, int8_t* label);

// The dense float32 planes of one chip: label (anchors, cells), target and weight
// (4 * anchors, cells) with channel 4 * anchor + k and zeros except at the `count` positives.
// Throws std::invalid_argument, before anything is written, when an index is none.
void expand_rpn_cpu(const int8_t* label, int64_t anchors, int64_t cells, const int32_t* index,
                    const float* values, int64_t count, float* out_label, float* out_target,
                    float* out_weight);

}  // namespace sniper

#endif  // SNIPER_NATIVE_RPN_TARGETS_RPN_TARGETS_H_

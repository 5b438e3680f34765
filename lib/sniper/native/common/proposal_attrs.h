// Attributes that the proposal operators have in common (MXNet glue).
#ifndef SNIPER_NATIVE_COMMON_PROPOSAL_ATTRS_H_
#define SNIPER_NATIVE_COMMON_PROPOSAL_ATTRS_H_

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/anchors.h"
#include "common/op.h"
#include "common/proposals.h"

namespace sniper {

// Rows of an output that has `rows_per_image` for each image. Throws when there are too many.
inline unsigned int batch_rows(const InputShapes& in, int rows_per_image) {
  const std::int64_t rows = static_cast<std::int64_t>(in["N"]) * rows_per_image;
  if (rows > kMaxRows) {
    throw std::runtime_error(std::string(in.op()) + ": " + std::to_string(in["N"]) +
                             " images with " + std::to_string(rows_per_image) +
                             " rows each are too many, expected at most " +
                             std::to_string(kMaxRows) + " rows in all.");
  }
  return static_cast<unsigned int>(rows);
}

// The default numbers are those that 2018 really used, whatever its attributes said.
struct ProposalAttrs {
  std::vector<float> scales, ratios;
  int feature_stride;
  ProposalLimits limits;
  float min_size;

  // The names are those of 2018, so that its symbol files load.
  ProposalAttrs(Attrs& attrs, std::int64_t default_pre_nms_top_n)
      : scales(attrs.get_floats("scales", {2, 4, 7, 10, 13, 16, 24}, kAnchorSideRange)),
        ratios(attrs.get_floats("ratios", {0.5f, 1, 2}, kAnchorSideRange)),
        feature_stride(attrs.get_int("feature_stride", 16, kFeatureStrideRange)),
        limits{attrs.get_int("rpn_pre_nms_top_n", default_pre_nms_top_n, kPreNmsRange),
               attrs.get_int("rpn_post_nms_top_n", 300, kPostNmsRange),
               attrs.get_float("threshold", 0.7f, kNmsThresholdRange)},
        min_size(attrs.get_float("rpn_min_size", 3.0f, kMinSizeRange)) {
    attrs.ignore({"batch_size", "bbox_scale", "workspace", "roi_iou_thresh"});  // even in 2018
  }

  // Throws unless bbox_pred is (N, 4A, h, w).
  void match_bbox_pred(InputShapes* in) const {
    in->match("bbox_pred", {"N", 4 * num_anchors(), "h", "w"}, anchors_note());
  }

  std::string anchors_note() const {
    return " for " + std::to_string(num_anchors()) + " anchors (scales x ratios)";
  }

  unsigned int num_anchors() const {
    return static_cast<unsigned int>(scales.size() * ratios.size());
  }

  std::vector<Box> base_anchors() const {
    return make_base_anchors(static_cast<float>(feature_stride), ratios, scales);
  }

  // Of the map bbox_pred, the second input.
  template <class Call>
  AnchorGrid grid(const std::vector<Box>& base, const Call& call) const {
    return {base.data(), static_cast<int>(base.size()), static_cast<int>(call.size(1, 2)),
            static_cast<int>(call.size(1, 3)), static_cast<float>(feature_stride)};
  }
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_PROPOSAL_ATTRS_H_

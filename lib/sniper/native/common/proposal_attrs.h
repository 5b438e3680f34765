// Attributes and input shapes that the proposal operators have in common (MXNet glue).
#ifndef SNIPER_NATIVE_COMMON_PROPOSAL_ATTRS_H_
#define SNIPER_NATIVE_COMMON_PROPOSAL_ATTRS_H_

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/anchors.h"
#include "common/attrs.h"
#include "common/glue.h"
#include "common/proposals.h"

namespace sniper {

constexpr unsigned long long kMaxRows = 1 << 24;  // of an output, over the batch

// Rows of an output that has `rows_per_image` for each image.
inline unsigned int batch_rows(const char* op, unsigned int num_images, int rows_per_image) {
  const unsigned long long rows = static_cast<unsigned long long>(num_images) * rows_per_image;
  if (rows > kMaxRows) {
    throw std::runtime_error(std::string(op) + ": " + std::to_string(num_images) + " images with " +
                             std::to_string(rows_per_image) +
                             " rows each are too many, expected at most 16777216 rows in all.");
  }
  return static_cast<unsigned int>(rows);
}

struct ProposalAttrs {
  std::vector<float> scales, ratios;
  int feature_stride;
  std::int64_t pre_nms_top_n;  // -1: all
  int post_nms_top_n;
  float nms_threshold;
  float min_size;

  // The names are those of 2018, so that its symbol files load. The last four had no effect on the
  // result even then.
  static Attrs::Names names() {
    static const auto list = {"scales",
                              "ratios",
                              "feature_stride",
                              "threshold",
                              "rpn_min_size",
                              "rpn_pre_nms_top_n",
                              "rpn_post_nms_top_n",
                              "batch_size",
                              "bbox_scale",
                              "workspace",
                              "roi_iou_thresh"};
    return list;
  }

  // The default numbers are those that 2018 really used, whatever its attributes said.
  static ProposalAttrs parse(const Attrs& attrs, std::int64_t default_pre_nms_top_n) {
    ProposalAttrs parsed;
    parsed.scales = sides(attrs, "scales", {2, 4, 7, 10, 13, 16, 24});
    parsed.ratios = sides(attrs, "ratios", {0.5f, 1, 2});
    parsed.feature_stride = static_cast<int>(attrs.get_int("feature_stride", 16, 1, 4096));
    parsed.pre_nms_top_n =
        attrs.get_int("rpn_pre_nms_top_n", default_pre_nms_top_n, -1, 0xFFFFFFFFLL);
    parsed.post_nms_top_n = static_cast<int>(attrs.get_int("rpn_post_nms_top_n", 300, 1, 100000));
    parsed.nms_threshold = attrs.get_float("threshold", 0.7f, 0.0f, 1.0f);
    parsed.min_size = attrs.get_float("rpn_min_size", 3.0f, 0.0f, 1e6f);
    return parsed;
  }

  unsigned int num_anchors() const {
    return static_cast<unsigned int>(scales.size() * ratios.size());
  }

  std::vector<Box> base_anchors() const {
    return make_base_anchors(static_cast<float>(feature_stride), ratios, scales);
  }

  // `bbox_pred` is the shape (N, 4A, h, w).
  AnchorGrid grid(const std::vector<Box>& base, const std::vector<std::int64_t>& bbox_pred) const {
    return {base.data(), static_cast<int>(base.size()), static_cast<int>(bbox_pred.at(2)),
            static_cast<int>(bbox_pred.at(3)), static_cast<float>(feature_stride)};
  }

  ProposalLimits limits() const { return {pre_nms_top_n, post_nms_top_n, nms_threshold}; }

  // Output rows of a batch of `num_images`. Throws when MXNet could not hold them.
  unsigned int rows(const char* op, unsigned int num_images) const {
    return batch_rows(op, num_images, post_nms_top_n);
  }

 private:
  // Values above 0 that float32 boxes can be made of.
  static std::vector<float> sides(const Attrs& attrs, const char* name,
                                  const std::vector<float>& fallback) {
    std::vector<float> values = attrs.get_positive_floats(name, fallback);
    for (const float value : values) {
      if (!(value >= 1e-6f && value <= 1e6f)) {
        throw attrs.error("attribute '" + std::string(name) + "' has the value " +
                          std::to_string(value) + ", expected numbers from 1e-6 to 1e6");
      }
    }
    return values;
  }
};

// bbox_pred (N, 4A, h, w) and im_info (N, 3) for N = `num_images`.
inline void require_proposal_inputs(const char* op, const ProposalAttrs& attrs,
                                    unsigned int num_images, const Shape& bbox_pred,
                                    const Shape& im_info) {
  require_rank(op, "bbox_pred", bbox_pred, 4);
  require_rank(op, "im_info", im_info, 2);
  require_shape(bbox_pred[0] == num_images && bbox_pred[1] == 4 * attrs.num_anchors(), op,
                "bbox_pred", bbox_pred,
                "(" + std::to_string(num_images) + ", " + std::to_string(4 * attrs.num_anchors()) +
                    ", h, w) for " + std::to_string(attrs.num_anchors()) +
                    " anchors (scales x ratios)");
  require_shape(im_info[0] == num_images && im_info[1] == 3, op, "im_info", im_info,
                "(" + std::to_string(num_images) + ", 3)");
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_PROPOSAL_ATTRS_H_

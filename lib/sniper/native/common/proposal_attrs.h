// Attributes and input shapes that the proposal operators have in common (MXNet glue).
#ifndef SNIPER_NATIVE_COMMON_PROPOSAL_ATTRS_H_
#define SNIPER_NATIVE_COMMON_PROPOSAL_ATTRS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/anchors.h"
#include "common/attrs.h"
#include "common/glue.h"
#include "common/proposals.h"

namespace sniper {

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
    parsed.scales = attrs.get_positive_floats("scales", {2, 4, 7, 10, 13, 16, 24});
    parsed.ratios = attrs.get_positive_floats("ratios", {0.5f, 1, 2});
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

  // Output rows of a batch of `num_images`.
  unsigned int rows(unsigned int num_images) const {
    return num_images * static_cast<unsigned int>(post_nms_top_n);
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

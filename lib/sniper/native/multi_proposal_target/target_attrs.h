// Attributes and input shapes of the two target operators (MXNet glue).
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_TARGET_ATTRS_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_TARGET_ATTRS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/attrs.h"
#include "common/glue.h"
#include "common/proposal_attrs.h"
#include "multi_proposal_target/multi_proposal_target.h"

namespace sniper {

struct TargetAttrs : ProposalAttrs {
  TargetRules rules;

  static TargetAttrs parse(const Attrs& attrs, std::int64_t default_pre_nms_top_n,
                           TargetRules rules) {
    rules.legacy_gt_centre = attrs.get_bool("legacy_gt_centre", rules.legacy_gt_centre);
    rules.legacy_areas = attrs.get_bool("legacy_areas", rules.legacy_areas);
    rules.legacy_min_size = attrs.get_bool("legacy_min_size", rules.legacy_min_size);
    return {ProposalAttrs::parse(attrs, default_pre_nms_top_n), rules};
  }

  // `base` are the base anchors, which must outlive the result.
  MultiProposalTargetParams params(const std::vector<Box>& base,
                                   const std::vector<mxnet::ext::MXTensor>& inputs) const {
    MultiProposalTargetParams result;
    result.num_images = static_cast<int>(inputs.at(0).shape[0]);
    result.max_gt = static_cast<int>(inputs.at(3).shape[1]);
    result.grid = grid(base, inputs.at(1).shape);
    result.limits = limits();
    result.min_size = min_size;
    result.rules = rules;
    return result;
  }
};

// cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges.
inline void require_target_types(const char* op, std::vector<int>* in, std::vector<int>* out) {
  require_float32(op, {"cls_prob", "bbox_pred", "im_info", "gt_boxes", "valid_ranges"}, in, out);
}

inline void require_target_shapes(const char* op, const TargetAttrs& attrs,
                                  const std::vector<Shape>& in) {
  const Shape &cls_prob = in.at(0), &bbox_pred = in.at(1), &gt_boxes = in.at(3),
              &valid_ranges = in.at(4);
  require_rank(op, "cls_prob", cls_prob, 4);
  const unsigned int num_images = cls_prob[0];
  require_proposal_inputs(op, attrs, num_images, bbox_pred, in.at(2));
  require_shape(cls_prob[1] == 2 && cls_prob[2] == attrs.num_anchors() * bbox_pred[2] &&
                    cls_prob[3] == bbox_pred[3],
                op, "cls_prob", cls_prob,
                "(N, 2, A * h, w) for the (N, 4A, h, w) of bbox_pred, A = " +
                    std::to_string(attrs.num_anchors()));
  require_rank(op, "gt_boxes", gt_boxes, 3);
  require_shape(gt_boxes[0] == num_images && gt_boxes[2] == 5, op, "gt_boxes", gt_boxes,
                "(" + std::to_string(num_images) + ", rows, 5)");
  require_rank(op, "valid_ranges", valid_ranges, 2);
  require_shape(valid_ranges[0] == num_images && valid_ranges[1] == 2, op, "valid_ranges",
                valid_ranges, "(" + std::to_string(num_images) + ", 2)");
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_TARGET_ATTRS_H_

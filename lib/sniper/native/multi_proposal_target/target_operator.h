// What the glue of the two target operators has in common.
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_TARGET_OPERATOR_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_TARGET_OPERATOR_H_

#include <cstdint>
#include <vector>

#include "common/op.h"
#include "common/proposal_attrs.h"
#include "multi_proposal_target/multi_proposal_target.h"

namespace sniper {

struct TargetOperator : Operator, ProposalAttrs {
  static constexpr std::array kInputs = {"cls_prob", "bbox_pred", "im_info", "gt_boxes",
                                         "valid_ranges"};

  TargetRules rules;
  std::vector<std::int32_t> super_of;  // empty: labels are classes

  TargetOperator(Attrs& attrs, std::int64_t default_pre_nms_top_n, const TargetRules& of_2018)
      : ProposalAttrs(attrs, default_pre_nms_top_n), rules(of_2018) {
    rules.legacy_gt_centre = attrs.get_bool("legacy_gt_centre", rules.legacy_gt_centre);
    rules.legacy_areas = attrs.get_bool("legacy_areas", rules.legacy_areas);
    rules.legacy_min_size = attrs.get_bool("legacy_min_size", rules.legacy_min_size);
    super_of = attrs.get_ints("super_of", kSuperClassRange, kMaxClasses);
    const bool super = attrs.get_word("label_mode", {"class", "super_class"}) == "super_class";
    if (super == super_of.empty()) {
      throw attrs.error("label_mode 'super_class' and the attribute 'super_of' need each other");
    }
  }

  // rois, label, bbox_target, bbox_weight.
  Shapes output_shapes(InputShapes& in) const {
    match_bbox_pred(&in);
    in.match("cls_prob", {"N", 2, std::uint64_t{num_anchors()} * in["h"], "w"}, anchors_note());
    in.match("im_info", {"N", 3});
    in.match("gt_boxes", {"N", "rows", 5});
    in.match("valid_ranges", {"N", 2});
    const unsigned int rows = batch_rows(in, limits.post_nms_top_n);
    return {{rows, 5}, {rows, 1}, {rows, 4}, {rows, 4}};
  }

  // `base` are the base anchors, which must outlive the result.
  template <class Call>
  MultiProposalTargetParams params(const std::vector<Box>& base, const Call& call) const {
    return {static_cast<int>(call.size(0, 0)),
            static_cast<int>(call.size(3, 1)),
            grid(base, call),
            limits,
            min_size,
            rules,
            {super_of.data(), static_cast<int>(super_of.size())}};
  }
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_TARGET_OPERATOR_H_

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
                                         "valid_ranges", "crowd_boxes"};

  TargetRules rules;
  bool with_crowd;
  float crowd_ioa;
  std::vector<float> soft_sampling;    // a, b, c; empty: no weights are asked for
  std::vector<std::int32_t> super_of;  // empty: labels are classes

  TargetOperator(Attrs& attrs, std::int64_t default_pre_nms_top_n, const TargetRules& of_2018)
      : ProposalAttrs(attrs, default_pre_nms_top_n),
        rules(of_2018),
        with_crowd(attrs.get_bool("with_crowd", false)),
        crowd_ioa(attrs.get_float("crowd_ioa", kCrowdIoa, {0, 1})),
        soft_sampling(attrs.get_floats("soft_sampling", {}, kSoftSamplingRange)) {
    if (!soft_sampling.empty() && (soft_sampling.size() != 3 || soft_sampling[0] > 1)) {
      throw attrs.error("attribute 'soft_sampling' takes three numbers a, b, c, a at most 1");
    }
    rules.legacy_gt_centre = attrs.get_bool("legacy_gt_centre", rules.legacy_gt_centre);
    rules.legacy_areas = attrs.get_bool("legacy_areas", rules.legacy_areas);
    rules.legacy_min_size = attrs.get_bool("legacy_min_size", rules.legacy_min_size);
    super_of = attrs.get_ints("super_of", kSuperClassRange, kMaxClasses);
    const bool super = attrs.get_word("label_mode", {"class", "super_class"}) == "super_class";
    if (super == super_of.empty()) {
      throw attrs.error("label_mode 'super_class' and the attribute 'super_of' need each other");
    }
  }

  bool has_last_input() const { return with_crowd; }
  bool has_last_output() const { return !soft_sampling.empty(); }

  // rois, label, bbox_target, bbox_weight.
  Shapes target_shapes(InputShapes& in) const {
    match_bbox_pred(&in);
    in.match("cls_prob", {"N", 2, std::uint64_t{num_anchors()} * in["h"], "w"}, anchors_note());
    in.match("im_info", {"N", 3});
    in.match("gt_boxes", {"N", "rows", 5});
    in.match("valid_ranges", {"N", 2});
    if (with_crowd) in.match("crowd_boxes", {"N", "crowd rows", 5});
    const unsigned int rows = batch_rows(in, limits.post_nms_top_n);
    return {{rows, 5}, {rows, 1}, {rows, 4}, {rows, 4}};
  }

  // `base` are the base anchors, which must outlive the result.
  template <class Call>
  MultiProposalTargetParams params(const std::vector<Box>& base, const Call& call) const {
    const bool weights = !soft_sampling.empty();
    return {static_cast<int>(call.size(0, 0)),
            static_cast<int>(call.size(3, 1)),
            with_crowd ? static_cast<int>(call.size(5, 1)) : 0,
            crowd_ioa,
            weights ? SoftSampling{soft_sampling[0], soft_sampling[1], soft_sampling[2]}
                    : kSoftSampling,
            grid(base, call),
            limits,
            min_size,
            rules,
            {super_of.data(), static_cast<int>(super_of.size())}};
  }
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_TARGET_TARGET_OPERATOR_H_

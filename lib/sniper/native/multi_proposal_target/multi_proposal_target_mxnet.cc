// MXNet glue of MultiProposalTarget: attributes, shapes, types, dispatch.
#include "common/attrs.h"
#include "common/glue.h"
#include "common/proposal_attrs.h"
#include "multi_proposal_target/multi_proposal_target.h"

namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using sniper::RawAttrs;
using sniper::Shape;

constexpr char kName[] = "MultiProposalTarget";
constexpr std::int64_t kPreNmsTopN = -1;

struct TargetAttrs : sniper::ProposalAttrs {
  bool legacy_gt_centre;
};

TargetAttrs read_attrs(const RawAttrs& raw) {
  const sniper::Attrs attrs(kName, raw, sniper::ProposalAttrs::names(), {"legacy_gt_centre"});
  return {sniper::ProposalAttrs::parse(attrs, kPreNmsTopN),
          attrs.get_bool("legacy_gt_centre", true)};
}

MXReturnValue parse_attrs(const RawAttrs& raw, int* num_in, int* num_out) {
  return sniper::guarded([&] {
    read_attrs(raw);
    *num_in = 5;
    *num_out = 4;
  });
}

MXReturnValue infer_type(const RawAttrs&, std::vector<int>* in, std::vector<int>* out) {
  return sniper::guarded([&] {
    sniper::require_float32(kName, {"cls_prob", "bbox_pred", "im_info", "gt_boxes", "valid_ranges"},
                            in, out);
  });
}

MXReturnValue infer_shape(const RawAttrs& raw, std::vector<Shape>* in, std::vector<Shape>* out) {
  return sniper::guarded([&] {
    const TargetAttrs attrs = read_attrs(raw);
    const Shape &cls_prob = in->at(0), &bbox_pred = in->at(1), &gt_boxes = in->at(3),
                &valid_ranges = in->at(4);
    sniper::require_rank(kName, "cls_prob", cls_prob, 4);
    const unsigned int num_images = cls_prob[0];
    sniper::require_proposal_inputs(kName, attrs, num_images, bbox_pred, in->at(2));
    sniper::require_shape(cls_prob[1] == 2 && cls_prob[2] == attrs.num_anchors() * bbox_pred[2] &&
                              cls_prob[3] == bbox_pred[3],
                          kName, "cls_prob", cls_prob,
                          "(N, 2, A * h, w) for the (N, 4A, h, w) of bbox_pred, A = " +
                              std::to_string(attrs.num_anchors()));
    sniper::require_rank(kName, "gt_boxes", gt_boxes, 3);
    sniper::require_shape(gt_boxes[0] == num_images && gt_boxes[2] == 5, kName, "gt_boxes",
                          gt_boxes, "(" + std::to_string(num_images) + ", rows, 5)");
    sniper::require_rank(kName, "valid_ranges", valid_ranges, 2);
    sniper::require_shape(valid_ranges[0] == num_images && valid_ranges[1] == 2, kName,
                          "valid_ranges", valid_ranges, "(" + std::to_string(num_images) + ", 2)");
    const unsigned int rows = attrs.rows(num_images);
    *out = {{rows, 5}, {rows, 1}, {rows, 4}, {rows, 4}};
  });
}

MXReturnValue forward(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                      std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] {
    const TargetAttrs attrs = read_attrs(raw);
    const std::vector<sniper::Box> base = attrs.base_anchors();
    sniper::MultiProposalTargetParams params;
    params.num_images = static_cast<int>(inputs->at(0).shape[0]);
    params.max_gt = static_cast<int>(inputs->at(3).shape[1]);
    params.grid = attrs.grid(base, inputs->at(1).shape);
    params.limits = attrs.limits();
    params.min_size = attrs.min_size;
    params.legacy_gt_centre = attrs.legacy_gt_centre;
    sniper::multi_proposal_target_cpu(params, inputs->at(0).data<float>(),
                                      inputs->at(1).data<float>(), inputs->at(2).data<float>(),
                                      inputs->at(3).data<float>(), inputs->at(4).data<float>(),
                                      outputs->at(0).data<float>(), outputs->at(1).data<float>(),
                                      outputs->at(2).data<float>(), outputs->at(3).data<float>());
  });
}

}  // namespace

REGISTER_OP(MultiProposalTarget)
    .setForward(forward, "cpu")
    .setBackward(sniper::zero_backward, "cpu")
    .setParseAttrs(parse_attrs)
    .setInferType(infer_type)
    .setInferShape(infer_shape);

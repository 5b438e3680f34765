// MXNet glue of MultiProposalTargetMask: attributes, shapes, types, dispatch.
#include "common/attrs.h"
#include "common/cuda_glue.h"
#include "common/glue.h"
#include "multi_proposal_target/target_attrs.h"
#include "multi_proposal_target_mask/multi_proposal_target_mask.h"
#include "multi_proposal_target_mask/multi_proposal_target_mask_cuda.h"

namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using sniper::RawAttrs;
using sniper::Shape;

constexpr char kName[] = "MultiProposalTargetMask";
constexpr std::int64_t kPreNmsTopN = 6000;
constexpr int kMaxMasks = 100000;

struct TargetMaskAttrs : sniper::TargetAttrs {
  int max_masks;
};

// max_gts and max_crowd are in the symbol files of 2018; the sizes come from the shapes.
TargetMaskAttrs read_attrs(const RawAttrs& raw) {
  const sniper::Attrs attrs(
      kName, raw, sniper::ProposalAttrs::names(),
      {"legacy_gt_centre", "legacy_areas", "legacy_min_size", "max_masks", "max_gts", "max_crowd"});
  return {
      sniper::TargetAttrs::parse(attrs, kPreNmsTopN, sniper::multi_proposal_target_mask_rules()),
      static_cast<int>(attrs.get_int("max_masks", 50, 1, kMaxMasks))};
}

MXReturnValue parse_attrs(const RawAttrs& raw, int* num_in, int* num_out) {
  return sniper::guarded([&] {
    read_attrs(raw);
    *num_in = 5;
    *num_out = 6;
  });
}

MXReturnValue infer_type(const RawAttrs&, std::vector<int>* in, std::vector<int>* out) {
  return sniper::guarded([&] { sniper::require_target_types(kName, in, out); });
}

MXReturnValue infer_shape(const RawAttrs& raw, std::vector<Shape>* in, std::vector<Shape>* out) {
  return sniper::guarded([&] {
    const TargetMaskAttrs attrs = read_attrs(raw);
    sniper::require_target_shapes(kName, attrs, *in);
    const unsigned int num_images = in->at(0)[0];
    const unsigned int rows = attrs.rows(kName, num_images);
    const unsigned int masks = sniper::batch_rows(kName, num_images, attrs.max_masks);
    *out = {{rows, 5}, {rows, 1}, {rows, 4}, {rows, 4}, {masks, 5}, {masks, 1}};
  });
}

// Calls `target` as multi_proposal_target_mask_cpu.
template <class Target>
void run(const RawAttrs& raw, std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
         Target target) {
  const TargetMaskAttrs attrs = read_attrs(raw);
  const std::vector<sniper::Box> base = attrs.base_anchors();
  const sniper::MultiProposalTargetMaskParams params = {attrs.params(base, *inputs),
                                                        attrs.max_masks};
  target(params, inputs->at(0).data<float>(), inputs->at(1).data<float>(),
         inputs->at(2).data<float>(), inputs->at(3).data<float>(), inputs->at(4).data<float>(),
         outputs->at(0).data<float>(), outputs->at(1).data<float>(), outputs->at(2).data<float>(),
         outputs->at(3).data<float>(), outputs->at(4).data<float>(), outputs->at(5).data<float>());
}

MXReturnValue forward_cpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded(
      [&] { run(raw, inputs, outputs, sniper::multi_proposal_target_mask_cpu); });
}

MXReturnValue forward_gpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    run(raw, inputs, outputs,
        SNIPER_GPU_CALL(kName, resource, outputs->at(0),
                        sniper_multi_proposal_target_mask_workspace,
                        sniper_multi_proposal_target_mask_forward));
  });
}

}  // namespace

REGISTER_OP(MultiProposalTargetMask)
    .setForward(forward_cpu, "cpu")
    .setForward(forward_gpu, "gpu")
    .setBackward(sniper::zero_backward, "cpu")
    .setBackward(sniper::zero_backward_gpu<kName>, "gpu")
    .setParseAttrs(parse_attrs)
    .setInferType(infer_type)
    .setInferShape(infer_shape);

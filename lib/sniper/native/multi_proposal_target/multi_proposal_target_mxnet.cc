// MXNet glue of MultiProposalTarget: attributes, shapes, types, dispatch.
#include "common/attrs.h"
#include "common/cuda_glue.h"
#include "common/glue.h"
#include "multi_proposal_target/multi_proposal_target.h"
#include "multi_proposal_target/multi_proposal_target_cuda.h"
#include "multi_proposal_target/target_attrs.h"

namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using sniper::RawAttrs;
using sniper::Shape;
using sniper::TargetAttrs;

constexpr char kName[] = "MultiProposalTarget";
constexpr std::int64_t kPreNmsTopN = -1;

TargetAttrs read_attrs(const RawAttrs& raw) {
  const sniper::Attrs attrs(kName, raw, sniper::ProposalAttrs::names(),
                            {"legacy_gt_centre", "legacy_areas", "legacy_min_size"});
  return TargetAttrs::parse(attrs, kPreNmsTopN, sniper::multi_proposal_target_rules());
}

MXReturnValue parse_attrs(const RawAttrs& raw, int* num_in, int* num_out) {
  return sniper::guarded([&] {
    read_attrs(raw);
    *num_in = 5;
    *num_out = 4;
  });
}

MXReturnValue infer_type(const RawAttrs&, std::vector<int>* in, std::vector<int>* out) {
  return sniper::guarded([&] { sniper::require_target_types(kName, in, out); });
}

MXReturnValue infer_shape(const RawAttrs& raw, std::vector<Shape>* in, std::vector<Shape>* out) {
  return sniper::guarded([&] {
    const TargetAttrs attrs = read_attrs(raw);
    sniper::require_target_shapes(kName, attrs, *in);
    const unsigned int rows = attrs.rows(kName, in->at(0)[0]);
    *out = {{rows, 5}, {rows, 1}, {rows, 4}, {rows, 4}};
  });
}

// Calls `target` as multi_proposal_target_cpu, without matches.
template <class Target>
void run(const RawAttrs& raw, std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
         Target target) {
  const TargetAttrs attrs = read_attrs(raw);
  const std::vector<sniper::Box> base = attrs.base_anchors();
  target(attrs.params(base, *inputs), inputs->at(0).data<float>(), inputs->at(1).data<float>(),
         inputs->at(2).data<float>(), inputs->at(3).data<float>(), inputs->at(4).data<float>(),
         outputs->at(0).data<float>(), outputs->at(1).data<float>(), outputs->at(2).data<float>(),
         outputs->at(3).data<float>());
}

MXReturnValue forward_cpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] {
    run(raw, inputs, outputs, [](const auto& params, auto... pointers) {
      sniper::multi_proposal_target_cpu(params, pointers..., nullptr);
    });
  });
}

MXReturnValue forward_gpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    run(raw, inputs, outputs,
        SNIPER_GPU_CALL(kName, resource, outputs->at(0), sniper_multi_proposal_target_workspace,
                        sniper_multi_proposal_target_forward));
  });
}

}  // namespace

REGISTER_OP(MultiProposalTarget)
    .setForward(forward_cpu, "cpu")
    .setForward(forward_gpu, "gpu")
    .setBackward(sniper::zero_backward, "cpu")
    .setBackward(sniper::zero_backward_gpu<kName>, "gpu")
    .setParseAttrs(parse_attrs)
    .setInferType(infer_type)
    .setInferShape(infer_shape);

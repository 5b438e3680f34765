// MXNet glue of MultiProposal: attributes, shapes, types, dispatch.
#include "common/attrs.h"
#include "common/cuda_glue.h"
#include "common/glue.h"
#include "common/proposal_attrs.h"
#include "multi_proposal/multi_proposal.h"
#include "multi_proposal/multi_proposal_cuda.h"

namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using sniper::RawAttrs;
using sniper::Shape;

constexpr char kName[] = "MultiProposal";
constexpr std::int64_t kPreNmsTopN = 12000;

sniper::ProposalAttrs read_attrs(const RawAttrs& raw) {
  const sniper::Attrs attrs(kName, raw, sniper::ProposalAttrs::names());
  return sniper::ProposalAttrs::parse(attrs, kPreNmsTopN);
}

MXReturnValue parse_attrs(const RawAttrs& raw, int* num_in, int* num_out) {
  return sniper::guarded([&] {
    read_attrs(raw);
    *num_in = 3;
    *num_out = 2;
  });
}

MXReturnValue infer_type(const RawAttrs&, std::vector<int>* in, std::vector<int>* out) {
  return sniper::guarded(
      [&] { sniper::require_float32(kName, {"cls_prob", "bbox_pred", "im_info"}, in, out); });
}

MXReturnValue infer_shape(const RawAttrs& raw, std::vector<Shape>* in, std::vector<Shape>* out) {
  return sniper::guarded([&] {
    const sniper::ProposalAttrs attrs = read_attrs(raw);
    const Shape& cls_prob = in->at(0);
    sniper::require_rank(kName, "cls_prob", cls_prob, 4);
    sniper::require_shape(cls_prob[1] == 2 * attrs.num_anchors(), kName, "cls_prob", cls_prob,
                          "(N, 2A, h, w) with A = " + std::to_string(attrs.num_anchors()) +
                              " anchors (scales x ratios)");
    sniper::require_proposal_inputs(kName, attrs, cls_prob[0], in->at(1), in->at(2));
    sniper::require_shape(in->at(1)[2] == cls_prob[2] && in->at(1)[3] == cls_prob[3], kName,
                          "cls_prob", cls_prob, "the map size of bbox_pred");
    const unsigned int rows = attrs.rows(kName, cls_prob[0]);
    out->at(0) = {rows, 5};
    out->at(1) = {rows};
  });
}

// Calls `propose` as multi_proposal_cpu.
template <class Propose>
void run(const RawAttrs& raw, std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
         Propose propose) {
  const sniper::ProposalAttrs attrs = read_attrs(raw);
  const std::vector<sniper::Box> base = attrs.base_anchors();
  sniper::MultiProposalParams params;
  params.num_images = static_cast<int>(inputs->at(0).shape[0]);
  params.grid = attrs.grid(base, inputs->at(1).shape);
  params.limits = attrs.limits();
  params.min_size = attrs.min_size;
  propose(params, inputs->at(0).data<float>(), inputs->at(1).data<float>(),
          inputs->at(2).data<float>(), outputs->at(0).data<float>(), outputs->at(1).data<float>());
}

MXReturnValue forward_cpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] { run(raw, inputs, outputs, sniper::multi_proposal_cpu); });
}

MXReturnValue forward_gpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    run(raw, inputs, outputs,
        SNIPER_GPU_CALL(kName, resource, outputs->at(0), sniper_multi_proposal_workspace,
                        sniper_multi_proposal_forward));
  });
}

}  // namespace

REGISTER_OP(MultiProposal)
    .setForward(forward_cpu, "cpu")
    .setForward(forward_gpu, "gpu")
    .setBackward(sniper::zero_backward, "cpu")
    .setBackward(sniper::zero_backward_gpu<kName>, "gpu")
    .setParseAttrs(parse_attrs)
    .setInferType(infer_type)
    .setInferShape(infer_shape);

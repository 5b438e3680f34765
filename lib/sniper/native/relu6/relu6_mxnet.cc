// MXNet glue of ReLU6: attributes, shapes, types, dispatch.
#include "common/attrs.h"
#include "common/cuda_glue.h"
#include "common/glue.h"
#include "relu6/relu6.h"
#include "relu6/relu6_cuda.h"

namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using sniper::RawAttrs;
using sniper::Shape;

constexpr char kName[] = "ReLU6";

MXReturnValue parse_attrs(const RawAttrs& raw, int* num_in, int* num_out) {
  return sniper::guarded([&] {
    const sniper::Attrs attrs(kName, raw, {});
    *num_in = 1;
    *num_out = 1;
  });
}

MXReturnValue infer_type(const RawAttrs&, std::vector<int>* in, std::vector<int>* out) {
  return sniper::guarded([&] { sniper::require_float32(kName, {"data"}, in, out); });
}

MXReturnValue infer_shape(const RawAttrs&, std::vector<Shape>* in, std::vector<Shape>* out) {
  return sniper::guarded([&] {
    sniper::require_rank(kName, "data", in->at(0), in->at(0).size());  // any rank, but known
    out->at(0) = in->at(0);
  });
}

// Calls `apply` as relu6_forward_cpu.
template <class Apply>
void run(std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs, Apply apply) {
  const sniper::Relu6Params params{outputs->at(0).size()};
  apply(params, inputs->at(0).data<float>(), outputs->at(0).data<float>());
}

// Calls `propagate` as relu6_backward_cpu. inputs: output gradient, data, output.
template <class Propagate>
void run_backward(std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
                  Propagate propagate) {
  const sniper::Relu6Params params{outputs->at(0).size()};
  propagate(params, inputs->at(0).data<float>(), inputs->at(1).data<float>(),
            outputs->at(0).data<float>());
}

MXReturnValue forward_cpu(const RawAttrs&, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] { run(inputs, outputs, sniper::relu6_forward_cpu); });
}

MXReturnValue forward_gpu(const RawAttrs&, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    run(inputs, outputs,
        SNIPER_GPU_CALL(kName, resource, outputs->at(0), sniper_relu6_workspace,
                        sniper_relu6_forward));
  });
}

MXReturnValue backward_cpu(const RawAttrs&, std::vector<MXTensor>* inputs,
                           std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] { run_backward(inputs, outputs, sniper::relu6_backward_cpu); });
}

MXReturnValue backward_gpu(const RawAttrs&, std::vector<MXTensor>* inputs,
                           std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    run_backward(inputs, outputs,
                 SNIPER_GPU_CALL(kName, resource, outputs->at(0), sniper_relu6_workspace,
                                 sniper_relu6_backward));
  });
}

}  // namespace

REGISTER_OP(ReLU6)
    .setForward(forward_cpu, "cpu")
    .setForward(forward_gpu, "gpu")
    .setBackward(backward_cpu, "cpu")
    .setBackward(backward_gpu, "gpu")
    .setParseAttrs(parse_attrs)
    .setInferType(infer_type)
    .setInferShape(infer_shape);

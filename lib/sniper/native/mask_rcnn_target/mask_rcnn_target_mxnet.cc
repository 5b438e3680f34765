// MXNet glue of MaskRcnnTarget: attributes, shapes, types, dispatch.
#include "common/attrs.h"
#include "common/cuda_glue.h"
#include "common/glue.h"
#include "mask_rcnn_target/mask_rcnn_target.h"
#include "mask_rcnn_target/mask_rcnn_target_cuda.h"

namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using sniper::RawAttrs;
using sniper::Shape;

constexpr char kName[] = "MaskRcnnTarget";
constexpr long long kMaxMaskSize = 1024;
constexpr unsigned long long kMaxPixels = 1 << 29;  // of all masks

// Sizes are not known yet. The last names are in the symbol files of 2018; sizes come from shapes.
sniper::MaskRcnnTargetParams read_attrs(const RawAttrs& raw) {
  const sniper::Attrs attrs(kName, raw,
                            {"mask_size", "ignore_label", "batch_size", "num_proposals",
                             "max_polygon_len", "max_num_gts", "num_classes", "workspace"});
  sniper::MaskRcnnTargetParams params{};
  params.mask_size = static_cast<int>(attrs.get_int("mask_size", 28, 1, kMaxMaskSize));
  params.ignore_label = attrs.get_float("ignore_label", -1.0f, -1e6f, 1e6f);
  return params;
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
      [&] { sniper::require_float32(kName, {"rois", "mask_polys", "mask_ids"}, in, out); });
}

MXReturnValue infer_shape(const RawAttrs& raw, std::vector<Shape>* in, std::vector<Shape>* out) {
  return sniper::guarded([&] {
    const unsigned int side = static_cast<unsigned int>(read_attrs(raw).mask_size);
    const Shape &rois = in->at(0), &mask_polys = in->at(1), &mask_ids = in->at(2);
    sniper::require_rank(kName, "rois", rois, 2);
    sniper::require_shape(rois[1] == 5, kName, "rois", rois, "(R, 5)");
    sniper::require_rank(kName, "mask_polys", mask_polys, 3);
    sniper::require_rank(kName, "mask_ids", mask_ids, 2);
    sniper::require_shape(mask_ids[0] == rois[0] && mask_ids[1] == 1, kName, "mask_ids", mask_ids,
                          "(" + std::to_string(rois[0]) + ", 1)");
    if (static_cast<unsigned long long>(rois[0]) * side * side > kMaxPixels) {
      throw std::runtime_error(std::string(kName) + ": " + std::to_string(rois[0]) + " masks of " +
                               std::to_string(side) + " x " + std::to_string(side) +
                               " are too many, expected at most 536870912 pixels in all.");
    }
    out->at(0) = {rois[0], side, side};
    out->at(1) = {rois[0], side, side};
  });
}

// Calls `rasterize` as mask_rcnn_target_cpu.
template <class Rasterize>
void run(const RawAttrs& raw, std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
         Rasterize rasterize) {
  sniper::MaskRcnnTargetParams params = read_attrs(raw);
  const MXTensor& mask_polys = inputs->at(1);
  params.num_rois = inputs->at(0).shape[0];
  params.num_images = mask_polys.shape[0];
  params.num_polygons = mask_polys.shape[1];
  params.row_length = mask_polys.shape[2];
  rasterize(params, inputs->at(0).data<float>(), inputs->at(1).data<float>(),
            inputs->at(2).data<float>(), outputs->at(0).data<float>(),
            outputs->at(1).data<float>());
}

MXReturnValue forward_cpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] { run(raw, inputs, outputs, sniper::mask_rcnn_target_cpu); });
}

MXReturnValue forward_gpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    run(raw, inputs, outputs,
        SNIPER_GPU_CALL(kName, resource, outputs->at(0), sniper_mask_rcnn_target_workspace,
                        sniper_mask_rcnn_target_forward));
  });
}

}  // namespace

REGISTER_OP(MaskRcnnTarget)
    .setForward(forward_cpu, "cpu")
    .setForward(forward_gpu, "gpu")
    .setBackward(sniper::zero_backward, "cpu")
    .setBackward(sniper::zero_backward_gpu<kName>, "gpu")
    .setParseAttrs(parse_attrs)
    .setInferType(infer_type)
    .setInferShape(infer_shape);

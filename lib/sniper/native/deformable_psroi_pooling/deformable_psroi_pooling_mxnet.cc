// MXNet glue of DeformablePSROIPooling: attributes, shapes, types, dispatch.
#include "common/attrs.h"
#include "common/cuda_glue.h"
#include "common/glue.h"
#include "deformable_psroi_pooling/deformable_psroi_pooling.h"
#include "deformable_psroi_pooling/deformable_psroi_pooling_cuda.h"

namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using sniper::RawAttrs;
using sniper::Shape;

constexpr char kName[] = "DeformablePSROIPooling";
constexpr long long kMaxCells = 1024;  // keeps every product of sizes far from overflow
constexpr long long kMaxChannels = 1 << 24;

// What the attributes say; the sizes of the tensors are filled in by shape_of.
struct Settings {
  sniper::PsRoiShape shape{};
  bool with_trans = false;
};

Settings read_attrs(const RawAttrs& raw) {
  const sniper::Attrs attrs(kName, raw,
                            {"spatial_scale", "output_dim", "pooled_size", "group_size",
                             "part_size", "sample_per_part", "trans_std", "no_trans"});
  for (const char* name : {"spatial_scale", "output_dim", "pooled_size"}) {
    if (raw.count(name) == 0) throw attrs.error(std::string("attribute '") + name + "' is missing");
  }
  Settings settings;
  sniper::PsRoiShape& shape = settings.shape;
  shape.spatial_scale = attrs.get_float("spatial_scale", 0.0f, 1e-6f, 1e6f);
  shape.output_dim = attrs.get_int("output_dim", 0, 1, kMaxChannels);
  shape.pooled = static_cast<int>(attrs.get_int("pooled_size", 0, 1, kMaxCells));
  shape.group = static_cast<int>(attrs.get_int("group_size", 1, 1, kMaxCells));
  shape.part = static_cast<int>(attrs.get_int("part_size", 0, 0, kMaxCells));
  if (shape.part == 0) shape.part = shape.pooled;
  shape.samples = static_cast<int>(attrs.get_int("sample_per_part", 4, 1, kMaxCells));
  shape.trans_std = attrs.get_float("trans_std", 0.0f, 0.0f, 1e6f);
  settings.with_trans = !attrs.get_bool("no_trans", false);
  return settings;
}

// The sizes of one call. `Size` is unsigned (inference) or int64 (run).
template <class Size>
sniper::PsRoiShape shape_of(const Settings& settings, const std::vector<Size>& data,
                            const std::vector<Size>& rois, const std::vector<Size>* trans) {
  sniper::PsRoiShape shape = settings.shape;
  shape.images = data[0];
  shape.height = data[2];
  shape.width = data[3];
  shape.rois = rois[0];
  shape.classes = trans ? (*trans)[1] / 2 : 1;
  return shape;
}

MXReturnValue parse_attrs(const RawAttrs& raw, int* num_in, int* num_out) {
  return sniper::guarded([&] {
    *num_in = read_attrs(raw).with_trans ? 3 : 2;
    *num_out = 1;
  });
}

MXReturnValue infer_type(const RawAttrs&, std::vector<int>* in, std::vector<int>* out) {
  return sniper::guarded(
      [&] { sniper::require_float32(kName, {"data", "rois", "trans"}, in, out); });
}

void check_trans(const sniper::PsRoiShape& shape, const Shape& trans, unsigned int rois) {
  sniper::require_rank(kName, "trans", trans, 4);
  const unsigned int part = static_cast<unsigned int>(shape.part);
  sniper::require_shape(trans[0] == rois && trans[1] % 2 == 0 && trans[2] == part &&
                            trans[3] == part && shape.output_dim % (trans[1] / 2) == 0,
                        kName, "trans", trans,
                        "(" + std::to_string(rois) + ", 2 * classes, " + std::to_string(part) +
                            ", " + std::to_string(part) +
                            ") with a number of classes that divides "
                            "output_dim = " +
                            std::to_string(shape.output_dim));
}

MXReturnValue infer_shape(const RawAttrs& raw, std::vector<Shape>* in, std::vector<Shape>* out) {
  return sniper::guarded([&] {
    const Settings settings = read_attrs(raw);
    const sniper::PsRoiShape& shape = settings.shape;
    const Shape& data = in->at(0);
    const Shape& rois = in->at(1);
    sniper::require_rank(kName, "data", data, 4);
    sniper::require_shape(
        static_cast<int64_t>(data[1]) == shape.channels(), kName, "data", data,
        std::to_string(shape.channels()) + " channels (output_dim x group_size x group_size)");
    sniper::require_rank(kName, "rois", rois, 2);
    sniper::require_shape(rois[1] == 5, kName, "rois", rois, "(R, 5)");
    if (settings.with_trans) check_trans(shape, in->at(2), rois[0]);
    const unsigned int pooled = static_cast<unsigned int>(shape.pooled);
    out->at(0) = {rois[0], static_cast<unsigned int>(shape.output_dim), pooled, pooled};
  });
}

// Calls `pool` as psroi_forward_cpu.
template <class Pool>
void run(const RawAttrs& raw, std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
         Pool pool) {
  const Settings settings = read_attrs(raw);
  MXTensor* trans = settings.with_trans ? &inputs->at(2) : nullptr;
  const sniper::PsRoiShape shape =
      shape_of(settings, inputs->at(0).shape, inputs->at(1).shape, trans ? &trans->shape : nullptr);
  pool(shape, inputs->at(0).data<float>(), inputs->at(1).data<float>(),
       trans ? trans->data<float>() : nullptr, outputs->at(0).data<float>());
}

// Calls `propagate` as psroi_backward_cpu, which leaves the gradient of the rois to the caller.
// inputs: output gradient, data, rois, [trans,] output; outputs: one gradient per forward input.
template <class Propagate>
void run_backward(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                  std::vector<MXTensor>* outputs, Propagate propagate) {
  const Settings settings = read_attrs(raw);
  MXTensor* trans = settings.with_trans ? &inputs->at(3) : nullptr;
  const sniper::PsRoiShape shape =
      shape_of(settings, inputs->at(1).shape, inputs->at(2).shape, trans ? &trans->shape : nullptr);
  propagate(shape, inputs->at(0).data<float>(), inputs->at(1).data<float>(),
            inputs->at(2).data<float>(), trans ? trans->data<float>() : nullptr,
            outputs->at(0).data<float>(), trans ? outputs->at(2).data<float>() : nullptr);
}

MXReturnValue forward_cpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] { run(raw, inputs, outputs, sniper::psroi_forward_cpu); });
}

MXReturnValue forward_gpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    run(raw, inputs, outputs,
        SNIPER_GPU_CALL(kName, resource, outputs->at(0), sniper_deformable_psroi_pooling_workspace,
                        sniper_deformable_psroi_pooling_forward));
  });
}

MXReturnValue backward_cpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                           std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] {
    run_backward(raw, inputs, outputs, sniper::psroi_backward_cpu);
    MXTensor& rois_grad = outputs->at(1);
    std::memset(rois_grad.data<float>(), 0,
                static_cast<std::size_t>(rois_grad.size()) * sizeof(float));
  });
}

MXReturnValue backward_gpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                           std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    run_backward(raw, inputs, outputs,
                 SNIPER_GPU_CALL(kName, resource, outputs->at(0),
                                 sniper_deformable_psroi_pooling_backward_workspace,
                                 sniper_deformable_psroi_pooling_backward));
    sniper::zero_on_gpu(kName, &outputs->at(1), resource);
  });
}

}  // namespace

REGISTER_OP(DeformablePSROIPooling)
    .setForward(forward_cpu, "cpu")
    .setForward(forward_gpu, "gpu")
    .setBackward(backward_cpu, "cpu")
    .setBackward(backward_gpu, "gpu")
    .setParseAttrs(parse_attrs)
    .setInferType(infer_type)
    .setInferShape(infer_shape);

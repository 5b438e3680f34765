// MXNet glue of MultiScaleNMS: attributes, shapes, types, dispatch.
#include <algorithm>

#include "common/attrs.h"
#include "common/cuda_glue.h"
#include "common/glue.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/multi_scale_nms_cuda.h"

namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using sniper::RawAttrs;
using sniper::Shape;

constexpr char kName[] = "MultiScaleNMS";
constexpr long long kMaxCount = 1 << 30;
constexpr float kPadding = -1.0f;

struct Settings {
  sniper::NmsSettings nms;
  int64_t max_per_image;
};

Settings read_attrs(const RawAttrs& raw) {
  const sniper::Attrs attrs(kName, raw, {"sigma", "nms_threshold", "min_score", "max_per_image"});
  Settings settings;
  settings.nms.sigma = attrs.get_float("sigma", 0.55f, 1e-6f, 1e6f);
  settings.nms.nms_threshold = attrs.get_float("nms_threshold", -1.0f, -1e6f, 1.0f);
  settings.nms.min_score = attrs.get_float("min_score", 0.001f);
  settings.max_per_image = attrs.get_int("max_per_image", -1, -1, kMaxCount);
  return settings;
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
    sniper::require_float32(kName, {"dets", "levels", "classes", "images", "valid_ranges"}, in,
                            out);
  });
}

MXReturnValue infer_shape(const RawAttrs&, std::vector<Shape>* in, std::vector<Shape>* out) {
  return sniper::guarded([&] {
    sniper::require_rank(kName, "dets", in->at(0), 2);
    sniper::require_shape(in->at(0)[1] == 5, kName, "dets", in->at(0), "(n, 5)");
    const unsigned int rows = in->at(0)[0];
    const char* names[] = {"levels", "classes", "images"};
    for (std::size_t k = 0; k < 3; ++k) {
      const Shape& shape = in->at(k + 1);
      sniper::require_rank(kName, names[k], shape, 1);
      sniper::require_shape(shape[0] == rows, kName, names[k], shape,
                            "(" + std::to_string(rows) + ",) as dets");
    }
    sniper::require_rank(kName, "valid_ranges", in->at(4), 2);
    sniper::require_shape(in->at(4)[1] == 2, kName, "valid_ranges", in->at(4), "(levels, 2)");
    out->at(0) = {rows, 5};
    out->at(1) = {rows};
    out->at(2) = {rows};
    out->at(3) = {1};
  });
}

int32_t to_index(const char* name, float value) {
  const int32_t index = sniper::nms_index(value);
  if (index < 0) {
    throw std::runtime_error(std::string(kName) + ": input '" + name + "' holds " +
                             std::to_string(value) + ", expected integers from 0 to 16777216.");
  }
  return index;
}

// The rows of the graph's tensors without the padding (image < 0), with integer indices.
struct Rows {
  std::vector<float> dets;
  std::vector<int32_t> levels, classes, images;
};

Rows real_rows(std::vector<MXTensor>* inputs) {
  const float* dets = inputs->at(0).data<float>();
  const float* levels = inputs->at(1).data<float>();
  const float* classes = inputs->at(2).data<float>();
  const float* images = inputs->at(3).data<float>();
  Rows rows;
  for (int64_t n = 0; n < inputs->at(0).shape[0]; ++n) {
    if (images[n] < 0.0f) continue;
    rows.dets.insert(rows.dets.end(), dets + n * sniper::kDetection,
                     dets + (n + 1) * sniper::kDetection);
    rows.levels.push_back(to_index("levels", levels[n]));
    rows.classes.push_back(to_index("classes", classes[n]));
    rows.images.push_back(to_index("images", images[n]));
  }
  return rows;
}

MXReturnValue forward_cpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] {
    const Settings settings = read_attrs(raw);
    const Rows rows = real_rows(inputs);
    const std::size_t count = rows.images.size();
    MXTensor& ranges = inputs->at(4);
    const sniper::NmsRequest request = {rows.dets.data(),
                                        rows.levels.data(),
                                        rows.classes.data(),
                                        rows.images.data(),
                                        static_cast<int64_t>(count),
                                        ranges.data<float>(),
                                        ranges.shape[0],
                                        settings.nms,
                                        settings.max_per_image};
    std::vector<int32_t> classes(count), images(count);
    for (MXTensor& output : *outputs) {
      std::fill(output.data<float>(), output.data<float>() + output.size(), kPadding);
    }
    const int64_t kept = sniper::multi_scale_nms_cpu(request, outputs->at(0).data<float>(),
                                                     classes.data(), images.data());
    std::copy_n(classes.data(), kept, outputs->at(1).data<float>());
    std::copy_n(images.data(), kept, outputs->at(2).data<float>());
    outputs->at(3).data<float>()[0] = static_cast<float>(kept);
  });
}

// The device's errors would come too late for a sentence: rows with a level, class or image that is
// no index are dropped.
MXReturnValue forward_gpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    const Settings settings = read_attrs(raw);
    const sniper::MultiScaleNmsParams params = {inputs->at(0).shape[0], inputs->at(4).shape[0],
                                                settings.nms, settings.max_per_image};
    const auto merge =
        SNIPER_GPU_CALL(kName, resource, outputs->at(0), sniper_multi_scale_nms_workspace,
                        sniper_multi_scale_nms_forward);
    merge(params, inputs->at(0).data<float>(), inputs->at(1).data<float>(),
          inputs->at(2).data<float>(), inputs->at(3).data<float>(), inputs->at(4).data<float>(),
          outputs->at(0).data<float>(), outputs->at(1).data<float>(), outputs->at(2).data<float>(),
          outputs->at(3).data<float>());
  });
}

}  // namespace

REGISTER_OP(MultiScaleNMS)
    .setForward(forward_cpu, "cpu")
    .setForward(forward_gpu, "gpu")
    .setBackward(sniper::zero_backward, "cpu")
    .setBackward(sniper::zero_backward_gpu<kName>, "gpu")
    .setParseAttrs(parse_attrs)
    .setInferType(infer_type)
    .setInferShape(infer_shape);

// MXNet glue of ChipGenerator: attributes, shapes, types, dispatch.
#include <algorithm>

#include "chip_generator/chip_generator.h"
#include "chip_generator/chip_generator_cuda.h"
#include "common/attrs.h"
#include "common/cuda_glue.h"
#include "common/glue.h"

namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using sniper::RawAttrs;
using sniper::Shape;

constexpr char kName[] = "ChipGenerator";
constexpr long long kMaxSide = 1 << 24;
constexpr long long kUint32Max = 0xFFFFFFFFll;
constexpr float kPadding = -1.0f;

struct Settings {
  sniper::ChipRequest request;
  int64_t max_chips;
};

Settings read_attrs(const RawAttrs& raw) {
  const sniper::Attrs attrs(
      kName, raw,
      {"width", "height", "factor", "chip_size", "stride", "seed", "seed_high", "max_chips"});
  for (const char* name : {"width", "height", "factor", "stride"}) {
    if (raw.count(name) == 0) throw attrs.error(std::string("attribute '") + name + "' is missing");
  }
  attrs.get_float("factor", 0.0f, 1e-6f, 1e6f);
  Settings settings;
  settings.request.width_im = attrs.get_int("width", 0, 1, kMaxSide);
  settings.request.height_im = attrs.get_int("height", 0, 1, kMaxSide);
  // Level sizes are truncated products, so the factor is needed in double precision.
  settings.request.factor = std::strtod(raw.at("factor").c_str(), nullptr);
  settings.request.chip_size = attrs.get_int("chip_size", 512, 1, kMaxSide);
  settings.request.stride = attrs.get_int("stride", 0, 1, kMaxSide);
  // Attributes are read as doubles, which do not hold 64 bits.
  const uint64_t high = static_cast<uint64_t>(attrs.get_int("seed_high", 0, 0, kUint32Max));
  settings.request.seed =
      high << 32 | static_cast<uint64_t>(attrs.get_int("seed", 0, 0, kUint32Max));
  settings.max_chips = attrs.get_int("max_chips", 100, 1, kMaxSide);
  return settings;
}

MXReturnValue parse_attrs(const RawAttrs& raw, int* num_in, int* num_out) {
  return sniper::guarded([&] {
    read_attrs(raw);
    *num_in = 1;
    *num_out = 2;
  });
}

MXReturnValue infer_type(const RawAttrs&, std::vector<int>* in, std::vector<int>* out) {
  return sniper::guarded([&] { sniper::require_float32(kName, {"boxes"}, in, out); });
}

MXReturnValue infer_shape(const RawAttrs& raw, std::vector<Shape>* in, std::vector<Shape>* out) {
  return sniper::guarded([&] {
    const Settings settings = read_attrs(raw);
    sniper::require_rank(kName, "boxes", in->at(0), 2);
    sniper::require_shape(in->at(0)[1] == 4, kName, "boxes", in->at(0), "(n, 4)");
    out->at(0) = {static_cast<unsigned int>(settings.max_chips), 4};
    out->at(1) = {1};
  });
}

std::vector<float> real_boxes(const float* boxes, int64_t count) {
  std::vector<float> real;
  for (int64_t n = 0; n < count; ++n) {
    const float* box = boxes + n * 4;
    if (sniper::is_real_box(box)) real.insert(real.end(), box, box + 4);
  }
  return real;
}

MXReturnValue forward_cpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource&) {
  return sniper::guarded([&] {
    const Settings settings = read_attrs(raw);
    const std::vector<float> boxes =
        real_boxes(inputs->at(0).data<float>(), inputs->at(0).shape[0]);
    const std::vector<int32_t> selected = sniper::chip_cover_cpu(
        settings.request, boxes.data(), static_cast<int64_t>(boxes.size()) / 4);
    const sniper::ChipLattice lattice = sniper::level_lattice(settings.request);
    const int64_t count = std::min(static_cast<int64_t>(selected.size()), settings.max_chips);
    float* chips = outputs->at(0).data<float>();
    std::fill(chips, chips + settings.max_chips * 4, kPadding);
    for (int64_t k = 0; k < count; ++k) {
      double chip[4];
      sniper::chip_to_image(settings.request, lattice, selected[static_cast<std::size_t>(k)], chip);
      std::copy(chip, chip + 4, chips + k * 4);
    }
    outputs->at(1).data<float>()[0] = static_cast<float>(count);
  });
}

MXReturnValue forward_gpu(const RawAttrs& raw, std::vector<MXTensor>* inputs,
                          std::vector<MXTensor>* outputs, const OpResource& resource) {
  return sniper::guarded([&] {
    const Settings settings = read_attrs(raw);
    const sniper::ChipGeneratorParams params = {settings.request,
                                                sniper::level_lattice(settings.request),
                                                inputs->at(0).shape[0], settings.max_chips};
    const auto cover =
        SNIPER_GPU_CALL(kName, resource, outputs->at(0), sniper_chip_generator_workspace,
                        sniper_chip_generator_forward);
    cover(params, inputs->at(0).data<float>(), outputs->at(0).data<float>(),
          outputs->at(1).data<float>());
  });
}

}  // namespace

REGISTER_OP(ChipGenerator)
    .setForward(forward_cpu, "cpu")
    .setForward(forward_gpu, "gpu")
    .setBackward(sniper::zero_backward, "cpu")
    .setBackward(sniper::zero_backward_gpu<kName>, "gpu")
    .setParseAttrs(parse_attrs)
    .setInferType(infer_type)
    .setInferShape(infer_shape);

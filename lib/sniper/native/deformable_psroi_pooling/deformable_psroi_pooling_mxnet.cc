#include "common/op.h"
#include "deformable_psroi_pooling/deformable_psroi_pooling.h"
#include "deformable_psroi_pooling/deformable_psroi_pooling_cuda.h"

namespace {

struct DeformablePSROIPooling : sniper::Operator {
  static constexpr char kName[] = "DeformablePSROIPooling";
  static constexpr std::array kInputs = {"data", "rois", "trans"};
  static constexpr std::size_t kOutputs = 1;
  static constexpr auto kForward =
      SNIPER_KERNELS(sniper::psroi_forward_cpu, sniper_deformable_psroi_pooling_workspace,
                     sniper_deformable_psroi_pooling_forward);
  static constexpr auto kBackward =
      SNIPER_KERNELS(sniper::psroi_backward_cpu, sniper_deformable_psroi_pooling_backward_workspace,
                     sniper_deformable_psroi_pooling_backward);

  sniper::PsRoiShape attributes{};  // the sizes of the tensors are not known yet
  bool with_trans;

  explicit DeformablePSROIPooling(sniper::Attrs& attrs)
      : with_trans(!attrs.get_bool("no_trans", false)) {
    attrs.require({"spatial_scale", "output_dim", "pooled_size"});
    attributes.spatial_scale = attrs.get_float("spatial_scale", 0.0f, sniper::kPsRoiScaleRange);
    attributes.output_dim = attrs.get_int("output_dim", std::int64_t{0}, sniper::kPsRoiChannelRange);
    attributes.pooled = attrs.get_int("pooled_size", 0, sniper::kPsRoiCellRange);
    attributes.group = attrs.get_int("group_size", 1, sniper::kPsRoiCellRange);
    attributes.part = attrs.get_int("part_size", 0, {0, sniper::kPsRoiCellRange.high});
    if (attributes.part == 0) attributes.part = attributes.pooled;
    attributes.samples = attrs.get_int("sample_per_part", 4, sniper::kPsRoiCellRange);
    attributes.trans_std = attrs.get_float("trans_std", 0.0f, {0, sniper::kPsRoiScaleRange.high});
  }

  bool has_last_input() const { return with_trans; }

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    in.match("data", {"N", static_cast<std::uint64_t>(attributes.channels()), "h", "w"},
             ": output_dim x group_size x group_size channels");
    in.match("rois", {"R", 5});
    if (with_trans) {
      in.match("trans", {"R", "2 * classes", attributes.part, attributes.part});
      const unsigned int fields = in["2 * classes"];
      in.require(fields % 2 == 0 && attributes.output_dim % (fields / 2) == 0, "trans",
                 "2 * classes channels, with a number of classes that divides output_dim = " +
                     std::to_string(attributes.output_dim));
    }
    const unsigned int pooled = static_cast<unsigned int>(attributes.pooled);
    return {{in["R"], static_cast<unsigned int>(attributes.output_dim), pooled, pooled}};
  }

  template <class Call>
  void forward(const Call& call) const {
    call(shape(call, 0));
  }

  // The kernel leaves the gradient of the rois to its caller.
  template <class Call>
  void backward(const Call& call) const {
    call.launch(shape(call, 1), call.input(0), call.input(1), call.input(2),
                with_trans ? call.input(3) : nullptr, call.output(0),
                with_trans ? call.output(2) : nullptr);
    call.zero_output(1);
  }

  // `data` is the number of the input of this name.
  template <class Call>
  sniper::PsRoiShape shape(const Call& call, std::size_t data) const {
    sniper::PsRoiShape shape = attributes;
    shape.images = call.size(data, 0);
    shape.height = call.size(data, 2);
    shape.width = call.size(data, 3);
    shape.rois = call.size(data + 1, 0);
    shape.classes = with_trans ? call.size(data + 2, 1) / 2 : 1;
    return shape;
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<DeformablePSROIPooling>();

}  // namespace

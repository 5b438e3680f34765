#include "common/op.h"
#include "mask_rcnn_target/mask_rcnn_target.h"
#include "mask_rcnn_target/mask_rcnn_target_cuda.h"

namespace {

struct MaskRcnnTarget : sniper::Operator {
  static constexpr char kName[] = "MaskRcnnTarget";
  static constexpr std::array kInputs = {"rois", "mask_polys", "mask_ids"};
  static constexpr std::size_t kOutputs = 2;
  static constexpr auto kForward =
      SNIPER_KERNELS(sniper::mask_rcnn_target_cpu, sniper_mask_rcnn_target_workspace,
                     sniper_mask_rcnn_target_forward);

  int mask_size;
  float ignore_label;

  explicit MaskRcnnTarget(sniper::Attrs& attrs)
      : mask_size(attrs.get_int("mask_size", 28, sniper::kMaskSizeRange)),
        ignore_label(attrs.get_float("ignore_label", -1.0f, sniper::kIgnoreLabelRange)) {
    // The symbol files of 2018 hold sizes, which come from the shapes.
    attrs.ignore({"batch_size", "num_proposals", "max_polygon_len", "max_num_gts", "num_classes",
                  "workspace"});
  }

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    in.match("rois", {"R", 5});
    in.match("mask_polys", {"N", "G", "L"});
    in.match("mask_ids", {"R", 1});
    const unsigned int side = static_cast<unsigned int>(mask_size);
    const std::int64_t pixels = static_cast<std::int64_t>(in["R"]) * mask_size * mask_size;
    in.require(pixels <= sniper::kMaxMaskPixels, "rois",
               "masks with at most " + std::to_string(sniper::kMaxMaskPixels) + " pixels in all");
    return {{in["R"], side, side}, {in["R"], side, side}};
  }

  template <class Call>
  void forward(const Call& call) const {
    call(sniper::MaskRcnnTargetParams{call.size(0, 0), call.size(1, 0), call.size(1, 1),
                                      call.size(1, 2), mask_size, ignore_label});
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<MaskRcnnTarget>();

}  // namespace

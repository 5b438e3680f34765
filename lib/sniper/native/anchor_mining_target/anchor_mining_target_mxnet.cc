#include "anchor_mining_target/anchor_mining_target.h"
#include "anchor_mining_target/anchor_mining_target_cuda.h"
#include "common/op.h"

namespace {

struct AnchorMiningTarget : sniper::Operator {
  static constexpr char kName[] = "AnchorMiningTarget";
  static constexpr std::array kInputs = {"cls_prob", "im_info", "gt_boxes", "ignore_boxes"};
  static constexpr std::size_t kOutputs = 4;
  static constexpr auto kForward =
      SNIPER_KERNELS(sniper::anchor_mining_target_cpu, sniper_anchor_mining_target_workspace,
                     sniper_anchor_mining_target_forward);

  std::vector<float> scales, ratios;
  int feature_stride, base_size, batch_size;
  float border, positive_overlap, negative_overlap, ignore_overlap;
  double fg_fraction;
  bool with_ignore;

  explicit AnchorMiningTarget(sniper::Attrs& attrs)
      : scales(attrs.get_floats("scales", {}, sniper::kAnchorSideRange)),
        ratios(attrs.get_floats("ratios", {1}, sniper::kAnchorSideRange)),
        feature_stride(attrs.get_int("feature_stride", 0, sniper::kFeatureStrideRange)),
        base_size(attrs.get_int("base_size", 16, sniper::kFeatureStrideRange)),
        batch_size(attrs.get_int("batch_size", 256, sniper::kMiningBatchRange)),
        border(attrs.get_float("border", 0.0f, sniper::kMiningBorderRange)),
        positive_overlap(attrs.get_float("positive_overlap", 0.5f, sniper::kMiningShareRange)),
        negative_overlap(attrs.get_float("negative_overlap", 0.3f, sniper::kMiningShareRange)),
        ignore_overlap(attrs.get_float("ignore_overlap", 0.3f, sniper::kMiningShareRange)),
        fg_fraction(attrs.get_double("fg_fraction", 0.25, sniper::kMiningShareRange)),
        with_ignore(attrs.get_bool("with_ignore", false)) {
    attrs.require({"scales", "feature_stride"});
    if (negative_overlap > positive_overlap) {
      throw attrs.error("attribute 'negative_overlap' is larger than 'positive_overlap'");
    }
  }

  bool has_last_input() const { return with_ignore; }

  unsigned int num_anchors() const {
    return static_cast<unsigned int>(scales.size() * ratios.size());
  }

  // label, bbox_target, bbox_weight, count.
  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    in.match("cls_prob", {"N", 2, "A * h", "w"});
    const std::string anchors = std::to_string(num_anchors());
    in.require(in["A * h"] % num_anchors() == 0, "cls_prob",
               "(N, 2, " + anchors + " * h, w) for " + anchors + " anchors (scales x ratios)");
    in.match("im_info", {"N", 3});
    in.match("gt_boxes", {"N", "rows", 5});
    if (with_ignore) in.match("ignore_boxes", {"N", "ignored rows", 5});
    const unsigned int images = in["N"], height = in["A * h"] / num_anchors(), width = in["w"];
    const double most = sniper::kMaxMiningOutput / 4.0;
    in.require(static_cast<double>(images) * in["A * h"] * width <= most, "cls_prob",
               "at most 536870911 anchors in all images");
    const sniper::Shape deltas = {images, 4 * num_anchors(), height, width};
    return {{images, in["A * h"] * width}, deltas, deltas, {images, 2}};
  }

  template <class Call>
  void forward(const Call& call) const {
    const std::vector<sniper::Box> base =
        sniper::make_base_anchors(static_cast<float>(base_size), ratios, scales);
    const sniper::AnchorGrid grid = {base.data(), static_cast<int>(base.size()),
                                     static_cast<int>(call.size(0, 2) / num_anchors()),
                                     static_cast<int>(call.size(0, 3)),
                                     static_cast<float>(feature_stride)};
    call(sniper::AnchorMiningTargetParams{
        static_cast<int>(call.size(0, 0)), static_cast<int>(call.size(2, 1)),
        with_ignore ? static_cast<int>(call.size(3, 1)) : 0, grid, border, positive_overlap,
        negative_overlap, ignore_overlap, batch_size,
        static_cast<int>(batch_size * fg_fraction)});
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<AnchorMiningTarget>();

}  // namespace

#include "common/op.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/multi_scale_nms_cuda.h"

namespace {

constexpr sniper::Range kLimitRange = {-1, 1 << 30};

struct MultiScaleNMS : sniper::Operator {
  static constexpr char kName[] = "MultiScaleNMS";
  static constexpr std::array kInputs = {"dets", "levels", "classes", "images", "valid_ranges"};
  static constexpr std::size_t kOutputs = 4;
  // The device's errors would come too late for a sentence: there, rows with a level, class or
  // image that is no index are dropped.
  static constexpr auto kForward =
      SNIPER_KERNELS(sniper::multi_scale_nms_padded_cpu, sniper_multi_scale_nms_workspace,
                     sniper_multi_scale_nms_forward);

  sniper::NmsSettings settings;
  std::int64_t max_per_image;

  explicit MultiScaleNMS(sniper::Attrs& attrs)
      : settings{attrs.get_float("sigma", 0.55f, sniper::kSigmaRange),
                 attrs.get_float("nms_threshold", -1.0f, sniper::kMergeThresholdRange),
                 attrs.get_float("min_score", 0.001f, sniper::kMinScoreRange)},
        max_per_image(attrs.get_int("max_per_image", std::int64_t{-1}, kLimitRange)) {}

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    in.match("dets", {"n", 5});
    for (const char* column : {"levels", "classes", "images"}) in.match(column, {"n"});
    in.match("valid_ranges", {"levels", 2});
    return {{in["n"], 5}, {in["n"]}, {in["n"]}, {1}};
  }

  template <class Call>
  void forward(const Call& call) const {
    call(sniper::MultiScaleNmsParams{call.size(0, 0), call.size(4, 0), settings, max_per_image});
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<MultiScaleNMS>();

}  // namespace

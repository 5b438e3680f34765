#include "common/op.h"
#include "roi_max_mean_pooling/roi_max_mean_pooling.h"
#include "roi_max_mean_pooling/roi_max_mean_pooling_cuda.h"

namespace {

struct ROIMaxMeanPooling : sniper::Operator {
  static constexpr char kName[] = "ROIMaxMeanPooling";
  static constexpr std::array kInputs = {"data", "rois"};
  static constexpr std::size_t kOutputs = 1;
  static constexpr auto kForward =
      SNIPER_KERNELS(sniper::roi_max_mean_forward_cpu, sniper_roi_max_mean_pooling_workspace,
                     sniper_roi_max_mean_pooling_forward);
  static constexpr auto kBackward = SNIPER_KERNELS(sniper::roi_max_mean_backward_cpu,
                                                   sniper_roi_max_mean_pooling_backward_workspace,
                                                   sniper_roi_max_mean_pooling_backward);

  int pooled;
  float spatial_scale;

  explicit ROIMaxMeanPooling(sniper::Attrs& attrs)
      : pooled(attrs.get_int("pooled_size", 7, sniper::kPooledSizeRange)),
        spatial_scale(attrs.get_float("spatial_scale", 0.0f, sniper::kRoiScaleRange)) {
    attrs.require({"spatial_scale"});
  }

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    in.match("data", {"N", "C", "h", "w"});
    in.match("rois", {"R", 5});
    return {{in["R"], in["C"]}};
  }

  template <class Call>
  void forward(const Call& call) const {
    call(params(call, 0));
  }

  // The kernel leaves the gradient of the rois to its caller.
  template <class Call>
  void backward(const Call& call) const {
    call.launch(params(call, 1), call.input(0), call.input(1), call.input(2), call.output(0));
    call.zero_output(1);
  }

  // `data` is the number of the input of this name.
  template <class Call>
  sniper::RoiMaxMeanParams params(const Call& call, std::size_t data) const {
    return {call.size(data, 0), call.size(data, 1),     call.size(data, 2),
            call.size(data, 3), call.size(data + 1, 0), pooled,
            spatial_scale};
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<ROIMaxMeanPooling>();

}  // namespace

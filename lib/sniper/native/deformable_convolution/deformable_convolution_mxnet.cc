#include "common/op.h"
#include "deformable_convolution/deformable_attributes.h"
#include "deformable_convolution/deformable_convolution.h"

namespace {

// The inputs, attributes and shapes of MXNet's contrib.DeformableConvolution: graphs that are run
// on a CPU have this one in its place.
struct DeformableConvolution : sniper::Operator {
  static constexpr char kName[] = "DeformableConvolution";
  static constexpr std::array kInputs = {"data", "offset", "weight", "bias"};
  static constexpr std::size_t kOutputs = 1;
  static constexpr auto kForward = sniper::cpu_kernel(sniper::deformable_convolution_cpu);
  static constexpr auto kBackward = sniper::cpu_kernel(sniper::deformable_gradients_cpu);

  sniper::DeformableAttributes attributes;
  bool with_bias;

  explicit DeformableConvolution(sniper::Attrs& attrs)
      : attributes(attrs), with_bias(!attrs.get_bool("no_bias", false)) {
    attrs.require({"num_filter"});
    attributes.sizes.filters =
        attrs.get_int("num_filter", std::int64_t{0}, sniper::kDeformableChannelRange);
    attributes.sizes.conv_groups =
        attrs.get_int("num_group", std::int64_t{1}, sniper::kDeformableChannelRange);
  }

  bool has_last_input() const { return with_bias; }

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    const sniper::DeformableShape shape = attributes.shape(in);
    const std::uint64_t groups = shape.conv_groups, filters = shape.filters;
    in.require(shape.channels % groups == 0, "data",
               "channels that num_group = " + std::to_string(groups) + " divides");
    in.infer("weight",
             {filters, shape.channels / groups, static_cast<std::uint64_t>(shape.y.kernel),
              static_cast<std::uint64_t>(shape.x.kernel)});
    in.require(filters % groups == 0, "weight",
               "a number of filters that num_group = " + std::to_string(groups) + " divides");
    if (with_bias) in.infer("bias", {filters});
    return {{in["N"], static_cast<unsigned int>(filters), static_cast<unsigned int>(shape.y.out),
             static_cast<unsigned int>(shape.x.out)}};
  }

  template <class Call>
  void forward(const Call& call) const {
    call(attributes.shape(call, 0));
  }

  template <class Call>
  void backward(const Call& call) const {
    call.launch(attributes.shape(call, 1), call.input(0), call.input(1), call.input(2),
                call.input(3), call.output(0), call.output(1), call.output(2),
                with_bias ? call.output(3) : nullptr);
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<DeformableConvolution>();

}  // namespace

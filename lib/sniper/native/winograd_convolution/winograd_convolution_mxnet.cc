#include "common/op.h"
#include "winograd_convolution/winograd_convolution.h"

namespace {

constexpr sniper::Range kChannelRange = {1, 1 << 20};
constexpr sniper::Range kPadRange = {0, 1 << 10};

// The inputs, attributes and shapes of MXNet's Convolution where that has a 3x3 kernel and stride
// 1: graphs on a CPU have this one in its place. `relu` cuts the output as Activation
// does.
struct WinogradConvolution : sniper::Operator {
  static constexpr char kName[] = "WinogradConvolution";
  static constexpr std::array kInputs = {"data", "weight", "bias"};
  static constexpr std::size_t kOutputs = 1;
  static constexpr auto kForward = sniper::cpu_kernel(sniper::winograd_convolution_cpu);
  static constexpr auto kBackward = sniper::cpu_kernel(sniper::winograd_gradients_cpu);

  sniper::WinogradShape sizes{};  // those of the tensors are not known yet
  bool with_bias;

  explicit WinogradConvolution(sniper::Attrs& attrs)
      : with_bias(!attrs.get_bool("no_bias", false)) {
    attrs.require({"kernel", "num_filter"});
    pair(attrs, "kernel", {3, 3}, 3);
    pair(attrs, "stride", {1, 1}, 1);
    pair(attrs, "dilate", {1, 1}, 1);
    attrs.get_int("num_group", std::int64_t{1}, {1, 1});
    attrs.get_word("layout", {"None", "NCHW"});
    attrs.ignore({"workspace", "cudnn_tune", "cudnn_off"});  // of MXNet's
    sizes.filters = attrs.get_int("num_filter", std::int64_t{0}, kChannelRange);
    const std::array<std::int64_t, 2> pad = pair(attrs, "pad", kPadRange, 0);
    sizes.pad_y = pad[0];
    sizes.pad_x = pad[1];
    sizes.relu = attrs.get_bool("relu", false);
  }

  bool has_last_input() const { return with_bias; }

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    in.match("data", {"N", "channels", "h", "w"});
    const sniper::WinogradShape shape = with_tensors(in["N"], in["channels"], in["h"], in["w"]);
    in.require(shape.out_height() >= 1 && shape.out_width() >= 1, "data",
               "a map that is as large as the window at least");
    const auto filters = static_cast<std::uint64_t>(shape.filters);
    in.infer("weight", {filters, in["channels"], 3, 3});
    if (with_bias) in.infer("bias", {filters});
    return {{in["N"], static_cast<unsigned int>(filters),
             static_cast<unsigned int>(shape.out_height()),
             static_cast<unsigned int>(shape.out_width())}};
  }

  template <class Call>
  void forward(const Call& call) const {
    call(with_tensors(call.size(0, 0), call.size(0, 1), call.size(0, 2), call.size(0, 3)));
  }

  template <class Call>
  void backward(const Call& call) const {
    call.launch(with_tensors(call.size(1, 0), call.size(1, 1), call.size(1, 2), call.size(1, 3)),
                call.input(0), call.input(1), call.input(2), call.input(with_bias ? 4 : 3),
                call.output(0), call.output(1), with_bias ? call.output(2) : nullptr);
  }

 private:
  // y and x.
  static std::array<std::int64_t, 2> pair(sniper::Attrs& attrs, const char* name,
                                          sniper::Range range, std::int64_t fallback) {
    const std::vector<std::int32_t> values = attrs.get_ints(name, range, 2);
    if (values.size() == 1) {
      throw attrs.error("attribute '" + std::string(name) + "' has 1 number, expected 2");
    }
    if (values.empty()) return {fallback, fallback};
    return {values[0], values[1]};
  }

  sniper::WinogradShape with_tensors(std::int64_t images, std::int64_t channels,
                                     std::int64_t height, std::int64_t width) const {
    sniper::WinogradShape shape = sizes;
    shape.images = images;
    shape.channels = channels;
    shape.height = height;
    shape.width = width;
    return shape;
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<WinogradConvolution>();

}  // namespace

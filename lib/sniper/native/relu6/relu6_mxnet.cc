#include "common/op.h"
#include "relu6/relu6.h"
#include "relu6/relu6_cuda.h"

namespace {

struct ReLU6 : sniper::Operator {
  static constexpr char kName[] = "ReLU6";
  static constexpr std::array kInputs = {"data"};
  static constexpr std::size_t kOutputs = 1;
  static constexpr auto kForward =
      SNIPER_KERNELS(sniper::relu6_forward_cpu, sniper_relu6_workspace, sniper_relu6_forward);
  static constexpr auto kBackward =
      SNIPER_KERNELS(sniper::relu6_backward_cpu, sniper_relu6_workspace, sniper_relu6_backward);

  explicit ReLU6(sniper::Attrs&) {}

  sniper::Shapes output_shapes(sniper::InputShapes& in) const { return {in.known("data")}; }

  template <class Call>
  void forward(const Call& call) const {
    call(sniper::Relu6Params{call.output_size(0)});
  }

  template <class Call>
  void backward(const Call& call) const {
    call.launch(sniper::Relu6Params{call.output_size(0)}, call.input(0), call.input(1),
                call.output(0));
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<ReLU6>();

}  // namespace

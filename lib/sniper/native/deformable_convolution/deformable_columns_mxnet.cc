#include "common/op.h"
#include "deformable_convolution/deformable_attributes.h"
#include "deformable_convolution/deformable_convolution.h"

namespace {

// What a deformable convolution multiplies by its weights, for graphs whose products are integers.
struct DeformableColumns : sniper::Operator {
  static constexpr char kName[] = "DeformableColumns";
  static constexpr std::array kInputs = {"data", "offset"};
  static constexpr std::size_t kOutputs = 1;
  static constexpr auto kForward = sniper::cpu_kernel(sniper::deformable_columns_cpu);

  sniper::DeformableAttributes attributes;

  explicit DeformableColumns(sniper::Attrs& attrs) : attributes(attrs) {}

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    const sniper::DeformableShape shape = attributes.shape(in);
    return {{in["N"], static_cast<unsigned int>(shape.channels * shape.taps()),
             static_cast<unsigned int>(shape.y.out), static_cast<unsigned int>(shape.x.out)}};
  }

  template <class Call>
  void forward(const Call& call) const {
    call(attributes.shape(call, 0));
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<DeformableColumns>();

}  // namespace

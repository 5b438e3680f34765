#include "chip_generator/chip_generator.h"
#include "chip_generator/chip_generator_cuda.h"
#include "common/op.h"

namespace {

constexpr sniper::Range kUint32Range = {0, 4294967295.0};

struct ChipGenerator : sniper::Operator {
  static constexpr char kName[] = "ChipGenerator";
  static constexpr std::array kInputs = {"boxes"};
  static constexpr std::size_t kOutputs = 2;
  static constexpr auto kForward = SNIPER_KERNELS(
      sniper::chip_generator_cpu, sniper_chip_generator_workspace, sniper_chip_generator_forward);

  sniper::ChipRequest request{};
  std::int64_t max_chips;

  explicit ChipGenerator(sniper::Attrs& attrs)
      : max_chips(attrs.get_int("max_chips", std::int64_t{100}, sniper::kMaxChipsRange)) {
    attrs.require({"width", "height", "factor", "stride"});
    const std::int64_t chip_size = 512;
    request.width_im = attrs.get_int("width", chip_size, sniper::kChipSideRange);
    request.height_im = attrs.get_int("height", chip_size, sniper::kChipSideRange);
    // Level sizes are truncated products, so the factor is needed in double precision.
    request.factor = attrs.get_double("factor", 1.0, sniper::kChipFactorRange);
    request.chip_size = attrs.get_int("chip_size", chip_size, sniper::kChipSideRange);
    request.stride = attrs.get_int("stride", chip_size, sniper::kChipSideRange);
    request.legacy_clip = attrs.get_bool("legacy_clip", false);
    // Symbol files may have the upper half of the seed apart.
    request.seed =
        attrs.get_seed("seed") | attrs.get_int("seed_high", std::uint64_t{0}, kUint32Range) << 32;
  }

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    in.match("boxes", {"n", 4});
    return {{static_cast<unsigned int>(max_chips), 4}, {1}};
  }

  template <class Call>
  void forward(const Call& call) const {
    call(sniper::ChipGeneratorParams{request, sniper::level_lattice(request), call.size(0, 0),
                                     max_chips});
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<ChipGenerator>();

}  // namespace

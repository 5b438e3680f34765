#include "common/op.h"
#include "multi_proposal_target/multi_proposal_target.h"
#include "multi_proposal_target/multi_proposal_target_cuda.h"
#include "multi_proposal_target/target_operator.h"

namespace {

constexpr auto kWithoutMatches = [](const auto& params, auto... pointers) {
  sniper::multi_proposal_target_cpu(params, pointers..., nullptr);
};

struct MultiProposalTarget : sniper::TargetOperator {
  static constexpr char kName[] = "MultiProposalTarget";
  static constexpr std::size_t kOutputs = 5;
  static constexpr auto kForward =
      SNIPER_KERNELS(kWithoutMatches, sniper_multi_proposal_target_workspace,
                     sniper_multi_proposal_target_forward);

  explicit MultiProposalTarget(sniper::Attrs& attrs)
      : TargetOperator(attrs, -1, sniper::multi_proposal_target_rules()) {}

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    sniper::Shapes shapes = target_shapes(in);
    if (has_last_output()) shapes.push_back({shapes.front().front(), 1});
    return shapes;
  }

  template <class Call>
  void forward(const Call& call) const {
    const std::vector<sniper::Box> base = base_anchors();
    call(params(base, call));
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<MultiProposalTarget>();

}  // namespace

#include "common/op.h"
#include "multi_proposal_target/target_operator.h"
#include "multi_proposal_target_mask/multi_proposal_target_mask.h"
#include "multi_proposal_target_mask/multi_proposal_target_mask_cuda.h"

namespace {

struct MultiProposalTargetMask : sniper::TargetOperator {
  static constexpr char kName[] = "MultiProposalTargetMask";
  static constexpr std::size_t kOutputs = 7;
  static constexpr auto kForward = SNIPER_KERNELS(sniper::multi_proposal_target_mask_cpu,
                                                  sniper_multi_proposal_target_mask_workspace,
                                                  sniper_multi_proposal_target_mask_forward);

  int max_masks;
  bool legacy_cap;

  explicit MultiProposalTargetMask(sniper::Attrs& attrs)
      : TargetOperator(attrs, 6000, sniper::multi_proposal_target_mask_rules()),
        max_masks(attrs.get_int("max_masks", 50, sniper::kMaxMasksRange)),
        legacy_cap(attrs.get_bool("legacy_cap", true)) {
    attrs.ignore({"max_gts", "max_crowd"});  // the sizes come from the shapes
  }

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    sniper::Shapes shapes = target_shapes(in);
    const unsigned int masks = sniper::batch_rows(in, max_masks);
    shapes.insert(shapes.end(), {{masks, 5}, {masks, 1}});
    if (has_last_output()) shapes.push_back({shapes.front().front(), 1});
    return shapes;
  }

  template <class Call>
  void forward(const Call& call) const {
    const std::vector<sniper::Box> base = base_anchors();
    call(sniper::MultiProposalTargetMaskParams{params(base, call), max_masks, legacy_cap});
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<MultiProposalTargetMask>();

}  // namespace

#include "common/op.h"
#include "common/proposal_attrs.h"
#include "multi_proposal/multi_proposal.h"
#include "multi_proposal/multi_proposal_cuda.h"

namespace {

struct MultiProposal : sniper::Operator, sniper::ProposalAttrs {
  static constexpr char kName[] = "MultiProposal";
  static constexpr std::array kInputs = {"cls_prob", "bbox_pred", "im_info"};
  static constexpr std::size_t kOutputs = 2;
  static constexpr auto kForward = SNIPER_KERNELS(
      sniper::multi_proposal_cpu, sniper_multi_proposal_workspace, sniper_multi_proposal_forward);

  explicit MultiProposal(sniper::Attrs& attrs) : ProposalAttrs(attrs, 12000) {}

  sniper::Shapes output_shapes(sniper::InputShapes& in) const {
    match_bbox_pred(&in);
    in.match("cls_prob", {"N", 2 * num_anchors(), "h", "w"}, anchors_note());
    in.match("im_info", {"N", 3});
    const unsigned int rows = sniper::batch_rows(in, limits.post_nms_top_n);
    return {{rows, 5}, {rows}};
  }

  template <class Call>
  void forward(const Call& call) const {
    const std::vector<sniper::Box> base = base_anchors();
    call(sniper::MultiProposalParams{static_cast<int>(call.size(0, 0)), grid(base, call), limits,
                                     min_size});
  }
};

[[maybe_unused]] const bool registered = sniper::register_operator<MultiProposal>();

}  // namespace

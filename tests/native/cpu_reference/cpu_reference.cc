// The CPU kernels behind the signatures of the CUDA launchers, so that a test calls both in the
// same way, and without MXNet. Pointers are host pointers; workspace and stream are not used.

#include <cstdio>
#include <exception>
#include <vector>

#include "anchor_mining_target/anchor_mining_target.h"
#include "chip_generator/chip_generator.h"
#include "common/cuda_api.h"
#include "deformable_psroi_pooling/deformable_psroi_pooling.h"
#include "mask_rcnn_target/mask_rcnn_target.h"
#include "multi_proposal/multi_proposal.h"
#include "multi_proposal_target/multi_proposal_target.h"
#include "multi_proposal_target_mask/multi_proposal_target_mask.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "relu6/relu6.h"
#include "roi_max_mean_pooling/roi_max_mean_pooling.h"

namespace {

using namespace sniper;

// Exceptions cannot pass through ctypes.
template <class Body>
int guarded(const Body& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "CPU reference: %s\n", error.what());
    return 1;
  }
}

// Rows whose level, class or image does not exist are left out, as the CUDA launcher does.
void merge(const MultiScaleNmsParams& params, const float* dets, const float* levels,
           const float* classes, const float* images, const float* ranges, float* out_dets,
           float* out_classes, float* out_images, float* out_count) {
  std::vector<float> real_images(images, images + params.count);
  for (int64_t n = 0; n < params.count; ++n) {
    const int32_t level = nms_index(levels[n]);
    const bool exists = level >= 0 && level < params.num_levels && nms_index(classes[n]) >= 0 &&
                        nms_index(images[n]) >= 0;
    if (!exists) real_images[static_cast<std::size_t>(n)] = -1.0f;  // padding
  }
  multi_scale_nms_padded_cpu(params, dets, levels, classes, real_images.data(), ranges, out_dets,
                             out_classes, out_images, out_count);
}

}  // namespace

#define SNIPER_NO_WORKSPACE(name)                                   \
  SNIPER_CUDA_API int name(const void* params, std::size_t* bytes); \
  int name(const void*, std::size_t* bytes) {                       \
    *bytes = 0;                                                     \
    return 0;                                                       \
  }

SNIPER_NO_WORKSPACE(sniper_multi_proposal_workspace)
SNIPER_NO_WORKSPACE(sniper_multi_proposal_target_workspace)
SNIPER_NO_WORKSPACE(sniper_multi_proposal_target_mask_workspace)
SNIPER_NO_WORKSPACE(sniper_anchor_mining_target_workspace)
SNIPER_NO_WORKSPACE(sniper_mask_rcnn_target_workspace)
SNIPER_NO_WORKSPACE(sniper_chip_generator_workspace)
SNIPER_NO_WORKSPACE(sniper_multi_scale_nms_workspace)
SNIPER_NO_WORKSPACE(sniper_relu6_workspace)
SNIPER_NO_WORKSPACE(sniper_roi_max_mean_pooling_workspace)
SNIPER_NO_WORKSPACE(sniper_roi_max_mean_pooling_backward_workspace)
SNIPER_NO_WORKSPACE(sniper_deformable_psroi_pooling_workspace)
SNIPER_NO_WORKSPACE(sniper_deformable_psroi_pooling_backward_workspace)

SNIPER_CUDA_API int sniper_multi_proposal_forward(const MultiProposalParams* params,
                                                  const float* cls_prob, const float* bbox_pred,
                                                  const float* im_info, float* rois, float* scores,
                                                  void*, void*) {
  return guarded([&] { multi_proposal_cpu(*params, cls_prob, bbox_pred, im_info, rois, scores); });
}

SNIPER_CUDA_API int sniper_multi_proposal_target_forward(
    const MultiProposalTargetParams* params, const float* cls_prob, const float* bbox_pred,
    const float* im_info, const float* gt_boxes, const float* valid_ranges,
    const float* crowd_boxes, float* rois, float* label, float* target, float* weight,
    float* label_weights, void*, void*) {
  return guarded([&] {
    multi_proposal_target_cpu(*params, cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges,
                              crowd_boxes, rois, label, target, weight, label_weights, nullptr);
  });
}

SNIPER_CUDA_API int sniper_multi_proposal_target_mask_forward(
    const MultiProposalTargetMaskParams* params, const float* cls_prob, const float* bbox_pred,
    const float* im_info, const float* gt_boxes, const float* valid_ranges,
    const float* crowd_boxes, float* rois, float* label, float* target, float* weight,
    float* mask_rois, float* mask_ids, float* label_weights, void*, void*) {
  return guarded([&] {
    multi_proposal_target_mask_cpu(*params, cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges,
                                   crowd_boxes, rois, label, target, weight, mask_rois, mask_ids,
                                   label_weights);
  });
}

SNIPER_CUDA_API int sniper_anchor_mining_target_forward(
    const AnchorMiningTargetParams* params, const float* cls_prob, const float* im_info,
    const float* gt_boxes, const float* ignore_boxes, float* label, float* target, float* weight,
    float* count, void*, void*) {
  return guarded([&] {
    anchor_mining_target_cpu(*params, cls_prob, im_info, gt_boxes, ignore_boxes, label, target,
                             weight, count);
  });
}

SNIPER_CUDA_API int sniper_mask_rcnn_target_forward(const MaskRcnnTargetParams* params,
                                                    const float* rois, const float* mask_polys,
                                                    const float* mask_ids, float* targets,
                                                    float* classes, void*, void*) {
  return guarded(
      [&] { mask_rcnn_target_cpu(*params, rois, mask_polys, mask_ids, targets, classes); });
}

SNIPER_CUDA_API int sniper_chip_generator_forward(const ChipGeneratorParams* params,
                                                  const float* boxes, float* chips, float* count,
                                                  void*, void*) {
  return guarded([&] { chip_generator_cpu(*params, boxes, chips, count); });
}

SNIPER_CUDA_API int sniper_multi_scale_nms_forward(const MultiScaleNmsParams* params,
                                                   const float* dets, const float* levels,
                                                   const float* classes, const float* images,
                                                   const float* ranges, float* out_dets,
                                                   float* out_classes, float* out_images,
                                                   float* out_count, void*, void*) {
  return guarded([&] {
    merge(*params, dets, levels, classes, images, ranges, out_dets, out_classes, out_images,
          out_count);
  });
}

SNIPER_CUDA_API int sniper_deformable_psroi_pooling_forward(const PsRoiShape* params,
                                                            const float* data, const float* rois,
                                                            const float* trans, float* output,
                                                            void*, void*) {
  return guarded([&] { psroi_forward_cpu(*params, data, rois, trans, output); });
}

SNIPER_CUDA_API int sniper_deformable_psroi_pooling_backward(const PsRoiShape* params,
                                                             const float* output_grad,
                                                             const float* data, const float* rois,
                                                             const float* trans, float* data_grad,
                                                             float* trans_grad, void*, void*) {
  return guarded(
      [&] { psroi_backward_cpu(*params, output_grad, data, rois, trans, data_grad, trans_grad); });
}

SNIPER_CUDA_API int sniper_roi_max_mean_pooling_forward(const RoiMaxMeanParams* params,
                                                        const float* data, const float* rois,
                                                        float* output, void*, void*) {
  return guarded([&] { roi_max_mean_forward_cpu(*params, data, rois, output); });
}

SNIPER_CUDA_API int sniper_roi_max_mean_pooling_backward(const RoiMaxMeanParams* params,
                                                         const float* output_grad,
                                                         const float* data, const float* rois,
                                                         float* data_grad, void*, void*) {
  return guarded([&] { roi_max_mean_backward_cpu(*params, output_grad, data, rois, data_grad); });
}

SNIPER_CUDA_API int sniper_relu6_forward(const Relu6Params* params, const float* data,
                                         float* output, void*, void*) {
  return guarded([&] { relu6_forward_cpu(*params, data, output); });
}

SNIPER_CUDA_API int sniper_relu6_backward(const Relu6Params* params, const float* output_grad,
                                          const float* data, float* data_grad, void*, void*) {
  return guarded([&] { relu6_backward_cpu(*params, output_grad, data, data_grad); });
}

// The CPU kernels behind the signatures of the CUDA launchers, so that a test calls both in the
// same way, and without MXNet. Pointers are host pointers; workspace and stream are not used.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <vector>

#include "chip_generator/chip_generator.h"
#include "common/cuda_api.h"
#include "deformable_psroi_pooling/deformable_psroi_pooling.h"
#include "mask_rcnn_target/mask_rcnn_target.h"
#include "multi_proposal/multi_proposal.h"
#include "multi_proposal_target/multi_proposal_target.h"
#include "multi_proposal_target_mask/multi_proposal_target_mask.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "relu6/relu6.h"

namespace {

using namespace sniper;

constexpr float kPadding = -1.0f;

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

// What the glue of the operator does around chip_cover_cpu.
void cover(const ChipGeneratorParams& params, const float* boxes, float* chips, float* count_out) {
  std::vector<float> real;
  for (int64_t n = 0; n < params.num_boxes; ++n) {
    const float* box = boxes + n * 4;
    if (is_real_box(box)) real.insert(real.end(), box, box + 4);
  }
  const std::vector<int32_t> selected =
      chip_cover_cpu(params.request, real.data(), static_cast<int64_t>(real.size()) / 4);
  const int64_t count = std::min(static_cast<int64_t>(selected.size()), params.max_chips);
  std::fill(chips, chips + params.max_chips * 4, kPadding);
  for (int64_t k = 0; k < count; ++k) {
    double chip[4];
    chip_to_image(params.request, params.lattice, selected[static_cast<std::size_t>(k)], chip);
    std::copy(chip, chip + 4, chips + k * 4);
  }
  *count_out = static_cast<float>(count);
}

// Rows whose level, class or image does not exist are left out, as the CUDA launcher does.
void merge(const MultiScaleNmsParams& params, const float* dets, const float* levels,
           const float* classes, const float* images, const float* ranges, float* out_dets,
           float* out_classes, float* out_images, float* out_count) {
  std::vector<float> rows;
  std::vector<int32_t> row_levels, row_classes, row_images;
  for (int64_t n = 0; n < params.count; ++n) {
    const int32_t level = nms_index(levels[n]), cls = nms_index(classes[n]);
    const int32_t image = nms_index(images[n]);
    if (level < 0 || level >= params.num_levels || cls < 0 || image < 0) continue;
    rows.insert(rows.end(), dets + n * kDetection, dets + (n + 1) * kDetection);
    row_levels.push_back(level);
    row_classes.push_back(cls);
    row_images.push_back(image);
  }
  const int64_t count = static_cast<int64_t>(row_images.size());
  const NmsRequest request = {
      rows.data(), row_levels.data(), row_classes.data(), row_images.data(),   count,
      ranges,      params.num_levels, params.settings,    params.max_per_image};
  std::fill(out_dets, out_dets + params.count * kDetection, kPadding);
  std::fill(out_classes, out_classes + params.count, kPadding);
  std::fill(out_images, out_images + params.count, kPadding);
  const int64_t kept =
      multi_scale_nms_cpu(request, out_dets, row_classes.data(), row_images.data());
  std::copy_n(row_classes.data(), kept, out_classes);
  std::copy_n(row_images.data(), kept, out_images);
  *out_count = static_cast<float>(kept);
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
SNIPER_NO_WORKSPACE(sniper_mask_rcnn_target_workspace)
SNIPER_NO_WORKSPACE(sniper_chip_generator_workspace)
SNIPER_NO_WORKSPACE(sniper_multi_scale_nms_workspace)
SNIPER_NO_WORKSPACE(sniper_relu6_workspace)
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
    const float* im_info, const float* gt_boxes, const float* valid_ranges, float* rois,
    float* label, float* target, float* weight, void*, void*) {
  return guarded([&] {
    multi_proposal_target_cpu(*params, cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges, rois,
                              label, target, weight, nullptr);
  });
}

SNIPER_CUDA_API int sniper_multi_proposal_target_mask_forward(
    const MultiProposalTargetMaskParams* params, const float* cls_prob, const float* bbox_pred,
    const float* im_info, const float* gt_boxes, const float* valid_ranges, float* rois,
    float* label, float* target, float* weight, float* mask_rois, float* mask_ids, void*, void*) {
  return guarded([&] {
    multi_proposal_target_mask_cpu(*params, cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges,
                                   rois, label, target, weight, mask_rois, mask_ids);
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
  return guarded([&] { cover(*params, boxes, chips, count); });
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

SNIPER_CUDA_API int sniper_relu6_forward(const Relu6Params* params, const float* data,
                                         float* output, void*, void*) {
  return guarded([&] { relu6_forward_cpu(*params, data, output); });
}

SNIPER_CUDA_API int sniper_relu6_backward(const Relu6Params* params, const float* output_grad,
                                          const float* data, float* data_grad, void*, void*) {
  return guarded([&] { relu6_backward_cpu(*params, output_grad, data, data_grad); });
}

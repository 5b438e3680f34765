# Proposal operators without MXNet: for tests, tools and hosts that have the RPN maps as arrays.
from libcpp cimport bool as cpp_bool
from libcpp.vector cimport vector
from libc.stdint cimport int64_t


cdef extern from "common/anchors.h" namespace "sniper" nogil:
    cdef struct Box:
        float x1, y1, x2, y2
    cdef struct AnchorGrid:
        const Box* base
        int num_anchors
        int height
        int width
        float stride
    vector[Box] make_base_anchors(float stride, const vector[float]& ratios,
                                  const vector[float]& scales) except +


cdef extern from "common/proposals.h" namespace "sniper" nogil:
    cdef struct ProposalLimits:
        int64_t pre_nms_top_n
        int post_nms_top_n
        float nms_threshold


cdef extern from "multi_proposal/multi_proposal.h" namespace "sniper" nogil:
    cdef struct MultiProposalParams:
        int num_images
        AnchorGrid grid
        ProposalLimits limits
        float min_size
    void multi_proposal_cpu(const MultiProposalParams&, const float*, const float*, const float*,
                            float*, float*) except +


cdef extern from "multi_proposal_target/multi_proposal_target.h" namespace "sniper" nogil:
    cdef struct MultiProposalTargetParams:
        int num_images
        int max_gt
        AnchorGrid grid
        ProposalLimits limits
        float min_size
        cpp_bool legacy_gt_centre
    void multi_proposal_target_cpu(const MultiProposalTargetParams&, const float*, const float*,
                                   const float*, const float*, const float*, float*, float*,
                                   float*, float*) except +


cdef vector[float] _floats(values) except *:
    cdef vector[float] result
    for value in values:
        if not value > 0:
            raise ValueError(f"scales and ratios must be greater than 0, got {value!r}")
        result.push_back(value)
    return result


def operator_anchors(float stride, scales, ratios):
    """The operators' base anchors (they round half up): float32 (A, 4), ratio-major, px."""
    cdef vector[Box] base = make_base_anchors(stride, _floats(ratios), _floats(scales))
    boxes = np.empty((base.size(), 4), np.float32)
    cdef float[:, ::1] view = boxes
    cdef size_t i
    for i in range(base.size()):
        view[i, 0], view[i, 1] = base[i].x1, base[i].y1
        view[i, 2], view[i, 3] = base[i].x2, base[i].y2
    return boxes


def _require_shape(name, array, shape):
    if tuple(array.shape) != shape:
        raise ValueError(f"{name}: got shape {tuple(array.shape)}, expected {shape}")


def multi_proposal(cls_prob, bbox_pred, im_info, *, scales, ratios, float feature_stride,
                   int64_t pre_nms_top_n=12000, int post_nms_top_n=300, float nms_thresh=0.7,
                   float min_size=3):
    """Test-time proposals: see `sniper.ops.multi_proposal`; float32 arrays in and out.

    Raises ValueError for a wrong dtype or shape.
    """
    cdef vector[Box] base = make_base_anchors(feature_stride, _floats(ratios), _floats(scales))
    n, _, h, w = bbox_pred.shape
    if post_nms_top_n < 1:
        raise ValueError(f"post_nms_top_n: got {post_nms_top_n}, expected 1 or more")
    _require_shape("bbox_pred", bbox_pred, (n, 4 * base.size(), h, w))
    _require_shape("cls_prob", cls_prob, (n, 2 * base.size(), h, w))
    _require_shape("im_info", im_info, (n, 3))
    rois = np.empty((n * post_nms_top_n, 5), np.float32)
    scores = np.empty(n * post_nms_top_n, np.float32)
    cdef const float[:, :, :, ::1] cls_view = cls_prob, bbox_view = bbox_pred
    cdef const float[:, ::1] info_view = im_info
    cdef float[:, ::1] rois_view = rois
    cdef float[::1] scores_view = scores
    cdef MultiProposalParams params
    params.num_images = n
    params.grid = AnchorGrid(base.data(), base.size(), h, w, feature_stride)
    params.limits = ProposalLimits(pre_nms_top_n, post_nms_top_n, nms_thresh)
    params.min_size = min_size
    with nogil:
        multi_proposal_cpu(params, &cls_view[0, 0, 0, 0], &bbox_view[0, 0, 0, 0], &info_view[0, 0],
                           &rois_view[0, 0], &scores_view[0])
    return rois, scores


def multi_proposal_target(cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges, *, scales, ratios,
                          float feature_stride, int64_t pre_nms_top_n=-1, int post_nms_top_n=300,
                          float nms_thresh=0.7, float min_size=3, bint legacy_gt_centre=True):
    """Proposals with targets: see `sniper.ops.multi_proposal_target`; float32 arrays in and out.

    Raises ValueError for a wrong dtype or shape.
    """
    cdef vector[Box] base = make_base_anchors(feature_stride, _floats(ratios), _floats(scales))
    n, _, h, w = bbox_pred.shape
    if post_nms_top_n < 1:
        raise ValueError(f"post_nms_top_n: got {post_nms_top_n}, expected 1 or more")
    _require_shape("bbox_pred", bbox_pred, (n, 4 * base.size(), h, w))
    _require_shape("cls_prob", cls_prob, (n, 2, base.size() * h, w))
    _require_shape("im_info", im_info, (n, 3))
    _require_shape("gt_boxes", gt_boxes, (n, gt_boxes.shape[1], 5))
    _require_shape("valid_ranges", valid_ranges, (n, 2))
    rows = n * post_nms_top_n
    rois = np.empty((rows, 5), np.float32)
    label = np.empty((rows, 1), np.float32)
    target = np.empty((rows, 4), np.float32)
    weight = np.empty((rows, 4), np.float32)
    cdef const float[:, :, :, ::1] cls_view = cls_prob, bbox_view = bbox_pred
    cdef const float[:, :, ::1] gt_view = gt_boxes
    cdef const float[:, ::1] info_view = im_info, range_view = valid_ranges
    cdef float[:, ::1] rois_view = rois, label_view = label
    cdef float[:, ::1] target_view = target, weight_view = weight
    cdef MultiProposalTargetParams params
    params.num_images = n
    params.max_gt = gt_boxes.shape[1]
    params.grid = AnchorGrid(base.data(), base.size(), h, w, feature_stride)
    params.limits = ProposalLimits(pre_nms_top_n, post_nms_top_n, nms_thresh)
    params.min_size = min_size
    params.legacy_gt_centre = legacy_gt_centre
    with nogil:
        multi_proposal_target_cpu(params, &cls_view[0, 0, 0, 0], &bbox_view[0, 0, 0, 0],
                                  &info_view[0, 0], &gt_view[0, 0, 0], &range_view[0, 0],
                                  &rois_view[0, 0], &label_view[0, 0], &target_view[0, 0],
                                  &weight_view[0, 0])
    return rois, label, target, weight

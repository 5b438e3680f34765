# Proposal operators without MXNet: for tests, tools and hosts that have the RPN maps as arrays.
from libcpp cimport bool as cpp_bool
from libcpp.vector cimport vector
from libc.stdint cimport int32_t, int64_t


cdef extern from "common/anchors.h" namespace "sniper" nogil:
    const Range kAnchorSideRange
    const Range kFeatureStrideRange
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
    const Range kPreNmsRange
    const Range kPostNmsRange
    const Range kNmsThresholdRange
    const Range kMinSizeRange
    const int64_t kMaxRows
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
    cdef struct TargetRules:
        cpp_bool legacy_gt_centre
        cpp_bool legacy_areas
        cpp_bool legacy_min_size
    TargetRules multi_proposal_target_rules()
    const int kMaxClasses
    const Range kSuperClassRange
    cdef struct ClassTable:
        const int32_t* super_of
        int num_classes
    cdef struct SoftSampling:
        float a, b, c
    const SoftSampling kSoftSampling
    const Range kSoftSamplingRange
    cdef struct MultiProposalTargetParams:
        int num_images
        int max_gt
        int max_crowd
        float crowd_ioa
        SoftSampling soft_sampling
        AnchorGrid grid
        ProposalLimits limits
        float min_size
        TargetRules rules
        ClassTable classes
    void multi_proposal_target_cpu(const MultiProposalTargetParams&, const float*, const float*,
                                   const float*, const float*, const float*, const float*, float*,
                                   float*, float*, float*, float*, int32_t*) except +


cdef extern from "multi_proposal_target_mask/multi_proposal_target_mask.h" namespace "sniper" nogil:
    const Range kMaxMasksRange
    TargetRules multi_proposal_target_mask_rules()
    cdef struct MultiProposalTargetMaskParams:
        MultiProposalTargetParams target
        int max_masks
        cpp_bool legacy_cap
    void multi_proposal_target_mask_cpu(const MultiProposalTargetMaskParams&, const float*,
                                        const float*, const float*, const float*, const float*,
                                        const float*, float*, float*, float*, float*, float*,
                                        float*, float*) except +


_MAX_INDEX = 0xFFFFFFFF  # anchor indices are 32 bit wide


cdef vector[float] _sides(name, values) except *:
    cdef vector[float] result
    for value in _numbers(name, values, kAnchorSideRange.low, kAnchorSideRange.high):
        result.push_back(value)
    return result


cdef vector[Box] _base_anchors(feature_stride, scales, ratios) except *:
    cdef float stride = _number_within("feature_stride", feature_stride, kFeatureStrideRange)
    return make_base_anchors(stride, _sides("ratios", ratios), _sides("scales", scales))


cdef AnchorGrid _grid(const vector[Box]& base, bbox_pred, feature_stride) except *:
    height, width = bbox_pred.shape[2:]
    if max(height, width, base.size() * height * width) > _MAX_INDEX // 2:
        raise OpsError("`bbox_pred` has too large a map.", got=bbox_pred.shape)
    return AnchorGrid(base.data(), base.size(), height, width, feature_stride)


cdef ProposalLimits _limits(pre_nms_top_n, post_nms_top_n, nms_thresh) except *:
    return ProposalLimits(
        _integer_within("pre_nms_top_n", pre_nms_top_n, kPreNmsRange),
        _integer_within("post_nms_top_n", post_nms_top_n, kPostNmsRange),
        _number_within("nms_thresh", nms_thresh, kNmsThresholdRange),
    )


def _rows(name, num_images, per_image):
    """Rows of an output of the whole batch."""
    if num_images * per_image > kMaxRows:
        raise _wrong(name, per_image, f"at most {kMaxRows} rows in all {num_images} images")
    return num_images * per_image


def operator_anchors(stride, scales, ratios):
    """The operators' base anchors (they round half up): float32 (A, 4), ratio-major, px.

    Raises OpsError for numbers out of range.
    """
    cdef vector[Box] base = _base_anchors(stride, scales, ratios)
    boxes = np.empty((base.size(), 4), np.float32)
    cdef float[:, ::1] view = boxes
    cdef size_t i
    for i in range(base.size()):
        view[i, 0], view[i, 1] = base[i].x1, base[i].y1
        view[i, 2], view[i, 3] = base[i].x2, base[i].y2
    return boxes


def multi_proposal(cls_prob, bbox_pred, im_info, *, scales, ratios, feature_stride,
                   pre_nms_top_n=12000, post_nms_top_n=300, nms_thresh=0.7, min_size=3):
    """Test-time proposals: see `sniper.ops.multi_proposal`; float32 arrays in and out.

    Zero images give zero rows. Raises OpsError for a wrong array or number.
    """
    cdef vector[Box] base = _base_anchors(feature_stride, scales, ratios)
    cdef MultiProposalParams params
    bbox_pred = _array("bbox_pred", bbox_pred, np.float32, (None, 4 * base.size(), None, None))
    n, _, h, w = bbox_pred.shape
    cls_prob = _array("cls_prob", cls_prob, np.float32, (n, 2 * base.size(), h, w))
    im_info = _array("im_info", im_info, np.float32, (n, 3))
    params.grid = _grid(base, bbox_pred, feature_stride)
    params.limits = _limits(pre_nms_top_n, post_nms_top_n, nms_thresh)
    params.min_size = _number_within("min_size", min_size, kMinSizeRange)
    rows = _rows("post_nms_top_n", n, post_nms_top_n)
    cdef const float[:, :, :, ::1] cls_view = cls_prob, bbox_view = bbox_pred
    cdef const float[:, ::1] info_view = im_info
    cdef float[:, ::1] rois_view
    cdef float[::1] scores_view
    try:
        params.num_images = n
        rois, scores = np.empty((rows, 5), np.float32), np.empty(rows, np.float32)
        rois_view, scores_view = rois, scores
        with nogil:
            multi_proposal_cpu(params, &cls_view[0, 0, 0, 0], &bbox_view[0, 0, 0, 0],
                               &info_view[0, 0], &rois_view[0, 0], &scores_view[0])
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("multi_proposal", error) from None
    return rois, scores


cdef class _TargetInputs:
    """Checked inputs, parameters and outputs of the target operators."""

    cdef vector[Box] base
    cdef vector[int32_t] super_of
    cdef MultiProposalTargetParams params
    cdef const float[:, :, :, ::1] cls_prob, bbox_pred
    cdef const float[:, :, ::1] gt_boxes
    cdef const float[:, ::1] im_info, valid_ranges
    cdef const float[:, :, ::1] crowd_view
    cdef float[:, ::1] rois, label, target, weight, label_weight_view
    cdef const float* crowd_boxes
    cdef float* label_weight
    cdef readonly tuple outputs, weights

    def __init__(self, cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges, scales, ratios,
                 feature_stride, pre_nms_top_n, post_nms_top_n, nms_thresh, min_size, crowd_boxes,
                 crowd_ioa, soft_sampling):
        self.base = _base_anchors(feature_stride, scales, ratios)
        anchors = self.base.size()
        bbox_pred = _array("bbox_pred", bbox_pred, np.float32, (None, 4 * anchors, None, None))
        n, _, h, w = bbox_pred.shape
        self.cls_prob = _array("cls_prob", cls_prob, np.float32, (n, 2, anchors * h, w))
        self.bbox_pred = bbox_pred
        self.im_info = _array("im_info", im_info, np.float32, (n, 3))
        self.gt_boxes = _array("gt_boxes", gt_boxes, np.float32, (n, None, 5))
        self.valid_ranges = _array("valid_ranges", valid_ranges, np.float32, (n, 2))
        self.params.grid = _grid(self.base, bbox_pred, feature_stride)
        self.params.limits = _limits(pre_nms_top_n, post_nms_top_n, nms_thresh)
        self.params.min_size = _number_within("min_size", min_size, kMinSizeRange)
        rows = _rows("post_nms_top_n", n, post_nms_top_n)
        self.params.num_images = n
        self.params.max_gt = self.gt_boxes.shape[1]
        self.outputs = tuple(np.empty((rows, columns), np.float32) for columns in (5, 1, 4, 4))
        self.rois, self.label, self.target, self.weight = self.outputs
        self.set_crowd(crowd_boxes, crowd_ioa)
        self.set_soft_sampling(soft_sampling, rows)

    cdef void set_crowd(self, crowd_boxes, crowd_ioa) except *:
        self.crowd_boxes = NULL
        self.params.crowd_ioa = _number("crowd_ioa", crowd_ioa, 0, 1)
        self.params.max_crowd = 0
        if crowd_boxes is None:
            return
        self.crowd_view = _array("crowd_boxes", crowd_boxes, np.float32,
                                 (self.params.num_images, None, 5))
        self.params.max_crowd = self.crowd_view.shape[1]
        if self.crowd_view.size:
            self.crowd_boxes = &self.crowd_view[0, 0, 0]

    cdef void set_soft_sampling(self, soft_sampling, rows) except *:
        self.label_weight = NULL
        self.weights = ()
        self.params.soft_sampling = kSoftSampling
        if soft_sampling is None:
            return
        numbers = _numbers("soft_sampling", soft_sampling, kSoftSamplingRange.low,
                           kSoftSamplingRange.high)
        if len(numbers) != 3 or numbers[0] > 1:
            raise _wrong("soft_sampling", soft_sampling, "three numbers a, b, c, a at most 1")
        self.params.soft_sampling = SoftSampling(numbers[0], numbers[1], numbers[2])
        self.weights = (np.empty((rows, 1), np.float32),)
        self.label_weight_view = self.weights[0]
        if rows:
            self.label_weight = &self.label_weight_view[0, 0]

    cdef void set_rules(self, TargetRules rules, legacy_gt_centre, legacy_areas,
                        legacy_min_size) except *:
        rules.legacy_gt_centre = _flag("legacy_gt_centre", legacy_gt_centre)
        rules.legacy_areas = _flag("legacy_areas", legacy_areas)
        rules.legacy_min_size = _flag("legacy_min_size", legacy_min_size)
        self.params.rules = rules

    cdef void set_classes(self, super_of) except *:
        expected = f"1 to {kMaxClasses} integers from 1 to {kMaxClasses}"
        if isinstance(super_of, (str, bytes)):
            raise _wrong("super_of", super_of, expected)
        try:
            numbers = list(itertools.islice(super_of, kMaxClasses + 1))
        except TypeError:
            raise _wrong("super_of", super_of, expected) from None
        if not 1 <= len(numbers) <= kMaxClasses:
            raise _wrong("super_of", super_of, expected)
        for number in numbers:
            self.super_of.push_back(_integer_within("super_of", number, kSuperClassRange))
        self.params.classes = ClassTable(self.super_of.data(), self.super_of.size())


def multi_proposal_target(cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges, *, scales, ratios,
                          feature_stride, pre_nms_top_n=-1, post_nms_top_n=300, nms_thresh=0.7,
                          min_size=3, legacy_gt_centre=True, legacy_areas=True,
                          legacy_min_size=True, crowd_boxes=None, crowd_ioa=0.9,
                          soft_sampling=None):
    """Proposals with targets: see `sniper.ops.multi_proposal_target`; float32 arrays in and out.

    Zero images give zero rows. Raises OpsError for a wrong array or number.
    """
    cdef _TargetInputs batch
    try:
        batch = _TargetInputs(cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges, scales, ratios,
                              feature_stride, pre_nms_top_n, post_nms_top_n, nms_thresh, min_size,
                              crowd_boxes, crowd_ioa, soft_sampling)
        batch.set_rules(multi_proposal_target_rules(), legacy_gt_centre, legacy_areas,
                        legacy_min_size)
        with nogil:
            multi_proposal_target_cpu(batch.params, &batch.cls_prob[0, 0, 0, 0],
                                      &batch.bbox_pred[0, 0, 0, 0], &batch.im_info[0, 0],
                                      &batch.gt_boxes[0, 0, 0], &batch.valid_ranges[0, 0],
                                      batch.crowd_boxes, &batch.rois[0, 0], &batch.label[0, 0],
                                      &batch.target[0, 0], &batch.weight[0, 0],
                                      batch.label_weight, NULL)
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("multi_proposal_target", error) from None
    return (*batch.outputs, *batch.weights)


def multi_proposal_target_mask(cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges, *, scales,
                               ratios, feature_stride, pre_nms_top_n=6000, post_nms_top_n=300,
                               nms_thresh=0.7, min_size=3, max_masks=50, legacy_gt_centre=True,
                               legacy_areas=True, legacy_min_size=True, crowd_boxes=None,
                               crowd_ioa=0.9, soft_sampling=None, super_of=None,
                               legacy_cap=True):
    """The same with rois for masks: see `sniper.ops.multi_proposal_target_mask`.

    With `super_of` the last two results are those of `sniper.ops.multi_proposal_target_fine`.
    Zero images give zero rows. Raises OpsError for a wrong array or number.
    """
    cdef _TargetInputs batch
    cdef MultiProposalTargetMaskParams params
    cdef float[:, ::1] rois_view, ids_view
    try:
        batch = _TargetInputs(cls_prob, bbox_pred, im_info, gt_boxes, valid_ranges, scales, ratios,
                              feature_stride, pre_nms_top_n, post_nms_top_n, nms_thresh, min_size,
                              crowd_boxes, crowd_ioa, soft_sampling)
        batch.set_rules(multi_proposal_target_mask_rules(), legacy_gt_centre, legacy_areas,
                        legacy_min_size)
        if super_of is not None:
            batch.set_classes(super_of)
        params.target = batch.params
        params.legacy_cap = _flag("legacy_cap", legacy_cap)
        params.max_masks = _integer_within("max_masks", max_masks, kMaxMasksRange)
        rows = _rows("max_masks", batch.params.num_images, params.max_masks)
        mask_rois, mask_ids = np.empty((rows, 5), np.float32), np.empty((rows, 1), np.float32)
        rois_view, ids_view = mask_rois, mask_ids
        with nogil:
            multi_proposal_target_mask_cpu(params, &batch.cls_prob[0, 0, 0, 0],
                                           &batch.bbox_pred[0, 0, 0, 0], &batch.im_info[0, 0],
                                           &batch.gt_boxes[0, 0, 0], &batch.valid_ranges[0, 0],
                                           batch.crowd_boxes, &batch.rois[0, 0],
                                           &batch.label[0, 0], &batch.target[0, 0],
                                           &batch.weight[0, 0], &rois_view[0, 0], &ids_view[0, 0],
                                           batch.label_weight)
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("multi_proposal_target_mask", error) from None
    return (*batch.outputs, mask_rois, mask_ids, *batch.weights)

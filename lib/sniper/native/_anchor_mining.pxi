# Anchor targets with hard example mining, without MXNet.
cdef extern from "anchor_mining_target/anchor_mining_target.h" namespace "sniper" nogil:
    const Range kMiningBatchRange
    const Range kMiningShareRange
    const Range kMiningBorderRange
    const int64_t kMaxMiningOutput
    cdef struct AnchorMiningTargetParams:
        int num_images
        int max_gt
        int max_ignored
        AnchorGrid grid
        float border
        float positive_overlap
        float negative_overlap
        float ignore_overlap
        int batch_size
        int max_positives
    void anchor_mining_target_cpu(const AnchorMiningTargetParams&, const float*, const float*,
                                  const float*, const float*, float*, float*, float*,
                                  float*) except +


cdef AnchorMiningTargetParams _mining_params(border, batch_size, fg_fraction, positive_overlap,
                                             negative_overlap, ignore_overlap) except *:
    cdef AnchorMiningTargetParams params
    params.border = _number_within("border", border, kMiningBorderRange)
    params.batch_size = _integer_within("batch_size", batch_size, kMiningBatchRange)
    share = _number_within("fg_fraction", fg_fraction, kMiningShareRange)
    params.max_positives = int(params.batch_size * share)
    params.positive_overlap = _number_within("positive_overlap", positive_overlap,
                                             kMiningShareRange)
    params.negative_overlap = _number_within("negative_overlap", negative_overlap,
                                             kMiningShareRange)
    params.ignore_overlap = _number_within("ignore_overlap", ignore_overlap, kMiningShareRange)
    if params.negative_overlap > params.positive_overlap:
        raise _wrong("negative_overlap", negative_overlap, f"at most {positive_overlap}")
    return params


def anchor_mining_target(cls_prob, im_info, gt_boxes, ignore_boxes=None, *, scales,
                         feature_stride, ratios=(1,), base_size=16, border=0, batch_size=256,
                         fg_fraction=0.25, positive_overlap=0.5, negative_overlap=0.3,
                         ignore_overlap=0.3):
    """Anchor targets: see `sniper.ops.anchor_mining_target`; float32 arrays in and out.

    Zero images give empty arrays. Raises OpsError for a wrong array or number.
    """
    cdef float window = _number_within("base_size", base_size, kFeatureStrideRange)
    cdef vector[Box] base = _base_anchors(window, scales, ratios)
    cdef AnchorMiningTargetParams params = _mining_params(
        border, batch_size, fg_fraction, positive_overlap, negative_overlap, ignore_overlap
    )
    cdef float stride = _number_within("feature_stride", feature_stride, kFeatureStrideRange)
    cls_prob = _array("cls_prob", cls_prob, np.float32, (None, 2, None, None))
    n, _, rows, w = cls_prob.shape
    anchors = base.size()
    if rows % anchors or max(1, n) * 4 * rows * w > kMaxMiningOutput:
        raise OpsError("`cls_prob` is no map of this number of anchors, or too large a map.",
                       got=cls_prob.shape, expected=f"(any, 2, {anchors} * h, w)")
    im_info = _array("im_info", im_info, np.float32, (n, 3))
    gt_boxes = _array("gt_boxes", gt_boxes, np.float32, (n, None, 5))
    cdef const float[:, :, :, ::1] cls_view = cls_prob
    cdef const float[:, ::1] info_view = im_info
    cdef const float[:, :, ::1] gt_view = gt_boxes
    cdef const float[:, :, ::1] ignore_view
    cdef const float* ignored = NULL
    cdef float[:, ::1] label_view, count_view
    cdef float[:, :, :, ::1] target_view, weight_view
    params.num_images, params.max_gt, params.max_ignored = n, gt_boxes.shape[1], 0
    params.grid = AnchorGrid(base.data(), anchors, rows // anchors, w, stride)
    if ignore_boxes is not None:
        ignore_view = _array("ignore_boxes", ignore_boxes, np.float32, (n, None, 5))
        params.max_ignored = ignore_view.shape[1]
        if ignore_view.size:
            ignored = &ignore_view[0, 0, 0]
    try:
        label, count = np.empty((n, rows * w), np.float32), np.empty((n, 2), np.float32)
        target, weight = np.empty((2, n, 4 * anchors, rows // anchors, w), np.float32)
        label_view, target_view, weight_view, count_view = label, target, weight, count
        with nogil:
            anchor_mining_target_cpu(params, &cls_view[0, 0, 0, 0], &info_view[0, 0],
                                     &gt_view[0, 0, 0], ignored, &label_view[0, 0],
                                     &target_view[0, 0, 0, 0], &weight_view[0, 0, 0, 0],
                                     &count_view[0, 0])
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("anchor_mining_target", error) from None
    return label, target, weight, count

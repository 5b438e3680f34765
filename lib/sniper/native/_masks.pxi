# Mask targets without MXNet.
cdef extern from "mask_rcnn_target/mask_rcnn_target.h" namespace "sniper" nogil:
    const Range kMaskSizeRange
    const Range kIgnoreLabelRange
    const int64_t kMaxMaskPixels
    cdef struct MaskRcnnTargetParams:
        int64_t num_rois
        int64_t num_images
        int64_t num_polygons
        int64_t row_length
        int mask_size
        float ignore_label
    void mask_rcnn_target_cpu(const MaskRcnnTargetParams&, const float*, const float*,
                              const float*, float*, float*) except +


def mask_rcnn_target(rois, mask_polys, mask_ids, mask_size=28, ignore_label=-1.0):
    """Rasterised polygons of rois: see `sniper.ops.mask_rcnn_target`; float32 arrays in and out.

    Args:
        rois: (R, 5) image, x1, y1, x2, y2, image px.
        mask_polys: (N, G, L) encoded polygons.
        mask_ids: (R, 1) rows of `mask_polys[image]`, or -1.
        mask_size: pixels per side.
        ignore_label: target of the rois without a usable polygon.

    Returns:
        targets and classes, both (R, mask_size, mask_size). Zero rois give zero masks.

    Raises:
        OpsError: a wrong array or number.
    """
    cdef MaskRcnnTargetParams params
    rois = _array("rois", rois, np.float32, (None, 5))
    mask_polys = _array("mask_polys", mask_polys, np.float32, (None, None, None))
    mask_ids = _array("mask_ids", mask_ids, np.float32, (rois.shape[0], 1))
    params.mask_size = _integer_within("mask_size", mask_size, kMaskSizeRange)
    params.ignore_label = _number_within("ignore_label", ignore_label, kIgnoreLabelRange)
    params.num_rois = rois.shape[0]
    params.num_images, params.num_polygons, params.row_length = mask_polys.shape
    shape = (rois.shape[0], mask_size, mask_size)
    if params.num_rois * mask_size * mask_size > kMaxMaskPixels:
        raise _wrong("mask_size", mask_size, f"at most {kMaxMaskPixels} pixels in all masks")
    cdef const float[:, ::1] rois_view = rois, ids_view = mask_ids
    cdef const float[:, :, ::1] polys_view = mask_polys
    cdef float[:, :, ::1] target_view, class_view
    try:
        targets, classes = np.empty(shape, np.float32), np.empty(shape, np.float32)
        target_view, class_view = targets, classes
        with nogil:
            mask_rcnn_target_cpu(params, &rois_view[0, 0], &polys_view[0, 0, 0], &ids_view[0, 0],
                                 &target_view[0, 0, 0], &class_view[0, 0, 0])
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("mask_rcnn_target", error) from None
    return targets, classes

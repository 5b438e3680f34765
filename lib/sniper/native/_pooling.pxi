# Pooling of RoIs without MXNet: for engines that run a network without it.
cdef extern from "deformable_psroi_pooling/deformable_psroi_pooling.h" namespace "sniper" nogil:
    const Range kPsRoiCellRange
    const Range kPsRoiChannelRange
    const Range kPsRoiScaleRange
    cdef struct PsRoiShape:
        int64_t images, height, width, rois, output_dim
        int group, pooled, part, samples
        int64_t classes
        float spatial_scale, trans_std
    void psroi_forward_cpu(const PsRoiShape&, const float*, const float*, const float*,
                           float*) except +


cdef extern from "roi_max_mean_pooling/roi_max_mean_pooling.h" namespace "sniper" nogil:
    const Range kPooledSizeRange
    const Range kRoiScaleRange
    cdef struct RoiMaxMeanParams:
        int64_t images, channels, height, width, rois
        int pooled
        float spatial_scale
    void roi_max_mean_forward_cpu(const RoiMaxMeanParams&, const float*, const float*,
                                  float*) except +


cdef const float* _first(const float[::1] values) noexcept nogil:
    """Where the numbers of an array begin; NULL without any."""
    return &values[0] if values.shape[0] else NULL


def deformable_psroi_pooling(data, rois, trans=None, *, spatial_scale, output_dim, pooled_size,
                             group_size=1, part_size=0, sample_per_part=4, trans_std=0.0):
    """Position-sensitive pooling: see `sniper.ops.deformable_psroi_pooling`; float32 in and out.

    No RoIs give no rows. Raises OpsError for a wrong array or number.
    """
    cdef PsRoiShape shape
    cells = int(kPsRoiCellRange.high)
    shape.output_dim = _integer_within("output_dim", output_dim, kPsRoiChannelRange)
    shape.pooled = _integer_within("pooled_size", pooled_size, kPsRoiCellRange)
    shape.group = _integer_within("group_size", group_size, kPsRoiCellRange)
    shape.part = _integer("part_size", part_size, 0, cells) or shape.pooled
    shape.samples = _integer_within("sample_per_part", sample_per_part, kPsRoiCellRange)
    shape.spatial_scale = _number_within("spatial_scale", spatial_scale, kPsRoiScaleRange)
    shape.trans_std = _number("trans_std", trans_std, 0, kPsRoiScaleRange.high)
    channels = shape.output_dim * shape.group * shape.group
    data = _array("data", data, np.float32, (None, channels, None, None))
    rois = _array("rois", rois, np.float32, (None, 5))
    shape.classes = 1
    if trans is not None:
        trans = _array("trans", trans, np.float32, (len(rois), None, shape.part, shape.part))
        fields = trans.shape[1]
        if fields == 0 or fields % 2 or shape.output_dim % (fields // 2):
            raise OpsError(
                "`trans` does not have two channels for each of its classes.",
                got=trans.shape,
                expected=f"a number of classes that divides output_dim = {shape.output_dim}",
            )
        shape.classes = fields // 2
    shape.images, shape.rois = len(data), len(rois)
    shape.height, shape.width = data.shape[2:]
    sizes = (len(rois), shape.output_dim, shape.pooled, shape.pooled)
    try:
        output = np.zeros(sizes, np.float32)
        if output.size and data.size:
            _pool(shape, data.reshape(-1), rois.reshape(-1),
                  None if trans is None else trans.reshape(-1), output.reshape(-1))
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("deformable_psroi_pooling", error) from None
    return output


cdef _pool(const PsRoiShape& shape, const float[::1] data, const float[::1] rois,
           const float[::1] trans, float[::1] output):
    cdef const float* offsets = NULL
    if trans is not None:
        offsets = _first(trans)
    with nogil:
        psroi_forward_cpu(shape, _first(data), _first(rois), offsets, &output[0])


def roi_max_mean_pooling(data, rois, *, spatial_scale, pooled_size=7):
    """RoI max-pooling and a mean: see `sniper.ops.roi_max_mean_pooling`; float32 in and out.

    No RoIs give no rows. Raises OpsError for a wrong array or number.
    """
    cdef RoiMaxMeanParams params
    params.pooled = _integer_within("pooled_size", pooled_size, kPooledSizeRange)
    params.spatial_scale = _number_within("spatial_scale", spatial_scale, kRoiScaleRange)
    data = _array("data", data, np.float32, (None, None, None, None))
    rois = _array("rois", rois, np.float32, (None, 5))
    params.images, params.channels, params.height, params.width = data.shape
    params.rois = len(rois)
    cdef const float[::1] data_view = data.reshape(-1), rois_view = rois.reshape(-1)
    cdef float[::1] output_view
    try:
        output = np.zeros((len(rois), params.channels), np.float32)
        if output.size and data.size:
            output_view = output.reshape(-1)
            with nogil:
                roi_max_mean_forward_cpu(params, _first(data_view), _first(rois_view),
                                         &output_view[0])
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("roi_max_mean_pooling", error) from None
    return output

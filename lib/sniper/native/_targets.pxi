# Targets of the region proposal network.
from libc.stdint cimport int8_t, uint8_t
from libc.string cimport memcpy


cdef extern from "rpn_targets/rpn_targets.h" namespace "sniper" nogil:
    cdef struct RpnSettings:
        double positive_overlap, negative_overlap, ignore_overlap, crowd_ioa
        int64_t batch_size, max_positives
    cdef cppclass RpnAnchors:
        int32_t cells
        vector[uint8_t] first_marks
        int64_t count()
    cdef cppclass RpnPositives:
        vector[int32_t] index
        vector[float] values
    RpnAnchors make_rpn_anchors(const float*, int64_t, int64_t, int64_t, double) except +
    void check_rpn_settings(const RpnSettings&) except +
    RpnPositives rpn_targets_cpu(const RpnAnchors&, const RpnSettings&, const float*, int64_t,
                                 const float*, int64_t, const float*, int64_t, uint64_t,
                                 int8_t*) except +
    void expand_rpn_cpu(const int8_t*, int64_t, int64_t, const int32_t*, const float*, int64_t,
                        float*, float*, float*) except +


def _target_error(error):
    if isinstance(error, ValueError):
        return OpsError(str(error))
    return _refused("RPN targets", error)


cdef const float[:, ::1] _boxes(name, array) except *:
    """`array` as a view of rows of four, without the time that NumPy's attributes take."""
    cdef const float[:, ::1] view
    try:
        view = array
    except (BufferError, TypeError, ValueError):
        view = _matrix(name, array, np.float32, 4)  # copies, or says what is wrong
    if view.shape[1] != 4:
        _matrix(name, array, np.float32, 4)
    return view


_NO_BOXES = np.zeros((0, 4), np.float32)


cdef class RpnMatcher:
    """Matches the anchors of chips with boxes: see `sniper.targets.rpn.RpnTargets`.

    It never changes, so any number of threads may share one.

    Args:
        base_anchors: float32 (A, 4), anchors of the first feature cell, chip px.
        stride: side of a feature cell, px.
        chip_size: side of a chip, px; a multiple of the stride.
        border: anchors that stick out of the chip by more px are not trained.
        positive_overlap: IoU from which an anchor is positive, above 0.
        negative_overlap: IoU below which an anchor is negative.
        ignore_overlap: IoU with an invalid box above which an anchor is not trained.
        batch_size: most anchors of a chip with a label of 0 or 1.
        max_positives: most anchors of a chip with a label of 1.
        crowd_ioa: share of an anchor in a crowd region above which it is no negative.

    Raises:
        OpsError: a wrong dtype or shape, or a number out of range.
    """

    cdef RpnAnchors anchors
    cdef RpnSettings settings
    cdef tuple arguments

    def __cinit__(self, base_anchors, stride, chip_size, border, positive_overlap,
                  negative_overlap, ignore_overlap, batch_size, max_positives, crowd_ioa=0.9):
        base = _matrix("base_anchors", base_anchors, np.float32, 4).copy()
        cdef const float[:, ::1] view = base
        cdef int64_t stride_px = _integer("stride", stride, 1, _MAX_SIDE)
        cdef int64_t size_px = _integer("chip_size", chip_size, 1, _MAX_SIDE)
        cdef double border_px = _number("border", border, -_MAX_SIDE, _MAX_SIDE)
        self.settings = RpnSettings(
            _number("positive_overlap", positive_overlap, 0, 1),
            _number("negative_overlap", negative_overlap, 0, 1),
            _number("ignore_overlap", ignore_overlap, 0, 1),
            _number("crowd_ioa", crowd_ioa, 0, 1),
            _integer("batch_size", batch_size, 0, _MAX_COUNT),
            _integer("max_positives", max_positives, 0, _MAX_COUNT),
        )
        self.arguments = (base, int(stride), int(chip_size), border, positive_overlap,
                          negative_overlap, ignore_overlap, int(batch_size), int(max_positives),
                          crowd_ioa)
        try:
            check_rpn_settings(self.settings)
            self.anchors = make_rpn_anchors(&view[0, 0] if len(base) else NULL, len(base),
                                            stride_px, size_px, border_px)
        except _FAILURES as error:
            raise _target_error(error) from None

    @property
    def shape(self):
        """Anchors of a cell, rows, columns."""
        return len(self.arguments[0]), self.anchors.cells, self.anchors.cells

    def __reduce__(self):
        return type(self), self.arguments

    @property
    def inside(self):
        """Which anchors do not stick out of the chip too far: bool (A, H, W)."""
        cdef int64_t count = self.anchors.count(), i
        inside = np.empty(count, np.bool_)
        cdef uint8_t[::1] view = inside.view(np.uint8)
        for i in range(count):
            view[i] = self.anchors.first_marks[i] == 0
        return inside.reshape(-1, self.anchors.cells, self.anchors.cells)

    def __call__(self, valid_gt, invalid_gt, seed, crowd=_NO_BOXES):
        """Targets of one chip.

        Args:
            valid_gt: float32 (n, 4), chip px.
            invalid_gt: float32 (m, 4), chip px.
            seed: of the sampling; integer, taken modulo 2^64.
            crowd: float32 (k, 4), regions of many objects, chip px.

        Returns:
            label int8 (A*H*W,) of -1, 0, 1 in the order (A, H, W); index int32 (p,) of the
            positive anchors, ascending; values float32 (p, 4), their regression targets.

        Raises:
            OpsError: a wrong dtype or shape, or a box that is not finite.
        """
        cdef const float[:, ::1] valid = _boxes("valid_gt", valid_gt)
        cdef const float[:, ::1] invalid = _boxes("invalid_gt", invalid_gt)
        cdef const float[:, ::1] regions = _boxes("crowd", crowd)
        cdef uint64_t state = _integer("seed", seed, -(2**63), 2**64 - 1) & SEED_MASK
        cdef int64_t num_valid = valid.shape[0], num_invalid = invalid.shape[0]
        cdef int64_t num_crowd = regions.shape[0]
        cdef const float* valid_data = &valid[0, 0] if num_valid else NULL
        cdef const float* invalid_data = &invalid[0, 0] if num_invalid else NULL
        cdef const float* crowd_data = &regions[0, 0] if num_crowd else NULL
        label = np.empty(self.anchors.count(), np.int8)
        cdef int8_t[::1] label_view = label
        cdef RpnPositives positives
        try:
            with nogil:
                positives = rpn_targets_cpu(self.anchors, self.settings, valid_data, num_valid,
                                            invalid_data, num_invalid, crowd_data, num_crowd,
                                            state, &label_view[0])
        except _FAILURES as error:
            raise _target_error(error) from None
        cdef int64_t count = positives.index.size()
        index, values = np.empty(count, np.int32), np.empty((count, 4), np.float32)
        cdef int32_t[::1] index_view = index
        cdef float[:, ::1] values_view = values
        if count:
            memcpy(&index_view[0], positives.index.data(), count * sizeof(int32_t))
            memcpy(&values_view[0, 0], positives.values.data(), 4 * count * sizeof(float))
        return label, index, values


def _output(name, array, shape):
    """`array`, which must be a writable C-contiguous float32 array of this shape."""
    checked = _array(name, array, np.float32, shape)
    if checked is not array or not array.flags.writeable:
        raise OpsError(
            f"`{name}` cannot be written to.",
            got="a read-only array" if checked is array else "an array with gaps",
            expected="a writable C-contiguous array",
        )
    return array


def _checked_expansion(label, index, values, out_label, out_target, out_weight):
    """All six arrays, the inputs without gaps; OpsError if one is wrong."""
    label = _array("label", label, np.int8, (None,))
    index = _matrix("index", index, np.int32, 0)
    values = _array("values", values, np.float32, (len(index), 4))
    out_target = _output("out_target", out_target, (None, None, None))
    channels, height, width = out_target.shape
    if channels % 4 or not out_target.size or channels // 4 * height * width != len(label):
        raise OpsError(
            "`out_target` does not fit to `label`.",
            got=f"{out_target.shape} and {len(label)} labels",
            expected="(4A, H, W) and A*H*W labels, at least one",
        )
    out_label = _output("out_label", out_label, label.shape)
    out_weight = _output("out_weight", out_weight, out_target.shape)
    return label, index, values, out_label, out_target, out_weight


def expand_rpn(label, index, values, out_label, out_target, out_weight):
    """Writes the dense arrays of one chip, as the network reads them.

    Args:
        label: int8 (A*H*W,).
        index: int32 (p,), positive anchors.
        values: float32 (p, 4), their regression targets.
        out_label: float32 (A*H*W,), gets the labels.
        out_target: float32 (4A, H, W), gets the targets in the channels 4a + k of the positives,
            0 elsewhere.
        out_weight: float32 (4A, H, W), gets 1 there, 0 elsewhere.

    Raises:
        OpsError: a wrong dtype or shape, an index that is no anchor, or an output that cannot be
            written to; nothing has been written then.
    """
    cdef const int8_t[::1] label_view
    cdef const int32_t[::1] index_view
    cdef const float[:, ::1] values_view
    cdef float[::1] out_label_view
    cdef float[:, :, ::1] target_view, weight_view
    arrays = label, index, values, out_label, out_target, out_weight
    try:
        label_view, index_view, values_view, out_label_view, target_view, weight_view = arrays
    except (BufferError, TypeError, ValueError):
        arrays = _checked_expansion(*arrays)
        label_view, index_view, values_view, out_label_view, target_view, weight_view = arrays
    cdef int64_t count = index_view.shape[0]
    cdef int64_t anchors = target_view.shape[0] // 4
    cdef int64_t cells = target_view.shape[1] * target_view.shape[2]
    if (
        label_view.shape[0] == 0 or label_view.shape[0] != anchors * cells
        or target_view.shape[0] != 4 * anchors or out_label_view.shape[0] != anchors * cells
        or values_view.shape[0] != count or values_view.shape[1] != 4
        or weight_view.shape[0] != target_view.shape[0]
        or weight_view.shape[1] != target_view.shape[1]
        or weight_view.shape[2] != target_view.shape[2]
    ):
        _checked_expansion(*arrays)
        raise OpsError("the arrays do not fit together.")
    cdef const int32_t* index_data = &index_view[0] if count else NULL
    cdef const float* values_data = &values_view[0, 0] if count else NULL
    try:
        with nogil:
            expand_rpn_cpu(&label_view[0], anchors, cells, index_data, values_data, count,
                           &out_label_view[0], &target_view[0, 0, 0], &weight_view[0, 0, 0])
    except _FAILURES as error:
        raise _target_error(error) from None

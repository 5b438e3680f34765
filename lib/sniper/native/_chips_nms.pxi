# Chip generation and non-maximum suppression.
from libc.stdint cimport int32_t, uint64_t
from libcpp cimport bool as c_bool


cdef extern from "chip_generator/chip_generator.h" namespace "sniper" nogil:
    const Range kChipSideRange
    const Range kChipFactorRange
    cdef struct ChipLattice:
        int64_t width, height, size, stride
        int64_t count()
    cdef struct ChipRequest:
        int64_t width_im, height_im
        double factor
        int64_t chip_size, stride
        uint64_t seed
        c_bool legacy_clip
    Box chip_at(const ChipLattice&, int64_t index)
    void c_chip_permutation "sniper::chip_permutation"(int64_t, uint64_t, int32_t*)
    ChipLattice make_lattice(int64_t, int64_t, int64_t, int64_t) except +
    ChipLattice level_lattice(const ChipRequest&) except +
    vector[int32_t] chip_cover_cpu(const ChipRequest&, const float*, int64_t) except +
    void chip_to_image(const ChipRequest&, const ChipLattice&, int64_t, double*)


cdef extern from "multi_scale_nms/multi_scale_nms.h" namespace "sniper" nogil:
    const Range kSigmaRange
    const Range kMergeThresholdRange
    const Range kMinScoreRange
    cdef struct NmsSettings:
        float sigma, nms_threshold, min_score
    cdef struct NmsPart:
        const float* dets
        const int32_t* classes
        int64_t count
        int32_t level, image
    cdef struct NmsRequest:
        const NmsPart* parts
        int64_t num_parts
        const float* valid_ranges
        int64_t num_levels
        NmsSettings settings
        int64_t max_per_image
    cdef struct NmsResult:
        float* dets
        int32_t* classes
        int32_t* images
        int64_t* rows
        int32_t* parts
    int64_t soft_nms_cpu(float*, int64_t, float, float) except +
    vector[int64_t] hard_nms_cpu(const float*, int64_t, float, int64_t) except +
    vector[NmsPart] nms_parts(const float*, const int32_t*, const int32_t*, const int32_t*,
                              int64_t) except +
    int64_t multi_scale_nms_cpu(const NmsRequest&, const NmsResult&) except +


cdef uint64_t SEED_MASK = 0xFFFFFFFFFFFFFFFF


def _matrix(name, array, dtype, columns):
    """`array` as a C-contiguous (n, columns) array, or (n,) for columns = 0; OpsError if wrong."""
    wanted = f"{np.dtype(dtype).name} (n, {columns})" if columns else f"{np.dtype(dtype).name} (n,)"
    if not isinstance(array, np.ndarray):
        raise OpsError(f"`{name}` is no NumPy array.", got=type(array).__name__, expected=wanted)
    shape_fits = array.ndim == (2 if columns else 1) and (not columns or array.shape[1] == columns)
    if array.dtype != dtype or not shape_fits:
        raise OpsError(
            f"`{name}` has a wrong dtype or shape.",
            got=f"{array.dtype.name} {array.shape}",
            expected=wanted,
        )
    return np.ascontiguousarray(array)


_MAX_SIDE = int(kChipSideRange.high)  # px
_MAX_COUNT = 2**62
_FAILURES = (MemoryError, OverflowError, RuntimeError, TypeError, ValueError)


def _chip_error(error, **numbers):
    """The OpsError for a failed call: the kernel's sentence, or the name of a wrong number."""
    if isinstance(error, ValueError):
        return OpsError(str(error))
    for name, value in numbers.items():
        if name == "factor":
            _number_within(name, value, kChipFactorRange)
        else:
            _integer(name, value, -(2**63), 2**64 - 1 if name == "seed" else _MAX_SIDE)
    return _refused("Chip generation", error)


cdef ChipLattice _lattice(width, height, chip_size, stride) except *:
    try:
        return make_lattice(width, height, chip_size, stride)
    except _FAILURES as error:
        raise _chip_error(
            error, width=width, height=height, chip_size=chip_size, stride=stride
        ) from None


def chip_lattice(width, height, chip_size, stride):
    """Unshuffled candidate chips of a level: three corners, lattice, right edge, bottom edge.

    Args:
        width: of the level, scaled px.
        height: of the level, scaled px.
        chip_size: side of a chip, px.
        stride: step of the lattice, px.

    Returns:
        float32 (k, 4) inclusive corners, scaled px. Edge chips are one pixel longer than
        `chip_size` where there is room (2018 behaviour).

    Raises:
        OpsError: a number is out of range.
    """
    cdef ChipLattice lattice = _lattice(width, height, chip_size, stride)
    chips = np.empty((lattice.count(), 4), np.float32)
    cdef float[:, ::1] view = chips
    cdef Box chip
    cdef int64_t k
    for k in range(lattice.count()):
        chip = chip_at(lattice, k)
        view[k, 0], view[k, 1], view[k, 2], view[k, 3] = chip.x1, chip.y1, chip.x2, chip.y2
    return chips


def chip_permutation(count, seed):
    """Order in which `count` candidates compete: int32 (count,), position -> candidate.

    Fisher-Yates from the back, driven by SplitMix64 with `seed` (taken modulo 2^64). Raises
    OpsError for a `count` outside 0 to 16777216 or a seed that is no 64-bit integer.
    """
    cdef int64_t size = _integer("count", count, 0, _MAX_SIDE)
    cdef uint64_t state = _integer("seed", seed, -(2**63), 2**64 - 1) & SEED_MASK
    order = np.empty(size, np.int32)
    cdef int32_t[::1] view = order
    if size > 0:
        with nogil:
            c_chip_permutation(size, state, &view[0])
    return order


def chip_cover(boxes_im, factor, width_im, height_im, chip_size, stride, seed, legacy_clip=False):
    """Chips that together contain every box that fits into a candidate (greedy cover).

    Each step takes the candidate that contains the most boxes not contained yet; ties go to the
    first in the order of `chip_permutation`. Boxes that fit into no candidate stay uncovered.

    Args:
        boxes_im: float32 (n, 4) x1 y1 x2 y2, image px. Rows that are not finite are left out.
        factor: scale factor of the pyramid level.
        width_im: of the image, px.
        height_im: of the image, px.
        chip_size: side of a chip, scaled px.
        stride: step of the candidates, scaled px.
        seed: integer, taken modulo 2^64.
        legacy_clip: boxes end one px before the border of the level, as in 2018.

    Returns:
        float64 (m, 4) chips in image px, in the order of selection; (0, 4) without boxes.

    Raises:
        OpsError: a wrong dtype or shape, or a number out of range.
    """
    cdef const float[:, ::1] boxes
    try:
        boxes = boxes_im
    except (TypeError, ValueError):
        boxes = _matrix("boxes_im", boxes_im, np.float32, 4)  # copies, or says what is wrong
    if boxes.shape[1] != 4:
        _matrix("boxes_im", boxes_im, np.float32, 4)
    cdef int64_t count = boxes.shape[0]
    cdef ChipRequest request
    cdef ChipLattice lattice
    cdef vector[int32_t] selected
    try:
        request = ChipRequest(
            width_im, height_im, factor, chip_size, stride, seed & SEED_MASK,
            _flag("legacy_clip", legacy_clip),
        )
        lattice = level_lattice(request)
        if count > 0:
            with nogil:
                selected = chip_cover_cpu(request, &boxes[0, 0], count)
    except _FAILURES as error:
        raise _chip_error(
            error, width_im=width_im, height_im=height_im, factor=factor, chip_size=chip_size,
            stride=stride, seed=seed
        ) from None
    chips = np.empty((selected.size(), 4), np.float64)
    cdef double[:, ::1] view = chips
    cdef size_t k
    for k in range(selected.size()):
        chip_to_image(request, lattice, selected[k], &view[k, 0])
    return chips


def soft_nms(dets, sigma, min_score=0.001):
    """Gaussian soft-NMS of one class (Bodla et al. 2017; 2018 behaviour).

    Args:
        dets: float32 (n, 5) x1 y1 x2 y2 score, image px. Rows that are not finite are dropped.
        sigma: an overlap `o` with a selected row multiplies a score by exp(-o^2 / sigma).
        min_score: a row whose decayed score is lower is dropped.

    Returns:
        float32 (k, 5) rows with decayed scores in the order of selection; `dets` is not changed.

    Raises:
        OpsError: a wrong dtype or shape, or a number out of range.
    """
    cdef float decay = _number_within("sigma", sigma, kSigmaRange)
    cdef float lowest = _number_within("min_score", min_score, kMinScoreRange)
    rows = np.array(_matrix("dets", dets, np.float32, 5))
    cdef float[:, ::1] view = rows
    cdef int64_t count = view.shape[0]
    try:
        if count > 0:
            with nogil:
                count = soft_nms_cpu(&view[0, 0], count, decay, lowest)
    except _FAILURES as error:
        raise _refused("soft_nms", error) from None
    return rows[:count].copy()


def hard_nms(dets, threshold, max_output=-1):
    """Greedy NMS of one class: rows with IoU (+1 sides) > `threshold` are suppressed.

    Args:
        dets: float32 (n, 5) x1 y1 x2 y2 score, image px. Rows that are not finite are dropped.
        threshold: from 0 to 1.
        max_output: how many rows are kept at most; -1: no limit. A limit saves most of the work.

    Returns:
        int64 (k,) kept rows of `dets`, best score first, ties by row.

    Raises:
        OpsError: a wrong dtype or shape, or a number out of range.
    """
    cdef float most = _number_within("threshold", threshold, kNmsThresholdRange)
    cdef int64_t limit = _integer("max_output", max_output, -1, _MAX_COUNT)
    dets = _matrix("dets", dets, np.float32, 5)
    cdef const float[:, ::1] view = dets
    cdef int64_t count = view.shape[0]
    cdef vector[int64_t] kept
    try:
        if count > 0:
            with nogil:
                kept = hard_nms_cpu(&view[0, 0], count, most, limit)
    except _FAILURES as error:
        raise _refused("hard_nms", error) from None
    rows = np.empty(kept.size(), np.int64)
    cdef int64_t[::1] out = rows
    cdef size_t k
    for k in range(kept.size()):
        out[k] = kept[k]
    return rows


def multi_scale_nms(dets, levels, classes, images, valid_ranges, sigma, nms_threshold,
                    min_score=0.001, max_per_image=-1, with_rows=False):
    """Merges the detections of all pyramid levels, for all images and classes in one call.

    A row takes part when its area (sides without +1) is > low^2 if low > 0 and <= high^2 if
    high > 0, with (low, high) the valid range of its level. Then soft-NMS (nms_threshold <= 0) or
    hard NMS runs per image and class. The result does not depend on the number of threads.

    Args:
        dets: float32 (n, 5) x1 y1 x2 y2 score, image px. Rows that are not finite are dropped.
        levels: int32 (n,) rows of `valid_ranges`.
        classes: int32 (n,).
        images: int32 (n,).
        valid_ranges: float32 (L, 2), image px.
        sigma: of soft-NMS; anything goes for hard NMS.
        nms_threshold: of hard NMS (IoU, at most 1); <= 0 selects soft-NMS.
        min_score: soft-NMS drops rows whose decayed score is lower.
        max_per_image: keeps, per image, the scores >= the max_per_image-th largest (ties may exceed
            it); <= 0 keeps all.
        with_rows: also tell which row of `dets` each detection was.

    Returns:
        float32 (k, 5) detections, int32 (k,) classes, int32 (k,) images, and with `with_rows` int64
        (k,) rows of `dets`; grouped by image, then class, then order of selection.

    Raises:
        OpsError: wrong dtypes or shapes, numbers out of range, a level without a valid range.
    """
    dets = _matrix("dets", dets, np.float32, 5)
    columns = {"levels": levels, "classes": classes, "images": images}
    for name, column in columns.items():
        columns[name] = _matrix(name, column, np.int32, 0)
        _same_length(name, columns[name], "dets", dets)
    cdef const float[:, ::1] det_view = dets
    cdef const int32_t[::1] level_view = columns["levels"]
    cdef const int32_t[::1] class_view = columns["classes"]
    cdef const int32_t[::1] image_view = columns["images"]
    cdef vector[NmsPart] parts
    if len(dets) > 0:
        parts = nms_parts(&det_view[0, 0], &level_view[0], &class_view[0], &image_view[0],
                          det_view.shape[0])
    merged = _merged(
        parts, len(dets), valid_ranges, sigma, nms_threshold, min_score, max_per_image
    )
    return merged[: 4 if with_rows else 3]


def multi_scale_nms_parts(dets, classes, levels, images, valid_ranges, sigma, nms_threshold,
                          min_score=0.001, max_per_image=-1):
    """`multi_scale_nms` of rows that lie in several arrays, each of one level and image.

    Args:
        dets: P arrays as of `multi_scale_nms`.
        classes: P arrays int32, one number for each row of `dets`.
        levels: int32 (P,) rows of `valid_ranges`.
        images: int32 (P,).
        valid_ranges: float32 (L, 2), image px.
        sigma: see `multi_scale_nms`, as are the others.
        nms_threshold: of hard NMS.
        min_score: of soft-NMS.
        max_per_image: cap.

    Returns:
        float32 (k, 5) detections, int32 (k,) classes, int32 (k,) images, and int32 (k,) which array
        of `dets` each detection comes from; in the order of `multi_scale_nms`.

    Raises:
        OpsError: wrong dtypes or shapes, numbers out of range, a level without a valid range.
    """
    levels = _matrix("levels", levels, np.int32, 0)
    images = _matrix("images", images, np.int32, 0)
    for name, column in {"classes": classes, "levels": levels, "images": images}.items():
        _same_length(name, column, "dets", dets)
    cdef const int32_t[::1] level_view = levels, image_view = images, class_view
    cdef const float[:, ::1] det_view
    cdef vector[NmsPart] parts
    cdef NmsPart part
    cdef int64_t count = 0
    cdef Py_ssize_t index
    held = []  # a part has addresses only
    for index in range(len(dets)):
        rows = _matrix("dets", dets[index], np.float32, 5)
        own_classes = _matrix("classes", classes[index], np.int32, 0)
        _same_length("classes", own_classes, "dets", rows)
        held.append((rows, own_classes))
        part.count, part.level, part.image = len(rows), level_view[index], image_view[index]
        part.dets = NULL
        part.classes = NULL
        if part.count > 0:
            det_view, class_view = rows, own_classes
            part.dets, part.classes = &det_view[0, 0], &class_view[0]
        parts.push_back(part)
        count += part.count
    merged = _merged(parts, count, valid_ranges, sigma, nms_threshold, min_score, max_per_image)
    return (*merged[:3], merged[4])


def _same_length(name, column, of_name, other):
    """Refuses arrays and lists that do not belong together."""
    if len(column) != len(other):
        raise OpsError(f"`{name}` does not fit to `{of_name}`.", got=len(column),
                       expected=len(other))


cdef _merged(vector[NmsPart]& parts, int64_t count, valid_ranges, sigma, nms_threshold,
             min_score, max_per_image):
    """Detections, classes, images, rows and parts that `multi_scale_nms` keeps of `count` rows."""
    cdef NmsRequest request
    cdef float threshold = _number_within("nms_threshold", nms_threshold, kMergeThresholdRange)
    request.settings = NmsSettings(
        0 if threshold > 0 else _number_within("sigma", sigma, kSigmaRange),
        threshold,
        _number_within("min_score", min_score, kMinScoreRange),
    )
    request.max_per_image = _integer("max_per_image", max_per_image, -_MAX_COUNT, _MAX_COUNT)
    cdef const float[:, ::1] ranges = _matrix("valid_ranges", valid_ranges, np.float32, 2)
    outputs = (
        np.empty((count, 5), np.float32),
        np.empty(count, np.int32),
        np.empty(count, np.int32),
        np.empty(count, np.int64),
        np.empty(count, np.int32),
    )
    if count == 0:
        return outputs
    cdef float[:, ::1] det_view = outputs[0]
    cdef int32_t[::1] class_view = outputs[1], image_view = outputs[2], part_view = outputs[4]
    cdef int64_t[::1] row_view = outputs[3]
    cdef NmsResult result
    result.dets, result.classes, result.images = &det_view[0, 0], &class_view[0], &image_view[0]
    result.rows, result.parts = &row_view[0], &part_view[0]
    request.parts, request.num_parts = parts.data(), parts.size()
    request.num_levels = ranges.shape[0]
    request.valid_ranges = &ranges[0, 0] if request.num_levels > 0 else NULL
    cdef int64_t kept
    try:
        with nogil:
            kept = multi_scale_nms_cpu(request, result)
    except ValueError as error:
        raise OpsError(str(error)) from None
    except _FAILURES as error:
        raise _refused("multi_scale_nms", error) from None
    if 2 * kept > count:
        return tuple(output[:kept] for output in outputs)  # a copy would save little memory
    return tuple(output[:kept].copy() for output in outputs)

# All chips of an epoch.
from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from libcpp cimport bool as c_bool
from libcpp.vector cimport vector


cdef extern from "epoch_chips/epoch_chips.h" namespace "sniper" nogil:
    cdef struct ChipRecord:
        const float* boxes
        int64_t num_boxes, num_gt, width, height, image_id
        c_bool flipped
        const double* factors
    cdef struct SizeRange:
        double low, high
    cdef struct EpochRequest:
        const SizeRange* ranges
        const double* side_limits
        int64_t num_levels, chip_size, stride
        uint64_t seed, epoch
        c_bool use_negatives
        int64_t max_negatives
        double alarms_finest, alarms_others, alarms_per_proposals, alarms_share_finest
        double alarms_share_others, background
        int64_t crops
        c_bool gt_rows_only
        float min_gt_side
        c_bool legacy_boxes
    cdef struct LevelCounts:
        int64_t positive, negative, images, gt_in_range, gt_too_long, gt_wanted, gt_covered, background
    cdef cppclass ChipRect:
        pass
    cdef cppclass ChipList:
        vector[ChipRect] rects
        vector[uint8_t] levels, negative
        vector[int32_t] row_counts, rows, box_counts, gt_counts
        vector[uint8_t] fates
    cdef cppclass EpochChips:
        ChipList list
        vector[int32_t] chip_counts
        vector[LevelCounts] levels
        int64_t negative_candidates
    EpochChips epoch_chips_cpu(const EpochRequest&, const ChipRecord*, int64_t, double) except +


def epoch_chips(boxes, num_gt, width, height, image_ids, flipped, factors, size_ranges,
                side_limits, *, first, last, chip_size, stride, seed, epoch, use_negatives, max_negatives,
                min_alarms, alarms_per_proposals, alarms_shares, background, crops, gt_rows_only,
                min_gt_side, legacy_boxes, budget_s):
    """The chips of the records `first` ... `last` - 1, or of as many of them as the time allows.

    Rules of `sniper.chips.sampler`, on OMP_NUM_THREADS threads; results do not depend on their
    number.

    Args:
        boxes: sequence of R float32 (n, 4) C-contiguous arrays, image px, ground truth first.
        num_gt: int64 (R,) leading rows of each that are ground truth.
        width: int64 (R,) of the images, px.
        height: int64 (R,).
        image_ids: int64 (R,).
        flipped: bool (R,).
        factors: float64 (R, L), image px -> scaled px of each level.
        size_ranges: float64 (L, 2), image px.
        side_limits: float64 (L,), image px: positive, infinity for none; the last is not used.
        first: first record.
        last: behind the last record; more than `first`.
        chip_size: side of a chip, scaled px.
        stride: step of the candidates, scaled px.
        seed: integer, taken modulo 2^64.
        epoch: integer, taken modulo 2^64.
        use_negatives: add negative chips.
        max_negatives: of a record.
        min_alarms: two numbers that a negative chip's boxes must exceed: finest level, others.
        alarms_per_proposals: they hold for so many proposals of a record and grow with their
            number; 0: whatever their number and the size of the chip.
        alarms_shares: two shares of a level, finest and others: smaller chips need fewer.
        background: chips at random places per positive chip of a record.
        crops: random crops of a record instead of all other chips; 0: none.
        gt_rows_only: leave proposals out of `rows`.
        min_gt_side: in chip px; smaller ground truth does not count in `gt_counts`.
        legacy_boxes: boxes as in 2018, on levels and in chips (`sniper.chips.sampler.ChipSettings`).
        budget_s: no further record is begun after this time.

    Returns:
        A dict. Of the r records that are done (at least one): chip_counts int32 (r,). Of their c
        chips, record by record: rects float64 (c, 4) image px; levels uint8 (c,); negative bool
        (c,); row_counts int32 (c,); rows int32 (sum of row_counts,); box_counts int32 (c,) with
        proposals; gt_counts int32 (c,). Of their ground truth: fates uint8. And level_counts int64
        (L, 8): positive and negative chips, records with positive chips, ground truth in range, of
        these too long, wanted, covered, negative chips at random places; and negative_candidates.

    Raises:
        OpsError: wrong dtypes, shapes or numbers.
    """
    cdef int64_t size = len(boxes)
    cdef int64_t begin = _integer("first", first, 0, size - 1)
    cdef int64_t end = _integer("last", last, begin + 1, size)
    cdef double budget = _number("budget_s", budget_s, 0, 1e9)
    cdef const double[:, ::1] range_view = _array("size_ranges", size_ranges, np.float64, (None, 2))
    cdef int64_t levels = range_view.shape[0]
    if not 1 <= levels <= 255:
        raise _wrong("the number of levels", levels, "1 to 255")
    cdef const double[::1] limit_view = _array("side_limits", side_limits, np.float64, (levels,))
    if not (np.asarray(limit_view) > 0).all():
        raise _wrong("side_limits", np.asarray(limit_view).tolist(), "positive numbers")
    cdef const double[:, ::1] factor_view = _array("factors", factors, np.float64, (size, levels))
    cdef const int64_t[::1] gt_view = _array("num_gt", num_gt, np.int64, (size,))
    cdef const int64_t[::1] width_view = _array("width", width, np.int64, (size,))
    cdef const int64_t[::1] height_view = _array("height", height, np.int64, (size,))
    cdef const int64_t[::1] id_view = _array("image_ids", image_ids, np.int64, (size,))
    cdef const uint8_t[::1] flip_view = _array("flipped", flipped, np.bool_, (size,)).view(np.uint8)
    cdef vector[ChipRecord] records
    cdef EpochRequest request
    request.ranges = <const SizeRange*> &range_view[0, 0]
    request.side_limits = &limit_view[0]
    request.num_levels = levels
    request.chip_size = _integer("chip_size", chip_size, 1, _MAX_SIDE)
    request.stride = _integer("stride", stride, 1, _MAX_SIDE)
    request.seed = seed & SEED_MASK
    request.epoch = epoch & SEED_MASK
    request.use_negatives = _flag("use_negatives", use_negatives)
    request.max_negatives = _integer("max_negatives", max_negatives, 0, _MAX_COUNT)
    request.alarms_finest, request.alarms_others = (
        _number("min_alarms", number, 0, _MAX_COUNT) for number in min_alarms
    )
    request.alarms_per_proposals = _number("alarms_per_proposals", alarms_per_proposals, 0, _MAX_COUNT)
    request.alarms_share_finest, request.alarms_share_others = (
        _number("alarms_shares", number, 1e-9, 1) for number in alarms_shares
    )
    request.background = _number("background", background, 0, 1000)
    request.crops = _integer("crops", crops, 0, _MAX_COUNT)
    request.gt_rows_only = _flag("gt_rows_only", gt_rows_only)
    request.min_gt_side = _number("min_gt_side", min_gt_side, 0, _MAX_SIDE)
    request.legacy_boxes = _flag("legacy_boxes", legacy_boxes)
    records.resize(end - begin)
    cdef ChipRecord* record
    cdef int64_t r
    for r in range(begin, end):
        record = &records[r - begin]
        record.num_boxes = _point_at(boxes[r], &record.boxes)
        record.num_gt = gt_view[r]
        if not 0 <= record.num_gt <= record.num_boxes:
            raise _wrong(f"num_gt[{r}]", record.num_gt, f"0 to {record.num_boxes}, the rows of its boxes")
        record.width, record.height = width_view[r], height_view[r]
        record.image_id, record.flipped = id_view[r], flip_view[r]
        record.factors = &factor_view[r, 0]
    cdef EpochChips made
    try:
        with nogil:
            made = epoch_chips_cpu(request, records.data(), records.size(), budget)
    except ValueError as error:
        raise OpsError(str(error)) from None
    except _FAILURES as error:
        raise _refused("Chip generation", error) from None
    return _chips_as_arrays(made, levels)


cdef int64_t _point_at(array, const float** data) except -1:
    """Sets `data` to the memory of a box array, which the caller keeps alive; returns its rows."""
    cdef const float[:, ::1] view
    try:
        view = array
    except (TypeError, ValueError):
        view = None
    if view is None or view.shape[1] != 4:
        raise OpsError(
            "a box array has a wrong dtype or shape.",
            got=f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}",
            expected="float32 (n, 4), C-contiguous",
        )
    data[0] = &view[0, 0] if view.shape[0] > 0 else NULL
    return view.shape[0]


cdef _copy(const void* data, size_t count, dtype, columns):
    """`count` rows of some memory as an array."""
    array = np.empty((count, columns) if columns else count, dtype)
    cdef unsigned char[::1] raw
    if array.size:
        raw = array.reshape(-1).view(np.uint8)
        memcpy(&raw[0], data, raw.shape[0])
    return array


cdef _chips_as_arrays(const EpochChips& made, int64_t levels):
    cdef const ChipList* chips = &made.list
    return {
        "chip_counts": _copy(made.chip_counts.data(), made.chip_counts.size(), np.int32, 0),
        "rects": _copy(chips.rects.data(), chips.rects.size(), np.float64, 4),
        "levels": _copy(chips.levels.data(), chips.levels.size(), np.uint8, 0),
        "negative": _copy(chips.negative.data(), chips.negative.size(), np.bool_, 0),
        "row_counts": _copy(chips.row_counts.data(), chips.row_counts.size(), np.int32, 0),
        "rows": _copy(chips.rows.data(), chips.rows.size(), np.int32, 0),
        "box_counts": _copy(chips.box_counts.data(), chips.box_counts.size(), np.int32, 0),
        "gt_counts": _copy(chips.gt_counts.data(), chips.gt_counts.size(), np.int32, 0),
        "fates": _copy(chips.fates.data(), chips.fates.size(), np.uint8, 0),
        "level_counts": _copy(made.levels.data(), levels, np.int64, 8),
        "negative_candidates": made.negative_candidates,
    }

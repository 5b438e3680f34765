from dataclasses import replace

import numpy as np
import pytest

from sniper.data.record import Record, with_proposals
from sniper.targets import gt as module
from sniper.targets.contract import ChipTruth
from sniper.targets.gt import (
    GtLabels,
    boxes_in_chip,
    crowd_in_chip,
    gt_in_chip,
    pack_gt,
    rows_that_fit,
)

NO_ROWS = np.zeros(0, np.int32)


def make_record(boxes, classes=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.arange(1, len(boxes) + 1) if classes is None else classes
    return Record(
        image_path="a.jpg",
        image_id=1,
        width=640,
        height=480,
        flipped=False,
        boxes=boxes,
        classes=np.array(classes, np.int32),
        is_gt=np.ones(len(boxes), bool),
    )


BOXES = [
    [120, 80, 150, 100],
    [140, 90, 200, 170],
    [110, 70, 114, 74],
    [300, 200, 400, 300],
    [90, 55, 130, 95],
]


@pytest.mark.parametrize("factor", [3.0, 1.667, 0.3, 0.02])
@pytest.mark.parametrize("legacy", [False, True])
def test_many_boxes_give_what_a_look_at_each_of_them_gives(factor, legacy, monkeypatch):
    rng = np.random.default_rng(0)
    corners = rng.uniform(-50, 3000, (900, 2))
    boxes = np.hstack([corners, corners + np.exp(rng.uniform(0, 7, (900, 2)))])
    boxes[::2] = np.floor(boxes[::2])
    record = make_record(boxes)
    chips = [(x, y, x + 127 / factor, y + 127 / factor) for x, y in corners[:60].tolist()]
    rows = rng.integers(0, 900, 200).astype(np.int32)

    def found():
        return [gt_in_chip(record, chip, factor, rows, 128, 0.3, legacy=legacy) for chip in chips]

    near = found()
    assert sum(len(gt.rows) for gt in near) > 100
    monkeypatch.setattr(module, "_FEW_BOXES", 1000)
    for gt, expected in zip(near, found()):
        for name in ("boxes", "classes", "valid", "rows", "is_object"):
            np.testing.assert_array_equal(getattr(gt, name), getattr(expected, name))


def test_golden_positive_chip():
    rows = np.array([0, 1, 2])
    rect = (100, 60, 270.3, 230.3)
    gt = gt_in_chip(make_record(BOXES), rect, 3.0, rows, 512, legacy=True)
    packed, surplus = pack_gt(gt, 100)
    assert packed.shape == (100, 5) and packed.dtype == np.float32 and surplus == 0
    assert packed[:4].tolist() == [
        [60, 60, 150, 120, 1],
        [120, 90, 300, 330, 2],
        [30, 30, 42, 42, 3],
        [0, 0, 90, 105, 5],
    ]
    assert (packed[4:] == -1).all()
    assert gt.valid.tolist() == [True, True, True, False]
    assert gt.rows.tolist() == [0, 1, 2, 4]


def test_golden_negative_chip():
    rect = (300, 200, 470.3, 370.3)
    gt = gt_in_chip(make_record(BOXES), rect, 3.0, NO_ROWS, 512, legacy=True)
    assert pack_gt(gt, 100)[0][:2].tolist() == [[0, 0, 300, 300, 4], [-1] * 5]
    assert not gt.valid.any()


def test_halves_round_to_even_and_both_axes_are_clipped_to_the_chip():
    boxes = boxes_in_chip(np.array([[1.5, 2.5, 700, 700]], np.float32), (0, 0, 9, 9), 1.0, 512)
    assert boxes.tolist() == [[2, 2, 511, 511]] and boxes.dtype == np.float32


def test_boxes_are_dropped_below_ten_pixels_with_plus_one_widths():
    record = make_record([[0, 0, 9, 9], [0, 0, 8, 9], [0, 0, 9, 8], [50, 50, 59, 60]])
    gt = gt_in_chip(record, (0, 0, 511, 511), 1.0, np.array([0, 1, 2]), 512)
    assert gt.rows.tolist() == [0, 3]
    assert gt.valid.tolist() == [True, False]


def test_a_box_equal_to_a_valid_one_is_valid_too():
    record = make_record([[0, 0, 30, 30], [0.2, 0, 30, 30.3], [0, 0, 31, 30]])
    gt = gt_in_chip(record, (0, 0, 511, 511), 1.0, np.array([0]), 512)
    assert gt.valid.tolist() == [True, True, False]


def test_proposals_are_left_out():
    record = with_proposals(make_record([[0, 0, 30, 30]]), np.array([[0, 0, 99, 99]], np.float32))
    gt = gt_in_chip(record, (0, 0, 511, 511), 1.0, np.array([1]), 512)
    assert gt.rows.tolist() == [0] and not gt.valid.any()


def test_no_ground_truth_gives_empty_arrays():
    gt = gt_in_chip(make_record([]), (0, 0, 511, 511), 1.0, NO_ROWS, 512)
    assert gt.boxes.shape == (0, 4) and gt.classes.shape == gt.valid.shape == gt.rows.shape == (0,)
    assert (pack_gt(gt, 5)[0] == -1).all()


@pytest.mark.parametrize("valid_rows", [[], [108, 109], list(range(110))])
def test_surplus_keeps_valid_boxes_first_then_record_order(valid_rows):
    boxes = [[4 * i, 0, 4 * i + 27, 27] for i in range(110)]
    gt = gt_in_chip(make_record(boxes), (0, 0, 511, 511), 1.0, np.array(valid_rows, int), 512)
    packed, surplus = pack_gt(gt, 100)
    assert surplus == 10
    wanted = ([*valid_rows, *(i for i in range(110) if i not in valid_rows)])[:100]
    assert packed[:, 4].tolist() == [i + 1.0 for i in sorted(wanted)]
    assert (packed[:, 4] > 0).all()


def test_small_pieces_of_an_object_are_background_for_the_box_head_and_no_matter_for_the_rpn():
    boxes = [
        [10, 10, 49, 49],  # whole
        [80, 10, 119, 49],  # a half and a bit: the chip ends at x = 100
        [94, 60, 133, 99],  # a seventh
        [90, 60, 129, 99],  # a quarter, and assigned to the chip
    ]
    record, rect = make_record(boxes), (0, 0, 100, 100)
    gt = gt_in_chip(record, rect, 2.0, np.array([0, 3]), 201, min_visible=0.5)
    assert gt.is_object.tolist() == [True, True, False, True]
    # The piece is still a box that no anchor is trained on.
    assert gt.rows.tolist() == [0, 1, 2, 3] and gt.valid.tolist() == [True, False, False, True]
    packed, surplus = pack_gt(gt, 5)
    assert packed[:, 4].tolist() == [1, 2, 4, -1, -1] and surplus == 0
    packed, surplus = pack_gt(gt, 2)
    assert packed[:, 4].tolist() == [1, 4] and surplus == 1
    every = gt_in_chip(record, rect, 2.0, np.array([0, 3]), 201)
    assert every.is_object.all() and pack_gt(every, 5)[0][:, 4].tolist() == [1, 2, 3, 4, -1]


def test_masks_follow_the_objects_of_the_box_head():
    gt = gt_in_chip(make_record([[94, 60, 133, 99], [10, 10, 49, 49]]), (0, 0, 100, 100), 2.0,
                    NO_ROWS, 201, min_visible=0.5)  # fmt: skip
    assert rows_that_fit(gt, 10).tolist() == [1]


def test_crowd_regions_move_with_the_chip_and_vanish_outside():
    regions = [[0, 0, 639, 479], [10, 10, 40, 40], [120, 80, 149, 99], [400, 300, 600, 400]]
    record = replace(make_record(BOXES), crowd_boxes=np.array(regions, np.float32))
    crowd = crowd_in_chip(record, (100, 60, 270.3, 230.3), 3.0, 512)
    assert crowd.dtype == np.float32
    assert crowd.tolist() == [[0, 0, 511, 511], [60, 60, 149, 119]]
    for none in (None, np.zeros((0, 4), np.float32)):
        empty = crowd_in_chip(replace(record, crowd_boxes=none), (0, 0, 511, 511), 1.0, 512)
        assert empty.shape == (0, 4) and empty.dtype == np.float32


class FineChip:
    rect, factor, height, width, level = (0, 0, 511, 511), 1.0, 480, 512, 0


@pytest.mark.parametrize("count", [0, 2, 3, 15])
def test_crowd_rows_hold_those_of_the_chip_and_the_rest_is_counted(count):
    """2018 cut the list to ten first, and dropped what lies outside of the chip then."""
    outside = [[900, 0, 950, 50]] * 12
    inside = [[10 * i, 5, 10 * i + 80, 60] for i in range(count)]
    record = make_record([[0, 0, 30, 30]])
    record = replace(record, width=1000, crowd_boxes=np.array([*outside, *inside], np.float32))
    gt = gt_in_chip(record, FineChip.rect, 1.0, np.array([0]), 512)
    crowd = crowd_in_chip(record, FineChip.rect, 1.0, 512)
    labels = GtLabels(512, 5, [(-1, -1)], max_crowd=3)
    row = {array.name: np.full(array.shape, 7, np.float32) for array in labels.compact}
    surplus = labels.write(ChipTruth(record, FineChip(), gt, 512, 0, crowd_boxes=crowd), row)
    assert surplus == max(count - 3, 0)
    expected = [[*box, 0] for box in inside[:3]] + [[-1] * 5] * max(3 - count, 0)
    assert row["crowd_boxes"].tolist() == expected
    assert row["gt_boxes"][0].tolist() == [0, 0, 30, 30, 1]

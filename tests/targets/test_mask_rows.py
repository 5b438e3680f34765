"""Rows of encoded polygons: the golden rows, a slow reference, and the operator that reads them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.data.record import Record
from sniper.errors import ConfigError, DataError
from sniper.native import _native
from sniper.targets.gt import gt_in_chip, pack_gt
from sniper.targets.masks import mask_rows

CHIP = SimpleNamespace(rect=(5.0, 10.0, 260.5, 265.5), factor=2.0)


def make_record(objects, boxes=None, classes=None):
    """A record of `objects`, each a list of polygons."""
    count = len(objects)
    if boxes is None:
        boxes = [[20 + i, 20, 60 + i, 60] for i in range(count)]
    return Record(
        image_path="a.jpg",
        image_id=1,
        width=640,
        height=480,
        flipped=False,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.array(classes or range(1, count + 1), np.int32),
        is_gt=np.ones(count, bool),
        polygons=tuple(tuple(np.array(p, np.float32) for p in parts) for parts in objects),
    )


def rows_of(record, rows=(), max_gt=100, row_length=500, chip=CHIP):
    gt = gt_in_chip(record, chip.rect, chip.factor, np.array(rows, int), 512)
    return mask_rows(record, gt, chip, max_gt, row_length, legacy=True), gt


def test_golden_rows():
    polygons = [[10, 20, 30, 20, 30, 40], [1, 2, 3, 4, 5, 6, 7, 8]]
    rows, _ = rows_of(make_record([polygons, [list(range(600))]], classes=[4, 80]))
    assert rows.shape == (100, 500) and rows.dtype == np.float32
    head = [3, 2, 6, 8, 10, 20, 50, 20, 50, 60, -8, -16, -4, -12, 0, -8, 4, -4]
    assert rows[0, : len(head)].tolist() == head
    assert (rows[0, len(head) :] == -1).all()
    assert rows[1].tolist() == [79, 0] + [-1] * 498
    assert (rows[2:] == -1).all()


@pytest.mark.parametrize("length, kept", [(496, 1), (498, 0)])
def test_the_budget_is_used_to_the_last_number(length, kept):
    rows, _ = rows_of(make_record([[list(range(length))]]))  # 3 more than its coordinates
    assert rows[0, 1] == kept


def test_the_first_polygon_that_does_not_fit_ends_the_object():
    parts = [[1] * 6, [2] * 20, [3] * 6]
    rows, _ = rows_of(make_record([parts]), row_length=5 + 6 + 19)
    assert rows[0, :9].tolist() == [0, 1, 6, -8, -18, -8, -18, -8, -18]
    assert (rows[0, 9:] == -1).all()


def test_polygons_that_are_dropped_count_for_the_budget_with_one_number_each():
    parts = [[1] * 6, [2] * 400, [3] * 400]
    assert rows_of(make_record([parts]), row_length=2 + 3 + 6)[0][0, 1] == 1
    assert rows_of(make_record([parts]), row_length=2 + 3 + 5)[0][0, 1] == 0


def test_without_the_rules_of_2018_long_outlines_are_simplified():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.stack([200 + 90 * np.cos(angle), 150 + 90 * np.sin(angle)], axis=1).reshape(-1)
    record = make_record([[circle, [5, 5, 9, 5, 9, 9]]])
    assert rows_of(record)[0][0, 1] == 0
    gt = gt_in_chip(record, CHIP.rect, CHIP.factor, np.zeros(0, int), 512)
    row = mask_rows(record, gt, CHIP, 1, 500)[0]
    assert row[1] == 2 and 40 < row[2] < 494 and row[3] == 6
    points = row[4 : 4 + int(row[2])].reshape(-1, 2) / CHIP.factor + CHIP.rect[:2]
    assert np.abs(np.hypot(*(points - [200, 150]).T) - 90).max() < 1e-3
    # What fits is what it was.
    short = make_record([[[5, 5, 9, 5, 9, 9]]])
    gt = gt_in_chip(short, CHIP.rect, CHIP.factor, np.zeros(0, int), 512)
    np.testing.assert_array_equal(mask_rows(short, gt, CHIP, 1, 500), rows_of(short, max_gt=1)[0])


def test_an_object_without_polygons_has_no_segments():
    rows, _ = rows_of(make_record([[], [[1, 2, 3, 4, 5, 6]]]))
    assert rows[0].tolist() == [0, 0] + [-1] * 498
    assert rows[1, :3].tolist() == [1, 1, 6]


def slow_rows(record, packed, kept_rows, chip, max_gt, row_length):
    """Section 5.4 for the rows of `gt_boxes`."""
    rows = []
    for slot in range(max_gt):
        row = []
        if packed[slot, 4] != -1:
            polygons = record.polygons[kept_rows[slot]]
            total, kept = 2 + len(polygons), []
            for polygon in polygons:
                if total + len(polygon) > row_length:
                    break
                total += len(polygon)
                kept.append(polygon)
            row = [packed[slot, 4] - 1, len(kept), *(len(polygon) for polygon in kept)]
            for polygon in kept:
                for i, value in enumerate(polygon.tolist()):
                    row.append((value - chip.rect[i % 2]) * chip.factor)
        rows.append(row + [-1] * (row_length - len(row)))
    return np.array(rows, np.float32).reshape(max_gt, row_length)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 12),
    max_gt=st.integers(1, 8),
    row_length=st.integers(2, 60),
)
def test_equals_the_slow_reference_row_by_row_of_gt_boxes(seed, count, max_gt, row_length):
    generator = np.random.default_rng(seed)
    corners = generator.integers(-20, 300, (count, 2))
    boxes = np.hstack([corners, corners + generator.integers(0, 60, (count, 2))])
    objects = [
        [generator.uniform(-50, 400, 2 * generator.integers(3, 12)) for _ in range(parts)]
        for parts in generator.integers(0, 4, count)
    ]
    record = make_record(objects, boxes)
    chip = SimpleNamespace(rect=(13.2, 7.9, 268.7, 263.4), factor=1.667)
    assigned = np.flatnonzero(generator.random(count) < 0.5)
    rows, gt = rows_of(record, assigned, max_gt, row_length, chip)
    packed, _ = pack_gt(gt, max_gt)
    kept_rows = [
        row
        for slot in range(max_gt)
        for row in gt.rows
        if packed[slot, 4] == record.classes[row]  # every object has a class of its own
    ]
    expected = slow_rows(record, packed, kept_rows, chip, max_gt, row_length)
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


def test_more_objects_than_rows_keep_those_of_gt_boxes():
    record = make_record([[[i] * 6] for i in range(5)])
    rows, gt = rows_of(record, rows=(3, 4), max_gt=2)
    assert pack_gt(gt, 2)[0][:, 4].tolist() == [4, 5]
    assert rows[:, 0].tolist() == [3, 4] and rows[:, 3].tolist() == [-4, -2]


def test_the_mask_operator_reads_the_rows():
    square = [10, 10, 70, 10, 70, 70, 10, 70]  # larger than its box
    rows, gt = rows_of(make_record([[], [square]]))
    roi = np.array([[0, *gt.boxes[1]]], np.float32)
    target, classes = _native.mask_rcnn_target(roi, rows[None], np.array([[1]], np.float32))
    assert (target == 1).all() and (classes == 1).all()


def test_records_without_polygons_are_data_errors():
    record = dataclasses.replace(make_record([[]]), polygons=None)
    with pytest.raises(DataError, match="without polygons"):
        rows_of(record)


def test_a_row_without_room_for_its_header_is_a_config_error():
    with pytest.raises(ConfigError, match="MAX_POLYGON_LEN"):
        rows_of(make_record([[]]), row_length=1)

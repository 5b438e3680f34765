from __future__ import annotations

import dataclasses
import gc
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.data import (
    Record,
    append_flipped,
    filter_trainable,
    flip_record,
    with_proposals,
)
from sniper.data.collector import collector_off
from sniper.data.record import Rows, records_of_arrays
from sniper.errors import DataError


def make_record(boxes, *, width=100, polygons=None, num_proposals=0, **changes):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    num_gt = len(boxes) - num_proposals
    fields = {
        "image_path": "img.jpg",
        "image_id": 7,
        "width": width,
        "height": 80,
        "flipped": False,
        "boxes": boxes,
        "classes": np.where(np.arange(len(boxes)) < num_gt, 3, 0).astype(np.int32),
        "is_gt": np.arange(len(boxes)) < num_gt,
        "polygons": polygons,
        "crowd_boxes": np.array([[1, 2, 3, 4]], np.float32),
    }
    return Record(**{**fields, **changes})


@st.composite
def records(draw):
    width = draw(st.integers(2, 500))
    count = draw(st.integers(0, 6))
    boxes, polygons = [], []
    for _ in range(count):
        x = sorted(draw(st.lists(st.integers(0, width - 1), min_size=2, max_size=2)))
        boxes.append([x[0], 3, x[1], 9])
        # Where the last pixel ends.
        polygons.append((np.array([x[0], 3, x[1] + 1, 3, x[1] + 1, 10], np.float32),))
    return make_record(boxes, width=width, polygons=tuple(polygons))


@given(records(), st.booleans())
def test_flipping_twice_gives_the_record_back(record, legacy):
    once = flip_record(record, legacy=legacy)
    twice = flip_record(once, legacy=legacy)
    assert once.flipped and not twice.flipped
    np.testing.assert_array_equal(twice.boxes, record.boxes)
    np.testing.assert_array_equal(twice.crowd_boxes, record.crowd_boxes)
    for ours, theirs in zip(twice.polygons, record.polygons):
        np.testing.assert_array_equal(ours[0], theirs[0])


@given(records(), st.booleans())
def test_a_mirrored_record_would_pass_the_checks(record, legacy):
    once = flip_record(record, legacy=legacy)
    again = Record(**vars(once))
    assert type(once) is Record and list(vars(once)) == list(vars(again))
    assert (once.image_id, once.width, once.exif) == (record.image_id, record.width, record.exif)
    assert dataclasses.replace(once, flipped=False).num_gt == record.num_gt


@given(records())
def test_flipped_polygons_stay_in_their_boxes(record):
    flipped = flip_record(record)
    for box, (polygon,) in zip(flipped.boxes, flipped.polygons):
        assert (polygon[0::2].min(), polygon[0::2].max()) == (box[0], box[2] + 1)
    legacy = flip_record(record, legacy=True)
    np.testing.assert_array_equal(legacy.boxes, flipped.boxes)
    for (ours,), (of_2018,) in zip(flipped.polygons, legacy.polygons):
        np.testing.assert_array_equal(of_2018, ours - np.float32([1, 0] * 3))


def test_flip_by_hand():
    polygon = np.array([10, 5, 30, 5, 30, 20], np.float32)
    flipped = flip_record(make_record([[10, 5, 30, 20]], polygons=((polygon,),)))
    np.testing.assert_array_equal(flipped.boxes, [[69, 5, 89, 20]])
    np.testing.assert_array_equal(flipped.crowd_boxes, [[96, 2, 98, 4]])
    np.testing.assert_array_equal(flipped.polygons[0][0], [90, 5, 70, 5, 70, 20])
    np.testing.assert_array_equal(polygon, [10, 5, 30, 5, 30, 20])


def test_append_flipped_puts_all_originals_first():
    originals = [make_record([[1, 1, 5, 5]], image_id=i) for i in (4, 2)]
    both = append_flipped(originals)
    assert [(r.image_id, r.flipped) for r in both] == [
        (4, False),
        (2, False),
        (4, True),
        (2, True),
    ]


def test_proposals_follow_the_ground_truth_and_replace_older_ones():
    record = make_record([[1, 1, 5, 5], [2, 2, 8, 8]])
    first = with_proposals(record, np.array([[0, 0, 9, 9]], np.float32))
    second = with_proposals(first, np.array([[3, 3, 4, 4], [5, 5, 6, 6]], np.float64))
    assert second.boxes.dtype == np.float32
    np.testing.assert_array_equal(
        second.boxes, [[1, 1, 5, 5], [2, 2, 8, 8], [3, 3, 4, 4], [5, 5, 6, 6]]
    )
    np.testing.assert_array_equal(second.classes, [3, 3, 0, 0])
    np.testing.assert_array_equal(second.is_gt, [True, True, False, False])
    np.testing.assert_array_equal(second.gt_boxes, record.boxes)
    np.testing.assert_array_equal(second.gt_classes, [3, 3])


def test_images_without_objects_are_dropped_even_with_proposals():
    empty = make_record(np.zeros((0, 4)))
    only_proposals = with_proposals(empty, np.array([[0, 0, 9, 9]], np.float32))
    full = make_record([[1, 1, 5, 5]])
    assert filter_trainable([empty, full, only_proposals]) == [full]
    kept = filter_trainable([empty, full, only_proposals], keep_without_objects=True)
    assert kept == [full, only_proposals]
    records = [empty, full, only_proposals]
    assert filter_trainable(records, keep_without_objects=True, need_proposals=False) == records
    assert filter_trainable(records, need_proposals=False) == [full]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"width": 0}, "its size is 0x80"),
        ({"boxes": np.zeros((1, 4))}, "boxes is float64"),
        ({"boxes": np.zeros((1, 5), np.float32)}, "not float32"),
        ({"boxes": np.array([[0, 0, np.nan, 1]], np.float32)}, "not finite"),
        ({"boxes": np.array([[5, 0, 4, 1]], np.float32)}, "ends before it starts"),
        ({"classes": np.array([0], np.int32)}, "classes must be"),
        ({"classes": np.array([1], np.int64)}, "classes is int64"),
        ({"is_gt": np.array([False])}, "classes must be"),
        ({"is_gt": np.array([True, True])}, "is_gt is bool"),
        ({"polygons": ()}, "1 ground truth boxes, but 0 polygon lists"),
        ({"crowd_boxes": np.zeros((2, 3), np.float32)}, "crowd_boxes is float32"),
    ],
)
def test_broken_records_are_refused(changes, problem):
    with pytest.raises(DataError, match=problem) as error:
        dataclasses.replace(make_record([[1, 1, 5, 5]]), **changes)
    assert "img.jpg" in str(error.value) and "image 7" in str(error.value)


def test_proposals_before_ground_truth_are_refused():
    record = make_record([[1, 1, 5, 5], [2, 2, 8, 8]], num_proposals=1)
    with pytest.raises(DataError, match="proposals stand before"):
        dataclasses.replace(record, is_gt=np.array([False, True]))


def table_of(boxes, classes):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    crowd = Rows(np.array([[1, 2, 3, 4]], np.float32), np.array([0, 0, 1]))
    rows = Rows(boxes, np.array([0, 1, len(boxes)]))
    sizes, ids = np.array([[40, 30], [20, 10]]), ["a", 7]
    return records_of_arrays(
        ["a.jpg", "b.jpg"], [5, 7], ids, sizes, rows, np.array(classes, np.int32), crowd
    )


def test_records_of_arrays_are_those_of_single_images():
    first, second = table_of([[1, 1, 9, 9], [0, 0, 4, 4], [2, 2, 3, 3]], [3, 1, 2])
    single = Record(
        image_path="b.jpg",
        image_id=7,
        width=20,
        height=10,
        flipped=False,
        boxes=np.array([[0, 0, 4, 4], [2, 2, 3, 3]], np.float32),
        classes=np.array([1, 2], np.int32),
        is_gt=np.ones(2, bool),
        crowd_boxes=np.array([[1, 2, 3, 4]], np.float32),
    )
    for name, value in vars(single).items():
        np.testing.assert_array_equal(getattr(second, name), value, err_msg=name)
    assert (first.file_id, second.file_id) == ("a", None)
    assert first.boxes.tolist() == [[1, 1, 9, 9]] and len(first.crowd_boxes) == 0
    assert flip_record(second).boxes.tolist() == [[15, 0, 19, 4], [16, 2, 17, 3]]


@pytest.mark.parametrize(
    ("boxes", "classes", "said"),
    [
        ([[1, 1, 9, 9], [4, 4, 0, 0]], [1, 1], "image 7 is broken: a ground truth box ends"),
        ([[1, 1, np.nan, 9], [0, 0, 4, 4]], [1, 1], "image a is broken: a box is not finite"),
        ([[1, 1, 9, 9], [0, 0, 4, 4]], [1, 0], "image 7 is broken: classes must be"),
    ],
)
def test_records_of_arrays_name_the_broken_image(boxes, classes, said):
    with pytest.raises(DataError, match=said):
        table_of(boxes, classes)
    assert gc.isenabled()


def test_records_of_arrays_are_frozen_and_copied_as_all_others():
    record = table_of([[1, 1, 9, 9], [0, 0, 4, 4]], [1, 2])[1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.width = 5
    for copied in (pickle.loads(pickle.dumps(record)), dataclasses.replace(record)):
        for name, value in vars(record).items():
            np.testing.assert_array_equal(getattr(copied, name), value, err_msg=name)
    with pytest.raises(DataError, match="its size is"):
        dataclasses.replace(record, width=0)


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_as_before(was_on):
    if not was_on:
        gc.disable()
    try:
        with pytest.raises(ValueError, match="inside"), collector_off():
            assert not gc.isenabled()
            raise ValueError("inside")
        assert gc.isenabled() == was_on
    finally:
        gc.enable()

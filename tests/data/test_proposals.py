from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.boxes import iou
from sniper.data import (
    ProposalSet,
    attach_proposals,
    flip_record,
    load_proposals,
    save_proposals,
)
from sniper.data.coco import load_coco
from sniper.errors import DataError


def make_set(per_image, name="COCO_a"):
    """{image id: rows of x1 y1 x2 y2 score} -> ProposalSet"""
    rows = [np.asarray(r, np.float32).reshape(-1, 5) for r in per_image.values()]
    table = np.concatenate([np.zeros((0, 5), np.float32), *rows])
    return ProposalSet(
        set_name=name,
        image_ids=np.array(list(per_image), np.int64),
        offsets=np.cumsum([0, *(len(r) for r in rows)], dtype=np.int64),
        boxes=table[:, :4],
        scores=table[:, 4],
    )


@pytest.fixture
def records(small_set):
    return load_coco(small_set.root, small_set.image_set).records


ROWS = {
    5: [[1, 1, 9, 9, 0.5]],
    2: [],
    70: [
        [10, 10, 29, 29, 0.2],
        [11, 10, 29, 29, 0.9],
        [40, 0, 50, 30, 0.4],
        [40, 0, 59, 39, 0.0],
        [1, 1, 3, 3, -1],
        [9, 9, 4, 12, 0.99],
    ],
    11: [[0, 0, 5, 5, 1]],
    3: [[0, 0, 5, 5, 1]],
}


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.integers(-(2**40), 2**40),
        st.lists(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 5), max_size=4),
        max_size=5,
    )
)
def test_round_trip(tmp_path_factory, per_image):
    proposals = make_set(per_image, "COCO_ü 1")
    path = tmp_path_factory.mktemp("p") / "x_rpn.npz"
    save_proposals(path, proposals)
    again = load_proposals(path)
    assert again.set_name == "COCO_ü 1"
    for image_id, rows in per_image.items():
        boxes, scores = again.for_image(image_id)
        ours = np.concatenate([boxes, scores[:, None]], axis=1)
        np.testing.assert_array_equal(ours, np.asarray(rows, np.float32).reshape(-1, 5))


def test_rows_are_matched_by_id_filtered_and_suppressed(records):
    attached = attach_proposals(records, make_set(ROWS), set_name="COCO_a")
    street = attached[0]
    np.testing.assert_array_equal(street.boxes[:2], records[0].boxes)
    np.testing.assert_array_equal(street.boxes[2:], [[11, 10, 29, 29], [40, 0, 50, 30]])
    assert street.classes.tolist() == [1, 3, 0, 0]
    assert [len(r.boxes) - r.num_gt for r in attached] == [2, 1, 1, 0, 1]


def test_flipped_records_get_mirrored_proposals(records):
    straight = attach_proposals(records, make_set(ROWS))[0]
    mirrored = attach_proposals([flip_record(records[0])], make_set(ROWS))[0]
    np.testing.assert_array_equal(flip_record(straight).boxes, mirrored.boxes)


def test_records_of_any_order_and_many_blocks(records, monkeypatch):
    mixed = [*records, *map(flip_record, records[::-1])]
    expected = [attach_proposals([record], make_set(ROWS))[0] for record in mixed]
    for rows_per_block in (1, 3, 1000):
        monkeypatch.setattr("sniper.data.proposals._ROWS_PER_BLOCK", rows_per_block)
        attached = attach_proposals(mixed, make_set(ROWS))
        for ours, theirs in zip(attached, expected):
            np.testing.assert_array_equal(ours.boxes, theirs.boxes)
            np.testing.assert_array_equal(ours.is_gt, theirs.is_gt)
            np.testing.assert_array_equal(ours.classes, theirs.classes)
            assert (ours.image_id, ours.flipped) == (theirs.image_id, theirs.flipped)


def test_attaching_again_replaces(records):
    once = attach_proposals(records, make_set(ROWS))
    twice = attach_proposals(once, make_set({**ROWS, 70: []}))
    assert [len(r.boxes) - r.num_gt for r in twice] == [0, 1, 1, 0, 1]


def test_suppression_against_a_slow_reference(records):
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 30, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 20, (60, 2))], 1).astype(np.float32)
    scores = rng.permutation(60).astype(np.float32) / 60 + 0.01
    rows = {**ROWS, 70: np.concatenate([boxes, scores[:, None]], axis=1)}
    kept: list[int] = []
    for candidate in np.argsort(-scores):
        if all(iou(boxes[[candidate]], boxes[[k]])[0, 0] <= 0.4 for k in kept):
            kept.append(candidate)
    ours = attach_proposals(records, make_set(rows), nms_thresh=0.4)[0]
    np.testing.assert_array_equal(ours.boxes[ours.num_gt :], boxes[kept])
    assert 3 < len(kept) < 60


def test_proposals_of_another_set_fail_in_one_sentence(records):
    expected = "of the set 'COCO_a', the records those of 'COCO_b': 5 of 5 image ids match"
    with pytest.raises(DataError, match=expected):
        attach_proposals(records, make_set(ROWS), set_name="COCO_b")
    some = make_set({70: ROWS[70], 3: ROWS[3], 999: ROWS[5]})
    with pytest.raises(DataError, match="'COCO_a'.*'COCO_a': 2 of 5 image ids match"):
        attach_proposals(records, some, set_name="COCO_a")
    with pytest.raises(DataError, match="'another set': 2 of 5"):
        attach_proposals(records, some)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scores": np.zeros(3, np.float32)}, "scores is float32"),
        ({"boxes": np.zeros((2, 4))}, "boxes is float64"),
        ({"image_ids": np.array([1, 1], np.int64)}, "used twice"),
        ({"offsets": np.array([0, 2, 1], np.int64)}, "offsets do not rise"),
        ({"offsets": np.array([0, 3, 2], np.int64)}, "offsets do not rise"),
        ({"offsets": np.array([0, 2], np.int64)}, "offsets is int64"),
        ({"scores": np.array([np.nan, 1], np.float32)}, "not finite"),
    ],
)
def test_broken_sets_are_refused(changes, problem):
    good = {
        "image_ids": np.array([1, 2], np.int64),
        "offsets": np.array([0, 1, 2], np.int64),
        "boxes": np.zeros((2, 4), np.float32),
        "scores": np.ones(2, np.float32),
    }
    ProposalSet("COCO_a", **good)
    with pytest.raises(DataError, match=problem):
        ProposalSet("COCO_a", **{**good, **changes})


def test_unknown_image_is_named():
    with pytest.raises(DataError, match="image 4 has no proposals"):
        make_set(ROWS).for_image(4)


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "x_rpn.npz"
    with pytest.raises(DataError, match="cannot be read"):
        load_proposals(path)
    save_proposals(path, make_set(ROWS))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read") as error:
        load_proposals(path)
    assert str(path) in str(error.value)
    np.savez(path, boxes=np.zeros((1, 4), np.float32))
    with pytest.raises(DataError, match="cannot be read"):
        load_proposals(path)
    np.savez(path, image_ids=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        load_proposals(path)


def test_no_proposals_at_all():
    proposals = make_set({})
    assert len(proposals.boxes) == 0 and attach_proposals([], proposals) == []

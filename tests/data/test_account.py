"""The reader's half of the account of annotations: every one of them has one place in it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.data import account
from sniper.data.account import Intake, intake_of_array, join_intakes
from sniper.data.coco import load_coco
from sniper.data.coco_parse import parse_coco
from sniper.data.problems import CORNERS, FRACTIONS
from sniper.data.voc import load_voc
from sniper.errors import DataError
from tests.data.conftest import voc_xml

SIDES = st.one_of(st.integers(-20, 80), st.floats(-20, 80), st.just(0))
FLAGS = st.sampled_from([None, 0, 1, True, False, "0", "1", "true"])
ENTRIES = st.fixed_dictionaries(
    {
        "image_id": st.sampled_from([1, 2, 7]),  # 7 is not listed
        "category_id": st.sampled_from([3, 4, 9]),  # 9 is unknown
        "bbox": st.one_of(st.lists(SIDES, min_size=4, max_size=4), st.none()),
        "area": st.sampled_from([None, 0, 5]),
        "iscrowd": FLAGS,
        "ignore": FLAGS,
    }
)


@given(entries=st.lists(ENTRIES, max_size=12), legacy=st.booleans())
def test_what_is_read_is_an_object_or_left_out_for_one_reason(tmp_path_factory, entries, legacy):
    path = tmp_path_factory.mktemp("set") / "instances.json"
    images = [{"id": i, "file_name": f"{i}.png", "width": 60, "height": 40} for i in (1, 2)]
    categories = [{"id": 3, "name": "ant"}, {"id": 4, "name": "bee"}]
    content = {"images": images, "categories": categories, "annotations": entries}
    path.write_text(json.dumps(content))
    problems = []
    table = parse_coco(path, with_masks=False, legacy_boxes=legacy, on_problem=problems.append)
    intake = intake_of_array(table.intake)
    assert intake.read == len(entries)
    assert intake.kept == len(table.boxes) >= 0
    assert min([*intake.left_out.values(), *intake.remarks.values(), 0]) == 0
    # What is said of the boxes agrees with what is counted.
    said = {problem.kind.name: problem.count for problem in problems}
    for name in ("orphan", "ignored"):
        assert intake.left_out.get(name, 0) == said.get(name, 0)
    assert intake.left_out.get("no_area", 0) == said.get("box_no_area", 0)
    assert intake.remarks.get("repeated", 0) == said.get("repeated_object", 0)
    assert intake.remarks.get("cut", 0) == said.get("box_cut", 0)


def test_each_reason_is_counted_under_its_name(small_set):
    good = {"image_id": 70, "category_id": 4, "bbox": [1, 1, 20, 20]}
    small_set.content["annotations"] = [
        good | {"id": 1},
        good | {"id": 2, "bbox": [1, 1, 20, 21], "area": 0},
        good | {"id": 3, "bbox": [50, 1, 15, 20]},
        good | {"id": 4, "iscrowd": 1, "ignore": 1},
        good | {"id": 5, "ignore": 1},
        good | {"id": 6, "bbox": [1, 1, -3, 20]},
        good | {"id": 7, "bbox": [61, 1, 5, 5]},
        good | {"id": 8, "image_id": 4711},
        good | {"id": 9},
    ]
    small_set.write()
    dataset = load_coco(small_set.root, small_set.image_set)
    left_out = {"orphan": 1, "crowd": 1, "ignored": 1, "no_extent": 1, "outside": 1}
    assert dataset.intake == Intake(9, left_out, {"repeated": 1, "cut": 1})
    assert (dataset.num_objects, dataset.intake.kept, dataset.num_ignored) == (4, 4, 2)
    legacy = load_coco(small_set.root, small_set.image_set, legacy_boxes=True).intake
    assert legacy.left_out == left_out | {"no_area": 1}


def test_the_cache_keeps_the_account(small_set, tmp_path):
    small_set.content["annotations"][0]["ignore"] = 1
    small_set.write()
    read = [load_coco(small_set.root, small_set.image_set, cache_dir=tmp_path) for _ in range(2)]
    assert read[0].intake == read[1].intake
    assert read[1].intake.left_out == {"crowd": 1, "ignored": 1}


def test_pascal_voc_has_the_same_account(voc_set):
    assert load_voc(voc_set.root, "2007_trainval").intake == Intake(4, {"difficult": 1})
    boxes = [(5, 6, 2, 30), (77, 1, 90, 40), (3, 3, 60, 20), (3, 3, 60, 20)]
    voc_set.annotate("000012", voc_xml((50, 40), [("dog", box) for box in boxes]))
    dataset = load_voc(voc_set.root, "2007_trainval")
    left_out = {"difficult": 1, "no_extent": 1, "outside": 1}
    assert dataset.intake == Intake(6, left_out, {"repeated": 1, "cut": 2})
    assert dataset.num_objects == dataset.intake.kept == 3
    # No detection overlaps a box that ends before it starts: it is no miss of the evaluation.
    assert len(dataset.truth.boxes) == 5


def test_sets_are_added_up():
    one, two = Intake(5, {"crowd": 2}, {"cut": 1}), Intake(3, {"outside": 1}, {"cut": 2})
    assert join_intakes([one, two]) == Intake(8, {"crowd": 2, "outside": 1}, {"cut": 3})
    assert join_intakes([]) == Intake()
    names = [entry.name for entry in (*account.LEFT_OUT, *account.REMARKS)]
    assert len(set(names)) == len(names)


def boxes_of(small_set, boxes, area=None):
    small_set.content["annotations"] = [
        {"id": i, "image_id": 70, "category_id": 4, "bbox": box, "area": area and area(box)}
        for i, box in enumerate(boxes)
    ]
    small_set.write()
    return load_coco(small_set.root, small_set.image_set)


@pytest.mark.parametrize(
    ("boxes", "kind"),
    [
        ([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], FRACTIONS),
        ([[10, 5, 40, 30], [20, 10, 55, 38], [2, 3, 9, 9]], CORNERS),
    ],
)
def test_boxes_of_another_kind_are_refused_by_training(small_set, boxes, kind):
    with pytest.raises(DataError) as error:
        boxes_of(small_set, boxes)
    assert kind.title in str(error.value) and kind.fix in str(error.value)


def test_boxes_that_only_resemble_another_kind_are_trained(small_set):
    # All could be corners, but none reaches out of its image as it stands: 60x40 px.
    assert boxes_of(small_set, [[1, 2, 50, 30], [5, 5, 50, 30], [3, 3, 9, 9]]).num_objects == 3
    # Large objects that are not cut at the border: a little beyond it.
    assert boxes_of(small_set, [[3, 3, 59, 38], [2, 2, 60, 39]]).num_objects == 2
    # One box in the first px among others.
    assert boxes_of(small_set, [[0, 0, 1, 1], [5, 5, 9, 9]]).num_objects == 2


def test_areas_tell_corners_where_all_boxes_lie_in_the_first_quarter(small_set):
    boxes = [[2, 3, 20, 15], [5, 5, 25, 18]]
    with pytest.raises(DataError, match="look like"):
        boxes_of(small_set, boxes, area=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
    assert boxes_of(small_set, boxes, area=lambda b: b[2] * b[3]).num_objects == 2
    assert np.isclose(boxes_of(small_set, boxes).records[0].boxes[0], [2, 3, 21, 17]).all()

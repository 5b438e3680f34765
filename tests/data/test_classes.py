"""Classes of models and sets are matched by name, never by place."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from sniper.data import Dataset, Record
from sniper.data.class_names import read_classes, write_classes
from sniper.data.classes import (
    Classes,
    join_classes,
    lacking_classes,
    match_names,
    match_set,
    match_training,
    numbered_class_names,
    renumbered_records,
)
from sniper.data.detections import ImageDetections, table_of
from sniper.errors import ConfigError, DataError

BACK = "__background__"
MODEL = Classes((BACK, "ant", "bee", "cow"), (0, 5, 2, 9))


def make_set(*names, ids=None, name="s", annotated=True):
    ids = ids or tuple(range(1, len(names) + 1))
    return Dataset(name, name, (BACK, *names), (0, *ids), (), f"{name}.json", annotated)


def image(*pairs, masks=False):
    """(class, score) pairs"""
    rows = np.float32([[score, 2, 3, 4, score] for _, score in pairs]).reshape(-1, 5)
    texts = [f"mask {score}".encode() for _, score in pairs]
    return ImageDetections(rows, np.int32([c for c, _ in pairs]), texts if masks else None)


def test_places_foreign_and_missing_names():
    match = match_names((BACK, "cow", "ant", "elk"), MODEL.names)
    assert match.places.tolist() == [0, 3, 1, -1] and match.places.dtype == np.int32
    assert (match.foreign, match.missing) == (("elk",), ("bee",))
    assert match_names(MODEL.names, MODEL.names).is_same
    assert not match_names(MODEL.names[:2], MODEL.names).is_same


def test_the_same_list_leaves_detections_as_they_are():
    table = table_of([image((1, 0.9), (3, 0.5))])
    same, left_out = match_set(make_set("ant", "bee", "cow"), MODEL).detections(table)
    assert same is table and left_out == {}


@pytest.mark.parametrize("masks", [False, True])
def test_another_order_is_mapped(masks):
    images = [image((1, 0.9), (1, 0.8), (3, 0.7), masks=masks), image(masks=masks)]
    images.append(image((2, 0.6), (3, 0.5), masks=masks))
    matched = match_set(make_set("cow", "bee", "ant"), MODEL)
    table, left_out = matched.detections(table_of(images, with_masks=masks))
    # Within an image by class of the set, and in the old order within a class.
    assert [found.classes.tolist() for found in table] == [[1, 3, 3], [], [1, 2]]
    scores = [found.rows[:, 4].round(1).tolist() for found in table]
    np.testing.assert_allclose(np.concatenate(scores), [0.7, 0.9, 0.8, 0.5, 0.6], rtol=1e-5)
    assert left_out == {}
    if masks:
        assert table[0].masks == [b"mask 0.7", b"mask 0.9", b"mask 0.8"]
        assert table[2].masks == [b"mask 0.5", b"mask 0.6"]


def test_some_of_the_classes_are_evaluated_alone(caplog):
    caplog.set_level(logging.INFO)
    matched = match_set(make_set("cow", "ant"), MODEL)
    table, left_out = matched.detections(table_of([image((1, 0.9), (2, 0.8), (2, 0.7), (3, 0.6))]))
    assert table.classes.tolist() == [1, 2]
    np.testing.assert_allclose(table.rows[:, 4], [0.6, 0.9], rtol=1e-6)
    assert left_out == {"bee": 2}
    assert "s has 2 of the model's 3 classes: it is evaluated on them, without bee" in caplog.text
    assert "2 detections of classes that s does not have are left out: bee 2" in caplog.text


def test_foreign_classes_are_refused_with_both_differences():
    with pytest.raises(DataError) as error:
        match_set(make_set("ant", "Bee", "elk"), MODEL)
    text = str(error.value)
    assert "s alone has Bee, elk; the model alone has bee, cow" in text
    assert "only the writing differs: 'Bee' 'bee'" in text and "where: s.json" in text


def test_sets_without_classes_get_those_of_the_model():
    folder = make_set(annotated=False)
    matched = match_set(folder, MODEL)
    assert matched.dataset.class_names == MODEL.names
    assert matched.dataset.category_ids == MODEL.ids
    assert match_set(folder, Classes(MODEL.names)).dataset.category_ids == (0, 1, 2, 3)


def test_numbers_of_2018_take_the_order_of_the_set(caplog):
    caplog.set_level(logging.INFO)
    unnamed = Classes(numbered_class_names(4))
    table = table_of([image((2, 0.5))])
    matched = match_set(make_set("x", "y", "z"), unnamed)
    assert matched.detections(table)[0] is table and "nobody named" in caplog.text
    with pytest.raises(ConfigError, match="NUM_CLASSES does not fit") as error:
        match_set(make_set("x", "y"), unnamed)
    assert "--set dataset.NUM_CLASSES 3" in str(error.value)
    # Where a set has these very names they are names.
    turned = match_set(make_set("class 3", "class 2", "class 1"), unnamed)
    assert turned.detections(table_of([image((1, 0.5))]))[0].classes.tolist() == [3]


def test_joined_classes_keep_the_first_order_and_the_first_ids(caplog):
    sets = [
        make_set("ant", "bee", ids=(7, 3), name="a"),
        make_set("cow", "bee", "elk", ids=(7, 8, 9), name="b"),
    ]
    joined = join_classes(sets)
    assert joined.names == (BACK, "ant", "bee", "cow", "elk")
    assert joined.ids == (0, 7, 3, 8, 9)  # 7 is taken
    assert lacking_classes(sets, joined) == {"a": ("cow", "elk"), "b": ("ant",)}
    assert lacking_classes(sets[:1], join_classes(sets[:1])) == {}


def test_an_id_of_0_is_free_for_a_class():
    sets = [make_set("ant", ids=(0,), name="a"), make_set("bee", ids=(0,), name="b")]
    assert join_classes(sets).ids == (0, 0, 1)


def test_one_class_written_in_two_ways_is_refused():
    sets = [make_set("traffic light", name="a"), make_set("Traffic_Light", name="b")]
    with pytest.raises(DataError, match="one class in two ways") as error:
        join_classes(sets)
    assert "'Traffic_Light'; other sets have 'traffic light'" in str(error.value)


def test_records_get_other_indices_and_proposals_stay_proposals():
    boxes = np.float32([[1, 1, 5, 5], [2, 2, 6, 6], [3, 3, 7, 7]])
    classes, is_gt = np.int32([1, 2, 0]), np.array([True, True, False])
    record = Record("a.png", 1, 10, 10, False, boxes, classes, is_gt)
    (changed,) = renumbered_records([record], np.int32([0, 2, 1]))
    assert changed.classes.tolist() == [2, 1, 0] and changed.classes.dtype == np.int32
    records = [record]
    assert renumbered_records(records, np.int32([0, 1, 2])) is records


def test_a_resumed_run_keeps_its_order(caplog):
    data = Classes((BACK, "bee", "ant"), (0, 4, 6), "new.json")
    run = Classes((BACK, "ant", "bee"), (0, 1, 2), "classes.json")
    classes = match_training(data, run)
    assert (classes.names, classes.ids) == (run.names, (0, 6, 4))
    assert "another order than classes.json" in caplog.text
    for other in (("ant",), ("ant", "bee", "cow"), ("ant", "cow")):
        with pytest.raises(DataError, match="not those of the run"):
            match_training(Classes((BACK, *other)), run)
    unnamed = Classes(numbered_class_names(3))
    assert match_training(data, unnamed) is data


def test_model_folders_hold_names_and_ids(tmp_path):
    assert read_classes(tmp_path, 4) is None
    write_classes(tmp_path, MODEL)
    assert json.loads((tmp_path / "classes.json").read_text()) == list(MODEL.names)
    assert json.loads((tmp_path / "categories.json").read_text())[1] == {"id": 2, "name": "bee"}
    classes = read_classes(tmp_path, 4)
    assert (classes.names, classes.ids) == (MODEL.names, MODEL.ids)
    (tmp_path / "categories.json").unlink()
    assert read_classes(tmp_path, 4).ids is None  # an older version
    texts = Classes(MODEL.names, (0, "a-1", 2**70, "007"))
    write_classes(tmp_path, texts)
    assert read_classes(tmp_path, 4).ids == texts.ids


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([BACK, "ant"], "2 names: __background__, ant"),
        (["ant", "bee", "cow", "elk"], "'ant' in front"),
        ([BACK, "ant", "bee", "ant"], "'ant' twice"),
        ([], "0 names"),
    ],
)
def test_names_that_do_not_fit_the_network(tmp_path, names, problem):
    (tmp_path / "classes.json").write_text(json.dumps(names))
    with pytest.raises(DataError, match="not those of the network") as error:
        read_classes(tmp_path, 4)
    assert problem in str(error.value) and "classes.json" in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        "[1, 2]",
        '[{"id": 1, "name": "bee"}]',
        "[",
        '[{"id": 1}]',
        '[{"id": [], "name": "ant"}]',
    ],
)
def test_categories_that_do_not_fit_the_names(tmp_path, text):
    write_classes(tmp_path, MODEL)
    (tmp_path / "categories.json").write_text(text)
    with pytest.raises(DataError, match="categor|class names") as error:
        read_classes(tmp_path, 4)
    assert "categories.json" in str(error.value)

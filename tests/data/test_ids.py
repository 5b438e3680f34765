"""Ids are names: numbers inside, the file's own in every output."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.data import load_dataset
from sniper.data.detections import DetectionTable
from sniper.data.ids import file_id, id_key, id_numbers, pack_ids, unpack_ids
from sniper.errors import DataError
from sniper.evaluation.coco import evaluate_coco
from sniper.evaluation.coco_files import read_coco_results, write_coco_results

BIG = 2**64


def renamed(content, image_id, category_id):
    """The same annotations under other ids."""
    for entry in content["images"]:
        entry["id"] = image_id(entry["id"])
    for entry in content["categories"]:
        entry["id"] = category_id(entry["id"])
    for entry in content["annotations"]:
        entry["image_id"] = image_id(entry["image_id"])
        entry["category_id"] = category_id(entry["category_id"])


def perfect(dataset):
    """Every object, found."""
    rows, classes, offsets = [], [], [0]
    for record in dataset.records:
        order = np.argsort(record.gt_classes, kind="stable")
        rows += [[*record.gt_boxes[i].tolist(), 0.9] for i in order]
        classes += record.gt_classes[order].tolist()
        offsets.append(len(rows))
    return DetectionTable(
        np.array(offsets, np.int64), np.array(rows, np.float32), np.array(classes, np.int32)
    )


def same(identity):
    return identity


RENAMINGS = {
    "texts": (lambda i: f"img/{i} \u00fc", lambda i: f"class {i}"),
    "beyond 53 bits": (lambda i: i + 7706992903151817196, lambda i: i + 2**60),
    "beyond 64 bits": (lambda i: i + BIG, lambda i: i + BIG),
    "some of each": (lambda i: i if i % 2 else str(i) * 30, same),
}


@pytest.mark.parametrize("name", RENAMINGS)
def test_a_set_reads_evaluates_and_writes_its_own_ids(small_set, tmp_path, name):
    plain = load_dataset("coco", small_set.root, small_set.image_set)
    expected = evaluate_coco(plain, perfect(plain), evaluator="pycocotools").ap
    renamed(small_set.content, *RENAMINGS[name])
    small_set.write()
    for _ in range(2):  # parsed, then from the cache
        dataset = load_dataset("coco", small_set.root, small_set.image_set, cache_dir=tmp_path)
        assert [r.gt_boxes.tolist() for r in dataset.records] == [
            r.gt_boxes.tolist() for r in plain.records
        ]
        wanted = [entry["id"] for entry in small_set.content["images"]]
        assert [record.original_id for record in dataset.records] == wanted
        assert list(dataset.category_ids[1:]) == [
            entry["id"] for entry in small_set.content["categories"]
        ]
    table = perfect(dataset)
    path = tmp_path / "found.json"
    write_coco_results(path, dataset, table)
    written = json.loads(path.read_text())
    assert {entry["image_id"] for entry in written} <= set(wanted)
    assert {entry["category_id"] for entry in written} <= set(dataset.category_ids[1:])
    again = read_coco_results(path, dataset)
    assert again.offsets.tolist() == table.offsets.tolist()
    for evaluator in ("pycocotools", "faster-coco-eval"):
        assert evaluate_coco(dataset, table, evaluator=evaluator).ap == expected


def test_numbers_that_are_texts_are_evaluated_as_they_are_trained(small_set):
    expected = None
    for change in (same, str):
        for entry in small_set.content["annotations"]:
            entry["bbox"] = [change(number) for number in map(float, entry["bbox"])]
            entry["image_id"] = change(entry["image_id"])
            if change is str:  # texts of truth values, which float() does not know
                entry["iscrowd"] = "true" if entry.get("iscrowd") else "false"
        small_set.write()
        dataset = load_dataset("coco", small_set.root, small_set.image_set)
        report = evaluate_coco(dataset, perfect(dataset), evaluator="pycocotools")
        expected = expected or report.ap
        assert report.ap == expected


def test_one_id_in_two_ways_of_writing_is_used_twice(small_set):
    first = small_set.content["images"][0]
    small_set.content["images"].append({**first, "id": str(first["id"]), "file_name": "b.png"})
    small_set.write()
    with pytest.raises(DataError, match="the id is used before"):
        load_dataset("coco", small_set.root, small_set.image_set)


@pytest.mark.parametrize(
    ("value", "key"), [(7, 7), (7.0, 7), ("7", 7), ("-7", -7), ("007", "007"), ("", ""), ("²", "²")]
)
def test_keys(value, key):
    assert id_key(value) == key and type(id_key(value)) is type(key)


@pytest.mark.parametrize("value", [True, None, 1.5, float("nan"), float("inf"), [1], {}])
def test_what_is_no_id(value):
    with pytest.raises(ValueError, match="neither a whole number nor a text"):
        id_key(value)


IDS = st.lists(
    st.one_of(st.integers(-(2**70), 2**70), st.text(max_size=5)), unique_by=id_key, max_size=20
)


@given(IDS)
def test_every_id_has_a_number_and_comes_back(ids):
    ids = [file_id(identity) for identity in ids]
    numbers = id_numbers(ids)
    assert numbers.dtype == np.int64 and len(set(numbers.tolist())) == len(ids)
    for identity, number in zip(ids, numbers.tolist()):
        if isinstance(id_key(identity), int) and -(2**63) <= id_key(identity) < 2**63:
            assert number == id_key(identity)
    assert unpack_ids(pack_ids(ids)) == ids
    # A text's number is its own, whatever else is in the set.
    assert [int(id_numbers([i])[0]) for i in ids if isinstance(id_key(i), str)] == [
        n for i, n in zip(ids, numbers.tolist()) if isinstance(id_key(i), str)
    ]

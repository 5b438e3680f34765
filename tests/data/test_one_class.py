"""Sets of one class: every protocol takes all objects for `object`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sniper.data.classes import Classes
from sniper.data.dataset import FROM_RECORDS, Dataset
from sniper.data.detections import ImageDetections, table_of
from sniper.data.one_class import OBJECT_CLASSES, as_one_class, match_detected
from sniper.data.record import Record, with_proposals
from sniper.data.voc import VocTruth
from sniper.evaluation import objects_of, protocol_of

NAMES, IDS = ("__background__", "cat", "dog"), (0, 30, 7)
BOXES = np.float32([[10, 10, 59, 59], [100, 100, 199, 199]])
CLASSES = np.int32([2, 1])


def coco_set(folder):
    """A dog, a cat and a crowd of cats; the set does not have the file's third category."""
    entries = [(7, [10, 10, 50, 50], 0), (30, [100, 100, 100, 100], 0), (30, [0, 200, 90, 90], 1)]
    entries.append((99, [0, 0, 5, 5], 0))
    path = folder / "instances_x.json"
    annotations = [
        {
            "id": number,
            "image_id": 4,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": crowd,
        }
        for number, (category, box, crowd) in enumerate(entries, 1)
    ]
    path.write_text(json.dumps({"annotations": annotations, "images": [], "categories": []}))
    record = Record("4.jpg", 4, 300, 300, False, BOXES, CLASSES, np.ones(2, bool))
    record = with_proposals(record, np.float32([[0, 0, 9, 9]]))
    return Dataset("COCO_x", "x", NAMES, IDS, (record,), str(path), True)


def voc_set(folder):
    truth = VocTruth(
        *("2012", "val", {4: "four"}, np.int64([4, 4]), BOXES, CLASSES, np.zeros(2, bool))
    )
    return replace(coco_set(folder), truth=truth, protocol="voc", category_ids=(0, 1, 2))


def own_set(folder):
    return replace(coco_set(folder), truth={"a format": "of its own"}, protocol="own")


def record_set(folder):
    return replace(coco_set(folder), truth=FROM_RECORDS)


@pytest.mark.parametrize(
    ("make", "deciding", "objects"),
    [(coco_set, "ap", 3), (voc_set, "map50", 2), (own_set, "ap", 2), (record_set, "ap", 2)],
)
def test_all_objects_are_one_class_and_boxes_alone_decide(tmp_path, make, deciding, objects):
    dataset = as_one_class(make(tmp_path))
    assert dataset.class_names == ("__background__", "object")
    assert [record.classes.tolist() for record in dataset.records] == [[1, 1, 0]]
    found = objects_of(dataset)
    assert found.classes.tolist() == [1] * objects and found.crowd.sum() == objects - 2
    rows = np.hstack([BOXES, np.float32([[0.9], [0.8]])])
    protocol = protocol_of(dataset)
    table = table_of([ImageDetections(rows, np.int32([1, 1]))])
    report = protocol.evaluate(dataset, table)
    assert protocol.deciding == deciding
    assert getattr(report, deciding) == pytest.approx(1) and list(report.per_class) == ["object"]
    protocol.write(tmp_path, dataset, table)
    path = protocol.results_path(tmp_path, dataset)
    assert protocol.read(path, dataset).classes.tolist() == [1, 1]


def test_sets_without_classes_get_it_and_others_are_matched_by_name(tmp_path):
    dataset = coco_set(tmp_path)
    images = replace(dataset, class_names=NAMES[:1], category_ids=(0,), has_annotations=False)
    model = Classes(NAMES, IDS)
    for one in (dataset, images):
        matched = match_detected(one, model, class_agnostic=True)
        assert matched.match.is_same and matched.dataset.categories() == [
            {"id": 1, "name": "object"}
        ]
        assert matched.classes == OBJECT_CLASSES
    assert match_detected(dataset, model, class_agnostic=False).dataset is dataset

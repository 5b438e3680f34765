"""Recall by the size of objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sniper.data import image_record
from sniper.data.dataset import FROM_RECORDS, Dataset
from sniper.data.detections import DetectionTable
from sniper.errors import DataError
from sniper.evaluation.size_recall import recall_by_size

BOXES = np.array([[0, 0, 9, 9], [20, 20, 59, 59], [60, 0, 99, 39]], np.float32)


def dataset(truth=FROM_RECORDS):
    record = replace(
        image_record("a.jpg", 1, 100, 100),
        boxes=BOXES,
        classes=np.array([1, 1, 2], np.int32),
        is_gt=np.ones(3, bool),
    )
    names, ids = ("__background__", "a", "b"), (0, 1, 2)
    return Dataset("set", "val", names, ids, (record,), "", truth is not None, truth)


def table(rows, classes):
    rows = np.array(rows, np.float32).reshape(-1, 5)
    return DetectionTable(np.array([0, len(rows)]), rows, np.array(classes, np.int32))


def test_objects_are_found_by_size_class_and_overlap():
    found = table([[0, 0, 9, 9, 0.9], [21, 20, 59, 59, 0.2], [60, 0, 99, 39, 0.9]], [1, 1, 1])
    recall = recall_by_size(dataset(), found, (0, 16, 32, np.inf))
    assert recall.names() == ["0-16", "16-32", "32+"]
    assert recall.objects.tolist() == [1, 0, 2]
    # The last detection is of another class.
    assert recall.found.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(recall.recall, [1, np.nan, 0.5])


def test_no_detections_find_nothing():
    assert not recall_by_size(dataset(), table([], [])).found.any()


def test_a_set_without_annotations_is_refused():
    with pytest.raises(DataError):
        recall_by_size(dataset(truth=None), table([], []))

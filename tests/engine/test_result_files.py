"""What a test run writes for COCO and Pascal VOC sets, with and without masks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from sniper.data.dataset import Dataset, VocTruth
from sniper.data.record import Record
from sniper.engine.results import report_detections
from sniper.evaluation import encode_mask

BOX = np.float32([[10, 10, 49, 39, 0.9]])


def make_dataset(tmp_path):
    record = Record(
        *("1.jpg", 1, 100, 80, False),
        BOX[:, :4],
        np.int32([1]),
        np.array([True]),
    )
    path = tmp_path / "instances_x.json"
    entry = {"image_id": 1, "category_id": 5, "bbox": [10, 10, 40, 30], "area": 1200}
    polygon = [10, 10, 50, 10, 50, 40, 10, 40]
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "width": 100, "height": 80}],
                "categories": [{"id": 5, "name": "cat"}],
                "annotations": [{**entry, "id": 1, "iscrowd": 0, "segmentation": [polygon]}],
            }
        )
    )
    names = ("__background__", "cat")
    return Dataset("COCO_x", "x", names, (0, 5), (record,), str(path), True)


def detected():
    mask = np.zeros((80, 100), np.uint8)
    mask[10:40, 10:50] = 1
    return [[np.zeros((0, 5), np.float32), BOX]], [[[], [encode_mask(mask)]]]


def test_coco_results_and_report_hold_the_masks(tmp_path):
    detections, masks = detected()
    report = report_detections(tmp_path / "out", make_dataset(tmp_path), detections, masks)
    assert report.ap > 0.99 and report.masks.ap > 0.99
    (row,) = json.loads((tmp_path / "out" / "detections_x_results.json").read_text())
    assert row["segmentation"]["size"] == [80, 100]
    written = json.loads((tmp_path / "out" / "detections_x_report.json").read_text())
    assert written == json.loads(json.dumps(report.as_dict()))


def test_without_masks_nothing_speaks_of_them(tmp_path):
    report = report_detections(tmp_path / "out", make_dataset(tmp_path), detected()[0])
    assert report.masks is None and "mask" not in report.table()
    for path in (tmp_path / "out").iterdir():
        assert "mask" not in path.read_text() and "segmentation" not in path.read_text()


def test_masks_on_a_voc_set_are_not_evaluated_and_the_log_says_so(tmp_path, caplog):
    truth = VocTruth(
        *("2007", "x", {1: "000001"}, np.int64([1]), BOX[:, :4], np.int32([1])),
        difficult=np.array([False]),
    )
    dataset = replace(make_dataset(tmp_path), voc=truth)
    with caplog.at_level("INFO"):
        report = report_detections(tmp_path / "out", dataset, *detected())
    assert report.map50 > 0.99
    assert "COCO_x has result files and evaluation for boxes only" in caplog.text

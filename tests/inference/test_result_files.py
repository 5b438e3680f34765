"""What a test run writes for COCO and Pascal VOC sets, with and without masks."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import cv2
import numpy as np

from sniper.data import FROM_RECORDS, Dataset, VocTruth
from sniper.data.detections import ImageDetections, table_of
from sniper.data.proposals import ProposalSet
from sniper.data.record import Record
from sniper.evaluation import encode_mask
from sniper.inference.results import picture_names, report_detections, report_proposals

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


def detected(*, with_masks=True):
    mask = np.zeros((80, 100), np.uint8)
    mask[10:40, 10:50] = 1
    found = ImageDetections(BOX, np.int32([1]), [encode_mask(mask)])
    return table_of([found], with_masks=with_masks)


def test_coco_results_and_report_hold_the_masks(tmp_path):
    report = report_detections(tmp_path / "out", make_dataset(tmp_path), detected())
    assert report.ap > 0.99 and report.masks.ap > 0.99
    (row,) = json.loads((tmp_path / "out" / "detections_x_results.json").read_text())
    assert row["segmentation"]["size"] == [80, 100]
    written = json.loads((tmp_path / "out" / "detections_x_report.json").read_text())
    assert written.pop("categories") == [{"id": 5, "name": "cat"}]
    assert written == json.loads(json.dumps(report.as_dict()))


def test_sets_that_are_no_coco_file_get_the_ids_of_their_images(tmp_path):
    dataset = replace(make_dataset(tmp_path), truth=FROM_RECORDS)
    report_detections(tmp_path / "out", dataset, detected(with_masks=False))
    listed = json.loads((tmp_path / "out" / "detections_x_images.json").read_text())
    assert [(image["id"], image["file_name"]) for image in listed["images"]] == [(1, "1.jpg")]
    assert not list((tmp_path / "out").glob("*.zip"))


def test_without_masks_nothing_speaks_of_them(tmp_path):
    report = report_detections(tmp_path / "out", make_dataset(tmp_path), detected(with_masks=False))
    assert report.masks is None and "mask" not in report.table()
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths if path.suffix == ".png"] == [
        "detections_x_precision_recall.png"
    ]
    for path in paths[1:]:
        assert "mask" not in path.read_text() and "segmentation" not in path.read_text()


def test_curves_are_drawn_for_boxes_and_masks(tmp_path):
    report_detections(tmp_path / "out", make_dataset(tmp_path), detected())
    for suffix in ("", "_masks"):
        picture = cv2.imread(str(tmp_path / "out" / f"detections_x_precision_recall{suffix}.png"))
        assert picture.shape[0] > 300 and (picture != 255).any()


def test_the_report_says_how_long_it_took(tmp_path):
    speed = {"mode": "pyramid", "images_per_s": 2.5}
    report_detections(tmp_path / "out", make_dataset(tmp_path), detected(), speed)
    written = json.loads((tmp_path / "out" / "detections_x_report.json").read_text())
    assert written["speed"] == speed and written["ap"] > 0.99


def test_a_set_without_annotations_gets_what_a_server_wants(tmp_path):
    dataset = replace(make_dataset(tmp_path), has_annotations=False)
    assert report_detections(tmp_path / "out", dataset, detected(), {"mode": "single"}) is None
    with zipfile.ZipFile(tmp_path / "out" / "detections_x_results.zip") as archive:
        assert archive.namelist() == ["detections_x_results.json"]
        (row,) = json.loads(archive.read("detections_x_results.json"))
    assert row["image_id"] == 1
    written = json.loads((tmp_path / "out" / "detections_x_report.json").read_text())
    assert "has no annotations" in written["not_evaluated"] and written["speed"]


def test_proposals_are_reported_beside_their_file(tmp_path):
    dataset = make_dataset(tmp_path)
    proposals = ProposalSet(
        "COCO_x", np.int64([1]), np.int64([0, 1]), BOX[:, :4], np.float32([0.5])
    )
    report = report_proposals(tmp_path / "COCO_x_rpn.npz", dataset, proposals)
    assert report.recall_50["all"][10] == 1
    written = json.loads((tmp_path / "COCO_x_rpn_report.json").read_text())
    assert written["num_proposals"] == 1
    nothing = replace(dataset, has_annotations=False)
    assert report_proposals(tmp_path / "COCO_x_rpn.npz", nothing, proposals) is None
    assert "not_evaluated" in (tmp_path / "COCO_x_rpn_report.json").read_text()


def test_picture_names_keep_the_folders_and_never_collide():
    paths = ["/d/a/1.png", "/d/b/1.png", "/d/b/c/1.jpg", "/d/a/2.png", "/d/a/2.bmp", "/d/a/x.y.gif"]
    names = ["a/1.jpg", "b/1.jpg", "b/c/1.jpg", "a/2.png.jpg", "a/2.bmp.jpg", "a/x.y.jpg"]
    assert [str(name) for name in picture_names(paths)] == names
    assert [str(name) for name in picture_names(["/d/a/1.png"])] == ["1.jpg"]
    assert picture_names([]) == []


def test_masks_on_a_voc_set_are_not_evaluated_and_the_log_says_so(tmp_path, caplog):
    truth = VocTruth(
        *("2007", "x", {1: "000001"}, np.int64([1]), BOX[:, :4], np.int32([1])),
        difficult=np.array([False]),
    )
    dataset = replace(make_dataset(tmp_path), truth=truth, protocol="voc")
    with caplog.at_level("INFO"):
        report = report_detections(tmp_path / "out", dataset, detected())
    assert report.map50 > 0.99
    assert "COCO_x has result files and evaluation for boxes only" in caplog.text

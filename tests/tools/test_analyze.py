"""`sniper analyze` on a small COCO set and a small Pascal VOC set."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from sniper.data import load_dataset
from sniper.data.detections import ImageDetections, table_of
from sniper.evaluation import voc_rows, write_voc_results
from sniper.tools.analyze import main

BOXES = {11: (10, 10, 40, 30), 12: (50, 40, 30, 30), 13: (5, 50, 20, 20)}


def write_coco(folder):
    (folder / "annotations").mkdir(parents=True)
    (folder / "images" / "val").mkdir(parents=True)
    for image_id in BOXES:
        cv2.imwrite(str(folder / "images" / "val" / f"{image_id}.jpg"), np.zeros((90, 120, 3)))
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 120, "height": 90} for i in BOXES],
        "categories": [{"id": 4, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 4, "bbox": box, "area": box[2] * box[3]}
            for n, (i, box) in enumerate(BOXES.items(), start=1)
        ],
    }
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))


def result(image_id, category_id, score, box=None):
    bbox = list(box or BOXES[image_id])
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


# One right, one with a wrong class, one where nothing is; the object of image 13 is missed.
RESULTS = [
    result(11, 4, 0.9),
    result(12, 2, 0.8),
    result(11, 4, 0.7, (80, 60, 20, 20)),
    result(13, 4, 0.1, (80, 60, 20, 20)),
]


@pytest.fixture()
def overrides(tmp_path):
    """Arguments for the set in `tmp_path / data` and results in `tmp_path / out / results`."""
    write_coco(tmp_path / "data")
    values = {
        "dataset.dataset_path": tmp_path / "data",
        "dataset.image_set": "val",
        "dataset.test_image_set": "val",
        "dataset.NUM_CLASSES": 3,
        "output_path": tmp_path / "out",
        "gpus": "cpu",
    }
    return ["--set", *(str(word) for pair in values.items() for word in pair)]


def write_results(tmp_path, results):
    folder = tmp_path / "out" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "detections_val_results.json"
    path.write_text(results if isinstance(results, str) else json.dumps(results))
    return path


def run(overrides, *arguments):
    return main(["--cfg", "sniper_mobilenetv2_toy", *map(str, arguments), *overrides])


def test_a_costly_background_has_its_remedy(tmp_path, overrides, capsys):
    write_results(tmp_path, RESULTS)
    assert run(overrides) == 0
    assert "Against background" not in capsys.readouterr().out
    alarms = [result(12, 4, 0.95, (5, 5, 20, 20)), result(13, 4, 0.95, (80, 60, 20, 20))]
    write_results(tmp_path, [*RESULTS, *alarms])
    assert run(overrides) == 0
    said = capsys.readouterr().out
    assert "Against background: " in said and "--set TRAIN.USE_NEG_CHIPS mine" in said


def test_everything_is_written(tmp_path, overrides, capsys):
    write_results(tmp_path, RESULTS)
    out = tmp_path / "analysis"
    assert run(overrides, "--out", out) == 0
    names = ["analysis.json", "confusion.png", "errors.png", "summary.txt", "worst"]
    assert sorted(path.name for path in out.iterdir()) == names
    numbers = json.loads((out / "analysis.json").read_text())
    assert (numbers["num_images"], numbers["num_objects"], numbers["num_detections"]) == (3, 3, 4)
    counts = {name: cause["count"] for name, cause in numbers["causes"].items()}
    expected = {"class": 1, "background": 2, "missed": 1}
    assert {name: n for name, n in counts.items() if n} == expected
    assert numbers["causes"]["background"]["confident"] == 1
    assert numbers["confusion"]["counts"] == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert [image["total"] for image in numbers["worst_images"]] == [2, 1, 1]
    assert numbers["chosen"]["precision"] == pytest.approx(1 / 3)
    text = capsys.readouterr().out
    assert text == (out / "summary.txt").read_text()
    assert "3 images, 3 objects, 4 detections, AP50 33.7" in text
    assert "cat -> dog: 1" in text and "12.jpg: 2 errors (1 class, 1 missed)" in text
    # The worst images with their errors, and what to do about each cause that costs much.
    drawn = sorted(path.name for path in (out / "worst").iterdir())
    assert drawn == ["01_12.png", *drawn[1:]] and len(drawn) == 3
    assert cv2.imread(str(out / "worst" / drawn[0])).std() > 10
    for name, cause in numbers["causes"].items():
        assert (f"Against {name}: " in text) == (cause["gain"] >= 0.01)
    for name, least in (("errors.png", 800), ("confusion.png", 400)):
        image = cv2.imread(str(out / name))
        assert image.shape[0] >= 400 and image.shape[1] >= least and image.std() > 10


def test_thresholds_and_default_folder(tmp_path, overrides):
    path = write_results(tmp_path, RESULTS)
    assert run(overrides, "--score", "0.05", "--worst", "1") == 0
    numbers = json.loads((path.parent / "analysis_val" / "analysis.json").read_text())
    assert numbers["score_threshold"] == 0.05 and len(numbers["worst_images"]) == 1
    assert numbers["causes"]["background"]["confident"] == 2


def test_no_detections_at_all(tmp_path, overrides, capsys):
    write_results(tmp_path, [])
    assert run(overrides, "--out", tmp_path / "a") == 0
    text = capsys.readouterr().out
    assert "AP50 0.0" in text and "No two classes are confused" in text
    numbers = json.loads((tmp_path / "a" / "analysis.json").read_text())
    assert numbers["causes"]["missed"]["count"] == 3 and numbers["chosen"]["precision"] is None


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        (json.dumps(RESULTS)[:-30], "no valid JSON"),
        ([*RESULTS, result(11, 4, 0.5) | {"image_id": 99}], "no image or category of COCO_val"),
        ([result(11, 4, float("nan"))], "not finite"),
    ],
)
def test_broken_and_foreign_results_are_explained(tmp_path, overrides, capsys, results, problem):
    path = write_results(tmp_path, results)
    assert run(overrides, "--results", path, "--out", tmp_path / "a") == 3
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_missing_results_and_wrong_flags(tmp_path, overrides, capsys):
    assert run(overrides) == 3
    assert "main_test.py" in capsys.readouterr().err
    assert run(overrides, "--score", "1.5") == 2
    assert run(overrides, "--worst", "-1") == 2


def test_a_set_without_annotations_is_refused(tmp_path, overrides, capsys):
    write_results(tmp_path, [])
    path = tmp_path / "data" / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    assert run(overrides) == 3
    assert "has no annotations" in capsys.readouterr().err


def write_voc(folder):
    root = folder / "VOC2007"
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    names = ["000001", "000002"]
    for name in names:
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), np.zeros((80, 100, 3)))
        box = "<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
        (root / "Annotations" / f"{name}.xml").write_text(
            "<annotation><size><width>100</width><height>80</height></size><object>"
            f"<name>dog</name>{box}<difficult>0</difficult></object></annotation>"
        )
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names))


def test_voc_sets_and_their_result_files(tmp_path, capsys):
    write_voc(tmp_path / "data")
    values = {
        "dataset.dataset": "PascalVOC",
        "dataset.dataset_path": tmp_path / "data",
        "dataset.test_image_set": "2007_test",
        "dataset.NUM_CLASSES": 21,
        "output_path": tmp_path / "out",
        "gpus": "cpu",
    }
    overrides = ["--set", *(str(word) for pair in values.items() for word in pair)]
    dataset = load_dataset("PascalVOC", tmp_path / "data", "2007_test")
    dog = dataset.class_names.index("dog")
    found = ImageDetections(np.float32([[10, 10, 49, 49, 0.9]]), np.int32([dog]))
    none = ImageDetections(np.zeros((0, 5), np.float32), np.zeros(0, np.int32))
    rows = voc_rows(dataset, table_of([none, found]))
    folder = write_voc_results(tmp_path / "out" / "results", dataset, rows)
    assert run(overrides, "--out", tmp_path / "a") == 0
    assert "2 images, 2 objects, 1 detections, AP50 50.5" in capsys.readouterr().out
    path = folder / "comp4_det_test_dog.txt"
    for content, problem in (("000002 0.9 1.0", "broken or cut off"), ("7 0.9 1 1 2 2", "another")):
        path.write_text(content)
        assert run(overrides, "--out", tmp_path / "b") == 3
        assert problem in capsys.readouterr().err
    path.unlink()
    assert run(overrides, "--out", tmp_path / "b") == 3
    assert "cannot be read" in capsys.readouterr().err

"""COCO result files against a slow writer of dicts, packed, and read back."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable, ImageDetections, table_of
from sniper.data.record import Record
from sniper.errors import DataError, TrainingError
from sniper.evaluation import (
    coco_files,
    encode_mask,
    read_coco_results,
    write_coco_results,
    write_upload,
)


def make_dataset(image_ids=(40, 3, 17), category_ids=(0, 90, 7, 11)):
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    records = tuple(Record(f"{i}.jpg", i, 60 + i, 50, False, *nothing) for i in image_ids)
    names = ("__background__", *(f"class {i}" for i in category_ids[1:]))
    return Dataset("COCO_x", "x", names, category_ids, records, "x.json", True)


def random_table(dataset, rng, *, per_image=7, with_masks=False):
    images = []
    for record in dataset.records:
        count = int(rng.integers(0, per_image + 1))
        corners = rng.uniform(-3, 90, (count, 4))
        scores = rng.choice([1.0, 0.5, 1e-7, *rng.random(5)], count)
        classes = np.sort(rng.integers(1, len(dataset.class_names), count))
        masks = [random_mask(record, rng) for _ in range(count)]
        rows = np.float32(np.hstack([corners, scores[:, None]]))
        images.append(ImageDetections(rows, classes.astype(np.int32), masks))
    return table_of(images, with_masks=with_masks)


def random_mask(record, rng):
    mask = (rng.random((record.height, record.width)) < 0.5).astype(np.uint8)
    mask[:45, 0] = 44 * [0] + [1]  # a first run of 44 px is written with a backslash
    return encode_mask(mask)


def slow_results(dataset, table):
    """The results as dicts, one detection after the other (2018 order and rounding)."""
    results = []
    for index in range(1, len(dataset.class_names)):
        for record, image in zip(dataset.records, table):
            for position, (row, klass) in enumerate(zip(image.rows, image.classes)):
                if klass != index:
                    continue
                x1, y1, x2, y2, score = map(float, row)
                box = [x1, y1, x2 - x1 + 1, y2 - y1 + 1]
                result = {
                    "image_id": record.image_id,
                    "category_id": dataset.category_ids[index],
                    "bbox": np.round(box, 1).tolist(),
                    "score": float(np.round(score, 8)),
                }
                if image.masks is not None:
                    counts = image.masks[position].decode()
                    size = [record.height, record.width]
                    result["segmentation"] = {"size": size, "counts": counts}
                results.append(result)
    return results


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 1 << 14])
def test_files_are_those_of_the_slow_writer(tmp_path, monkeypatch, with_masks, chunk):
    monkeypatch.setattr(coco_files, "_CHUNK", chunk)
    dataset = make_dataset()
    table = random_table(dataset, np.random.default_rng(3), with_masks=with_masks)
    expected = slow_results(dataset, table)
    path = tmp_path / "out" / "results.json"
    assert write_coco_results(path, dataset, table, compact=False) == len(expected) > 5
    assert path.read_text() == json.dumps(expected, sort_keys=True, indent=4)
    write_coco_results(path, dataset, table, compact=True)
    lines = path.read_text().splitlines()
    assert lines[1:-1] == [
        json.dumps(result, sort_keys=True) + ("," if number < len(expected) else "")
        for number, result in enumerate(expected, start=1)
    ]
    assert (lines[0], lines[-1]) == ("[", "]")
    if with_masks:
        assert any("\\" in result["segmentation"]["counts"] for result in expected)
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_order_rounding_and_widths(tmp_path):
    dataset = make_dataset((40, 3), (0, 90, 7))
    rows = [[3, 3, 3, 3, 0.25], [1, 1, 2, 2, 0.75], [0, 0, 9, 9, 0.5]]
    images = [
        ImageDetections(np.float32(rows), np.int32([1, 1, 2])),
        ImageDetections(np.float32([[1.26, 2.0, 5.04, 8.0, 0.1234567891]]), np.int32([1])),
    ]
    write_coco_results(tmp_path / "r.json", dataset, table_of(images))
    results = json.loads((tmp_path / "r.json").read_text())
    assert [(r["category_id"], r["image_id"], r["score"]) for r in results] == [
        (90, 40, 0.25),
        (90, 40, 0.75),
        (90, 3, 0.12345679),
        (7, 40, 0.5),
    ]
    boxes = [[3, 3, 1, 1], [1, 1, 2, 2], [1.3, 2, 4.8, 7], [0, 0, 10, 10]]
    assert [r["bbox"] for r in results] == boxes


def test_masks_are_written_compactly_and_boxes_with_an_indent(tmp_path):
    dataset, rng = make_dataset(), np.random.default_rng(0)
    for with_masks, lines in ((False, 11), (True, 1)):
        table = random_table(dataset, rng, with_masks=with_masks)
        count = write_coco_results(tmp_path / "r.json", dataset, table)
        assert len((tmp_path / "r.json").read_text().splitlines()) == lines * count + 2


@pytest.mark.parametrize("compact", [False, True])
def test_no_detections_are_an_empty_list(tmp_path, compact):
    dataset = make_dataset()
    table = table_of([ImageDetections(np.zeros((0, 5), np.float32), np.zeros(0, np.int32))] * 3)
    assert write_coco_results(tmp_path / "r.json", dataset, table, compact=compact) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == []
    assert read_coco_results(tmp_path / "r.json", dataset).num_detections == 0


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    dataset, path = make_dataset(), tmp_path / "results.json"
    path.write_text("old")
    row = np.float32([[0, 0, np.inf, 5, 0.5]])
    table = DetectionTable(np.int64([0, 1, 1, 1]), row, np.int32([1]))
    with pytest.raises(DataError, match="not finite"):
        write_coco_results(path, dataset, table)
    assert path.read_text() == "old"
    with pytest.raises(TrainingError, match="could not be written"):
        write_coco_results(path / "below" / "a.json", dataset, table_of([table[1]] * 3))


def test_the_upload_holds_the_same_file_and_is_reproducible(tmp_path):
    dataset = make_dataset()
    table = random_table(dataset, np.random.default_rng(1))
    path = tmp_path / "detections_test-dev2017_results.json"
    write_coco_results(path, dataset, table)
    packed = write_upload(path)
    assert packed == tmp_path / "detections_test-dev2017_results.zip"
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == [path.name] and archive.testzip() is None
        assert archive.read(path.name) == path.read_bytes()
    before = packed.read_bytes()
    assert write_upload(path).read_bytes() == before
    assert len(before) < path.stat().st_size


def test_files_are_read_back(tmp_path):
    dataset, rng = make_dataset(), np.random.default_rng(5)
    for with_masks in (False, True):
        table = random_table(dataset, rng, with_masks=with_masks)
        write_coco_results(tmp_path / "a.json", dataset, table)
        read = read_coco_results(tmp_path / "a.json", dataset)
        np.testing.assert_array_equal(read.offsets, table.offsets)
        np.testing.assert_array_equal(read.classes, table.classes)
        np.testing.assert_allclose(read.rows[:, :4], table.rows[:, :4], atol=0.11)
        np.testing.assert_allclose(read.rows[:, 4], table.rows[:, 4], atol=1e-7)
        assert not read.has_masks
        # What is read gives the same file again.
        boxes = DetectionTable(table.offsets, table.rows, table.classes)
        write_coco_results(tmp_path / "b.json", dataset, boxes)
        write_coco_results(tmp_path / "c.json", dataset, read)
        assert (tmp_path / "b.json").read_bytes() == (tmp_path / "c.json").read_bytes()


GOOD = {"image_id": 3, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (json.dumps([GOOD] * 3)[:-20], "no valid JSON"),
        ("", "no valid JSON"),
        ('{"images": []}', "no COCO result file"),
        (json.dumps([GOOD, {**GOOD, "image_id": 4}]), "no image or category of COCO_x"),
        (json.dumps([{**GOOD, "category_id": 1}]), "no image or category of COCO_x"),
        (json.dumps([{**GOOD, "image_id": [3]}]), "no image or category of COCO_x"),
        (json.dumps([GOOD, GOOD, {"image_id": 3}]), "entry 2 of the result file is broken"),
        (json.dumps([{**GOOD, "bbox": [1, 2, 3]}]), "entry 0 of the result file is broken"),
        (json.dumps([{**GOOD, "bbox": ["a", 2, 3, 4]}]), "entry 0 of the result file is broken"),
        (json.dumps([{**GOOD, "score": None}]), "entry 0 of the result file is broken"),
        (json.dumps([5]), "entry 0 of the result file is broken"),
    ],
)
def test_broken_and_foreign_files_are_explained(tmp_path, content, problem):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError, match=problem) as caught:
        read_coco_results(path, make_dataset())
    assert str(path) in str(caught.value)


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_coco_results(tmp_path / "none.json", make_dataset())

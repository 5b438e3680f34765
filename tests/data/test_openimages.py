"""Open Images: the official tables, the private one of 2018, sizes, groups, caches."""

from __future__ import annotations

import json
import logging

import cv2
import numpy as np
import pytest

from sniper.data import load_dataset, openimages_arrays
from sniper.data.problems import OnProblem
from sniper.errors import DataError
from sniper.tools.check_data import main

BOXES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n"
LABELS = "ImageID,Source,LabelName,Confidence\n"


def write_image(path, width=80, height=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tofile(path)


@pytest.fixture
def root(tmp_path):
    """Three images: two objects and a group, one object, none (a verified label alone)."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "class-descriptions-boxable.csv").write_text("/m/b,Bee\n/m/a,Ant\n")
    (tmp_path / "train-annotations-bbox.csv").write_text(
        f"{BOXES}000b,x,/m/a,1,0.25,0.5,0.5,1.0,0,0\n000a,x,/m/b,1,0,0.125,0,0.5,0,0\n"
        "000b,x,/m/b,1,0.5,1.0,0,0.5,0,1\n000b,x,/m/b,1,0.1,0.2,0.1,0.3,0,0\n"
    )
    (tmp_path / "train-annotations-human-imagelabels.csv").write_text(
        f"{LABELS}0007,v,/m/a,0\n000a,v,/m/b,1\n000a,v,/m/other,1\n"
    )
    for name in ("000a", "000b", "0007"):
        # JPEG by name: the content decides.
        write_image(tmp_path / "images" / "train" / f"{name}.jpg")
    return tmp_path


def load(root, image_set="train", **more):
    return load_dataset("openimages", root, image_set, **more)


def test_the_official_tables(root, caplog):
    caplog.set_level(logging.INFO)
    dataset = load(root)
    assert dataset.class_names == ("__background__", "Bee", "Ant")
    assert dataset.category_ids == (0, "/m/b", "/m/a")
    assert [r.original_id for r in dataset.records] == ["0007", "000a", "000b"]
    assert [(r.width, r.height) for r in dataset.records] == [(80, 40)] * 3
    nothing, one, two = dataset.records
    assert len(nothing.boxes) == 0
    assert one.boxes.tolist() == [[0, 0, 9, 19]] and one.classes.tolist() == [1]
    np.testing.assert_allclose(two.boxes, [[20, 20, 39, 39], [8, 4, 15, 11]], atol=1e-5)
    assert two.classes.tolist() == [2, 1]
    assert two.crowd_boxes.tolist() == [[40, 0, 79, 19]] and dataset.num_ignored == 1
    assert dataset.intake.kept == dataset.num_objects == 3
    truth = dataset.truth
    assert truth.boxes.groups.tolist() == [False, False, True, False]
    np.testing.assert_allclose(truth.boxes.boxes[2], [0.5, 0, 1, 0.5], atol=1e-6)
    assert truth.verified.images.tolist() == [0, 1] and truth.verified.labels.tolist() == [1, 0]
    assert truth.verified.present.tolist() == [False, True]
    assert "3 objects (1.0 an image), 1 group boxes, 2 verified labels" in caplog.text
    assert "(of an image 0.3 present, 0.3 absent)" in caplog.text
    assert {entry.name: count for entry, count in dataset.counts.items()} == {
        "group_boxes": 1,
        "labels_present": 1,
        "labels_absent": 1,
    }
    assert "0 of 2 classes without boxes" in caplog.text


def test_perfect_detections_have_perfect_precision(root):
    from sniper.data.detections import DetectionTable
    from sniper.evaluation import protocol_of

    dataset = load(root)
    boxes = np.concatenate([r.boxes for r in dataset.records])
    rows = np.column_stack([boxes, np.ones(3)]).astype(np.float32)
    order = [0, 2, 1]  # of an image by class
    table = DetectionTable(np.array([0, 0, 1, 3]), rows[order], np.array([1, 1, 2], np.int32))
    report = protocol_of(dataset).evaluate(dataset, table)
    assert report.mean_ap_no_groups == report.mean_ap_flat_no_groups == 1.0
    # One of the three bees is a group that nothing was found in.
    assert report.mean_ap == pytest.approx((1 + 2 / 3) / 2)
    objects = protocol_of(dataset).objects(dataset)
    assert objects.images.tolist() == [1, 2, 2, 2] and objects.crowd.tolist().count(True) == 1


def test_the_cache_gives_the_same_and_notices_changes(root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first, second = (load(root, cache_dir=tmp_path / "cache") for _ in range(2))
    assert "annotations as they were read before" in caplog.text
    for a, b in zip(first.records, second.records):
        assert (a.image_path, a.image_id, a.width, a.height) == (
            *(b.image_path, b.image_id, b.width, b.height),
        )
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.crowd_boxes, b.crowd_boxes)
    assert first.intake == second.intake
    table = root / "train-annotations-bbox.csv"
    table.write_text(table.read_text() + "0007,x,/m/a,1,0,1,0,1,0,0\n")
    assert load(root, cache_dir=tmp_path / "cache").num_objects == 4
    assert "tables changed" in caplog.text


def test_a_table_of_images_names_files_and_sizes(root):
    write_image(root / "images" / "train" / "photo of a bee.jpg")
    (root / "train-images.csv").write_text(
        "ImageID,FileName,Width,Height\n000a,photo of a bee.jpg,80,40\n000b,000b.jpg,80,40\n"
    )
    (root / "images" / "train" / "000a.jpg").unlink()
    assert load(root).records[1].image_path.endswith("photo of a bee.jpg")


def test_check_data_counts_boxes_and_labels(root, tmp_path, capsys):
    (tmp_path / "my.yml").write_text("_BASE_: sniper_mobilenetv2_toy\n")
    classes = root / "annotations" / "class-descriptions-boxable.csv"
    classes.write_text(f"{classes.read_text()}/m/c,Cat\n")
    settings = {
        **{"dataset": "openimages", "dataset_path": root, "image_set": "train", "NUM_CLASSES": 4},
        "root_path": tmp_path,
    }
    pairs = [word for key, value in settings.items() for word in (f"dataset.{key}", str(value))]
    out = tmp_path / "report.json"
    main(["--cfg", str(tmp_path / "my.yml"), "--json", str(out), "--set", *pairs])
    shown = capsys.readouterr().out
    for line in (
        "1.0 objects an image, 1 classes without objects",
        "1 group boxes (0.3 an image)",
        "1 verified labels of classes that are present (0.3 an image)",
        "1 verified labels of classes that are absent (0.3 an image)",
    ):
        assert line in shown
    numbers = json.loads(out.read_text())["sets"][0]
    assert numbers["classes_without_objects"] == 1
    assert numbers["counts"] == {"group_boxes": 1, "labels_present": 1, "labels_absent": 1}


def test_blocks_change_nothing(root, monkeypatch):
    table = root / "train-annotations-bbox.csv"
    table.write_text(
        f"{table.read_text()}000a,x,/m/a,1,0.5,0.5,0,1,0,0\n000a,x,/m/a,1,0.5,1.7,0,1,0,1\n"
    )
    at_once: list = []
    whole = load(root, on_problem=at_once.append)
    monkeypatch.setattr(openimages_arrays, "_BLOCK", 2)
    in_blocks: list = []
    parts = load(root, on_problem=in_blocks.append)
    for a, b in zip(whole.records, parts.records):
        for name in ("boxes", "classes", "is_gt", "crowd_boxes"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert whole.intake == parts.intake
    assert [(p.kind.name, p.count) for p in at_once] == [(p.kind.name, p.count) for p in in_blocks]
    assert [(p.kind.name, p.count) for p in at_once] == [("box_degenerate", 1), ("box_cut", 1)]


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["é.jpg", "b\nc, d", "", "\udce9"]])
def test_packed_texts_come_back(texts):
    packed = openimages_arrays.pack_texts(texts)
    assert packed.dtype == np.uint8 and openimages_arrays.unpack_texts(packed) == texts


def test_the_private_table_of_2018(root):
    (root / "annotations" / "mine.csv").write_text(
        "000b,/m/a,20,20,40,40,0,40,80\n000b,/m/b,40,0,80,20,1,40,80\n000a,/m/b,0,0,10,20,0,40,80\n"
    )
    dataset = load(root, "mine", image_folder="images/train")
    one, two = dataset.records
    assert one.boxes.tolist() == [[0, 0, 9, 19]] and two.boxes.tolist() == [[20, 20, 39, 39]]
    assert two.crowd_boxes.tolist() == [[40, 0, 79, 19]]


def test_boxes_that_cannot_be_are_counted(root):
    table = root / "train-annotations-bbox.csv"
    table.write_text(
        f"{table.read_text()}000a,x,/m/a,1,0.5,0.5,0,1,0,0\n000a,x,/m/a,1,1.5,1.7,0,1,0,0\n"
    )
    heard = []
    dataset = load(root, on_problem=heard.append)
    assert dataset.num_objects == 3
    assert {p.kind.name: p.count for p in heard} == {"box_degenerate": 1, "box_outside": 1}
    assert dataset.intake.left_out["crowd"] == 1 and dataset.intake.kept == 3


def test_what_is_missing_is_told(root):
    heard: list = []
    hear: OnProblem = heard.append
    (root / "images" / "train" / "000a.jpg").unlink()
    assert len(load(root, on_problem=hear).records) == 2
    assert any("000a" in text for problem in heard for text in problem.texts)
    with pytest.raises(DataError, match="000a"):
        load(root)
    with pytest.raises(DataError, match="sets: train"):
        load(root, "val")
    with pytest.raises(DataError, match="boxes only"):
        load(root, with_masks=True)
    (root / "annotations" / "class-descriptions-boxable.csv").write_text("/m/b,Bee\n")
    with pytest.raises(DataError, match="1 boxes of /m/a"):
        load(root)
    (root / "annotations" / "class-descriptions-boxable.csv").unlink()
    with pytest.raises(DataError, match="list of classes is missing"):
        load(root)


def test_a_set_without_group_column_has_no_groups(root, tmp_path, caplog):
    table = root / "train-annotations-bbox.csv"
    lines = [line.rpartition(",")[0] for line in table.read_text().splitlines()]
    table.write_text("\n".join([*lines, ""]))
    for cached in range(2):
        caplog.clear()
        dataset = load(root, cache_dir=tmp_path / "cache")
        assert dataset.num_objects == 4 and dataset.num_ignored == 0
        assert not dataset.truth.groups_known and not dataset.truth.boxes.groups.any()
        assert caplog.text.count("has no IsGroupOf") == 1 - cached


def test_boxes_without_group_value_are_single_objects(root, caplog):
    table = root / "train-annotations-bbox.csv"
    text = table.read_text()
    table.write_text(f"{text}000a,x,/m/a,1,0,1,0,1,0,\n0007,x,/m/a,1,0,1,0,1,0,-1\n")
    dataset = load(root)
    assert dataset.num_objects == 5 and dataset.num_ignored == 1
    assert dataset.truth.groups_known
    warnings = [r.getMessage() for r in caplog.records if "IsGroupOf" in r.getMessage()]
    assert len(warnings) == 1 and "1 of 6 boxes" in warnings[0] and "line 6" in warnings[0]
    # The file's own "unknown" is no reason to warn.
    caplog.clear()
    table.write_text(f"{text}0007,x,/m/a,1,0,1,0,1,0,-1\n")
    assert load(root).num_objects == 4 and "IsGroupOf" not in caplog.text
    # Anything but a number is refused.
    table.write_text(f"{text}0007,x,/m/a,1,0,1,0,1,0,yes\n")
    with pytest.raises(DataError, match="cannot be read"):
        load(root)

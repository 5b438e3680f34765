"""YOLO sets: the yaml, where labels are, what a line may say, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from sniper.config import load_config
from sniper.data import load_dataset
from sniper.data.yolo_labels import label_lines, label_path, read_labels
from sniper.errors import DataError
from sniper.evaluation import objects_of
from sniper.runs.datasets import training_records
from sniper.runs.resolve import training_data
from sniper.tools.check_data import check

WIDTH, HEIGHT = 80, 60


class YoloSet:
    def __init__(self, root):
        self.root = root
        self.content = {"path": ".", "train": "images/train", "names": {0: "ant", 1: "bee"}}

    def add(self, name, labels=None, folder="images/train"):
        path = self.root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tofile(path)
        if labels is not None:
            target = label_path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(labels)
        return path

    def load(self, image_set="train", **options):
        (self.root / "data.yaml").write_text(yaml.safe_dump(self.content))
        return load_dataset("yolo", self.root, image_set, **options)


@pytest.fixture
def yolo_set(tmp_path):
    made = YoloSet(tmp_path)
    made.add("1", "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.1 0.5 0.1 0.5 0.6\n")
    made.add("sub/2", "")
    made.add("sub/10")
    return made


def test_boxes_and_outlines_in_px(yolo_set, caplog):
    dataset = yolo_set.load(with_masks=True)
    assert dataset.class_names == ("__background__", "ant", "bee")
    assert dataset.category_ids == (0, 0, 1) and dataset.has_annotations
    names = [Path(record.image_path).name for record in dataset.records]
    assert names == ["1.png", "2.png", "10.png"]
    first = dataset.records[0]
    # x 0.375 to 0.625 of 80 px, y 0.25 to 0.75 of 60 px; the last pixel belongs to a box.
    np.testing.assert_allclose(first.boxes, [[30, 15, 49, 44], [8, 6, 39, 35]], atol=1e-5)
    assert first.classes.tolist() == [2, 1] and (first.width, first.height) == (WIDTH, HEIGHT)
    assert first.polygons[0] == ()
    np.testing.assert_allclose(first.polygons[1][0], [8, 6, 40, 6, 40, 36], atol=1e-5)
    assert [record.num_gt for record in dataset.records] == [2, 0, 0]
    assert "1 images without a label file" in caplog.text
    objects = objects_of(dataset)
    np.testing.assert_allclose(objects.boxes[0], [30, 15, 20, 30], atol=1e-5)


def test_labels_stand_in_the_place_of_images():
    assert label_path("a/images/b/c.d.jpg") == Path("a/labels/b/c.d.txt")
    assert label_path("images/a/images/b.png") == Path("images/a/labels/b.txt")
    assert label_path("train/b.png") == Path("train/b.txt")
    assert label_path("a/images.png") == Path("a/images.txt")


def test_labels_may_stand_beside_their_images(tmp_path):
    made = YoloSet(tmp_path)
    path = made.add("1")
    path.with_suffix(".txt").write_text("0 0.5 0.5 0.1 0.1")
    assert made.load().num_objects == 1


@pytest.mark.parametrize(
    ("key", "value", "count"),
    [
        ("train", "images/train", 3),
        ("train", "../images/train", 3),  # as Roboflow writes a folder beside the yaml
        ("train", ["images/train/1.png", "images/train/sub"], 3),
        ("train", "images/train/*.png", 1),
        ("train", "list.txt", 2),
        ("path", "elsewhere/that/is/not/here", 3),
        ("names", ["ant", "bee"], 3),
        ("nc", 2, 3),
    ],
)
def test_ways_to_say_where_images_are(yolo_set, key, value, count):
    (yolo_set.root / "list.txt").write_text("./images/train/1.png\nimages/train/sub/2.png\n")
    yolo_set.content[key] = value
    dataset = yolo_set.load()
    assert len(dataset.records) == count and dataset.num_objects == 2


def test_absolute_paths_and_a_root(yolo_set, tmp_path):
    yolo_set.content = {**yolo_set.content, "train": str(yolo_set.root / "images" / "train")}
    first = yolo_set.load()
    yolo_set.content |= {"path": str(yolo_set.root / "images"), "train": "train"}
    second = yolo_set.load()
    ids = [[record.image_id for record in ds.records] for ds in (first, second)]
    assert ids[0] == ids[1] and len(ids[0]) == 3
    (yolo_set.root / "data.yaml").rename(yolo_set.root / "mine.yml")
    assert len(load_dataset("yolo", yolo_set.root, "train").records) == 3
    assert len(load_dataset("yolo", yolo_set.root / "mine.yml", "train").records) == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train": "images/none"}, "images of the set are missing"),
        ({"train": None}, "there is no set 'train'"),
        ({"names": None}, "no names"),
        ({"names": {0: "ant", 2: "bee"}}, "names with the numbers 0, 2"),
        ({"names": ["ant", "ant"]}, "the name 'ant' twice"),
        ({"names": "ant"}, "no names|names: 'ant'"),
        ({"nc": 3}, "nc 3 beside 2 names"),
    ],
)
def test_wrong_yaml_is_said(yolo_set, changes, text):
    yolo_set.content |= changes
    with pytest.raises(DataError, match=text) as error:
        yolo_set.load()
    assert "data.yaml" in str(error.value)


def test_names_are_what_is_written(tmp_path):
    made = YoloSet(tmp_path)
    made.add("1", "1 0.5 0.5 0.2 0.2")
    text = "train: images/train\nval:\ntest: null\nnc: 5\nnames: [yes, no, 007, 1.10, null]\n"
    (tmp_path / "data.yaml").write_text(text)
    dataset = load_dataset("yolo", tmp_path, "train")
    assert dataset.class_names[1:] == ("yes", "no", "007", "1.10", "null")
    with pytest.raises(DataError, match="no set 'val'\n.*\n.*got: train\n"):
        load_dataset("yolo", tmp_path, "val")


@pytest.mark.parametrize("keypoints", ["0.5 0.5 1 0.4 0.4 0", "0.5 0.5 0.4 0.4"])
def test_poses_are_read_as_boxes(tmp_path, keypoints):
    made = YoloSet(tmp_path)
    made.content["kpt_shape"] = [2, len(keypoints.split()) // 2]
    made.add("1", f"1 0.5 0.5 0.25 0.5 {keypoints}\n")
    dataset = made.load(with_masks=True)
    np.testing.assert_allclose(dataset.records[0].boxes, [[30, 15, 49, 44]], atol=1e-5)
    assert dataset.records[0].polygons == ((),)


def test_label_files_of_one_name_are_not_one(tmp_path, caplog):
    made = YoloSet(tmp_path)
    for folder in ("images/a", "images/b"):
        made.add("1", "1 0.5 0.5 0.2 0.2", folder)
    made.content["train"] = ["images/a", "images/b"]
    assert made.load().num_objects == 2
    assert "used twice" not in caplog.text


def test_lists_may_be_written_on_windows(tmp_path):
    made = YoloSet(tmp_path)
    made.add("1", "1 0.5 0.5 0.2 0.2")
    made.content["train"] = "train.txt"
    (tmp_path / "train.txt").write_bytes(b"images\\train\\1.png\r\n")
    assert made.load().num_objects == 1


def test_a_yaml_is_needed(tmp_path):
    with pytest.raises(DataError, match="needs its yaml"):
        load_dataset("yolo", tmp_path, "train")
    (tmp_path / "data.yaml").write_text("a: [")
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("yolo", tmp_path, "train")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 0.5 0.5 0.1", "3 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "with a score"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.6 0.7", "7 numbers"),
        ("2 0.5 0.5 0.1 0.1", "class 2 is none of 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5"),
        ("ant 0.5 0.5 0.1 0.1", "not made of numbers"),
        ("0 40 30 10 10", "no fraction"),
        ("0 nan 0.5 0.1 0.1", "not finite"),
        ("0 0.5 0.5 0 0.1", "no width"),
        ("0", "0 numbers"),
    ],
)
def test_broken_lines_are_refused_with_file_and_line(yolo_set, line, problem):
    path = yolo_set.add("3", f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(DataError, match="line 2 of a label file is broken") as error:
        yolo_set.load()
    assert problem in str(error.value) and f"{label_path(path)}, line 2" in str(error.value)
    heard = []
    dataset = yolo_set.load(on_problem=heard.append)
    assert dataset.num_objects == 3
    assert [p.kind.name for p in heard if p.error is not None] == ["broken_entry"]


def test_rounded_boxes_at_the_border_are_cut(yolo_set):
    yolo_set.add("1", "0 0.05 0.05 0.1000001 0.1000001")
    (box,) = yolo_set.load().records[0].boxes
    np.testing.assert_allclose(box, [0, 0, 7, 5], atol=1e-4)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (80, 60)), (3, (80, 60)), (6, (60, 80))])
def test_labels_refer_to_the_picture_as_it_is_shown(tmp_path, order, orientation, size):
    made = YoloSet(tmp_path)
    path = made.add("1").with_suffix(".jpg")
    label_path(path).parent.mkdir(parents=True)
    label_path(path).write_text("0 0.5 0.5 0.5 0.5")
    path.with_suffix(".png").unlink()
    jpeg = cv2.imencode(".jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
    numbers = [(42, 2), (8, 4), (2, 2), (0x0100, 2), (3, 2), (1, 4), (7, 2), (0, 2)]
    numbers += [(0x0112, 2), (3, 2), (1, 4), (orientation, 2), (0, 2)]
    tiff = b"II" if order == "little" else b"MM"
    tiff += b"".join(value.to_bytes(count, order) for value, count in numbers)
    exif = b"Exif\0\0" + tiff
    head = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    path.write_bytes(jpeg[:2] + head + jpeg[2:])
    (record,) = made.load().records
    assert (record.width, record.height) == size
    width, height = np.array(size) / 2
    box = [width / 2, height / 2, 1.5 * width - 1, 1.5 * height - 1]
    np.testing.assert_allclose(record.boxes, [box], atol=1e-4)


def test_labels_without_an_image_are_told(yolo_set):
    folder = yolo_set.root / "labels" / "train"
    (folder / "gone.txt").write_text("0 0.5 0.5 0.1 0.1")
    (folder / "classes.txt").write_text("ant\nbee\n")
    heard = []
    yolo_set.load(on_problem=heard.append)
    (problem,) = (p for p in heard if p.kind.name == "lonely_labels")
    assert [Path(text.split(":")[0]).name for text in problem.texts] == ["gone.txt"]
    # A list may name some of the images on purpose.
    (yolo_set.root / "list.txt").write_text("images/train/sub/2.png\n")
    yolo_set.content["train"] = "list.txt"
    heard.clear()
    yolo_set.load(on_problem=heard.append)
    assert "lonely_labels" not in [p.kind.name for p in heard]


def test_a_set_without_labels_can_be_looked_at(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    made = YoloSet(tmp_path)
    made.add("1")
    assert not made.load().has_annotations and "no image has labels" in caplog.text


def test_unreadable_images_are_left_out_with_their_labels(yolo_set):
    (yolo_set.root / "images" / "train" / "1.png").write_bytes(b"no image")
    heard = []
    dataset = yolo_set.load(on_problem=heard.append)
    assert len(dataset.records) == 2 and dataset.num_objects == 0
    assert "unreadable_file" in [problem.kind.name for problem in heard]


def test_the_cache_sees_changed_labels_and_images(yolo_set, tmp_path):
    cache = tmp_path / "cache"
    first = yolo_set.load(cache_dir=cache, with_masks=True)
    again = yolo_set.load(cache_dir=cache)
    assert list(cache.iterdir()) and again.num_objects == first.num_objects == 2
    assert [r.image_path for r in again.records] == [r.image_path for r in first.records]
    yolo_set.add("sub/2", "0 0.5 0.5 0.1 0.1\n")
    assert yolo_set.load(cache_dir=cache).num_objects == 3
    yolo_set.content["names"] = ["ant", "bee", "cow"]
    assert len(yolo_set.load(cache_dir=cache).class_names) == 4


def test_lines_are_read_as_they_are_written(tmp_path):
    objects = [(3, (1 / 3, 0.5, 1e-5, 1.0)), (0, tuple(np.linspace(0, 1, 8).tolist()))]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(label_lines(objects)))
    read, broken = read_labels(path, 4)
    assert not broken and [one.class_index for one in read] == [3, 0]
    for one, (_, numbers) in zip(read, objects):
        np.testing.assert_allclose(one.numbers, numbers, rtol=1e-9, atol=1e-12)


def test_training_and_check_data_take_it(yolo_set, tmp_path):
    yolo_set.load()
    recipe = tmp_path / "own.yml"
    recipe.write_text(
        f"_BASE_: sniper_mobilenetv2_toy\noutput_path: {tmp_path}/output\n"
        f"dataset: {{dataset: yolo, root_path: {tmp_path}, dataset_path: {yolo_set.root},\n"
        "  image_set: train, test_image_set: train, NUM_CLASSES: 3}\nTRAIN: {FLIP: false}\n"
    )
    cfg = load_config(recipe, [])
    records, names = training_records(training_data(cfg))
    assert [r.num_gt for r in records] == [2] and names[1:] == ("ant", "bee")
    assert check(cfg).findings.counts["unlabelled"] == 1
    yolo_set.add("3", "7 0.5 0.5 0.1 0.1\n")
    assert check(cfg).findings.counts["broken_entry"] == 1

"""`sniper convert-data`: what goes round through another format comes back."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.data import load_dataset
from sniper.evaluation import objects_of
from sniper.tools.convert_data import main

WIDTH, HEIGHT = 97, 61
CATEGORIES = [{"id": 7, "name": "red kite"}, {"id": 3, "name": "Ant"}]
RING = [10, 10, 40, 10, 40, 30.5, 10, 30.5]


def write_coco(root, image_set, images, categories=CATEGORIES):
    """images: {file name: [annotation without ids]}"""
    content = {"images": [], "annotations": [], "categories": categories}
    for number, (name, objects) in enumerate(images.items(), start=1):
        path = root / "images" / image_set / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
        cv2.imencode(path.suffix, pixels)[1].tofile(path)
        entry = {"id": 10 + number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        content["images"].append(entry)
        for one in objects:
            ids = {"id": len(content["annotations"]) + 1, "image_id": 10 + number}
            content["annotations"].append({**one, **ids})
    path = root / "annotations" / f"instances_{image_set}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def convert(source, data, sets, to, out, *more):
    flags = ["--from", source, "--data", str(data), "--sets", sets, "--to", to, "--out", str(out)]
    return main([*flags, *more])


def content_of(kind, root, image_set):
    """{image: [(class, x y w h)]} of what is to be found, and of what need not be."""
    kept, ignored = {}, {}
    if kind == "coco":
        content = json.loads((root / "annotations" / f"instances_{image_set}.json").read_text())
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        images = {entry["id"]: Path(entry["file_name"]).stem for entry in content["images"]}
        rows = [
            (images[o["image_id"]], o.get("iscrowd") or o.get("ignore"), names[o["category_id"]])
            + (o["bbox"],)
            for o in content["annotations"]
        ]
    else:
        dataset = load_dataset(kind, root, image_set)
        images = dict(enumerate(Path(record.image_path).stem for record in dataset.records))
        found = objects_of(dataset)
        rows = [
            (images[image], flag, dataset.class_names[index], box)
            for image, flag, index, box in zip(
                *(found.images.tolist(), found.ignored.tolist(), found.classes.tolist()),
                found.boxes.tolist(),
            )
        ]
    for image in images.values():
        kept[image], ignored[image] = [], []
    for image, is_ignored, name, box in rows:
        (ignored if is_ignored else kept)[image].append((name, box))
    return kept, ignored


def assert_same(a, b, atol):
    assert a.keys() == b.keys()
    for name in a:
        assert sorted(c.lower() for c, _ in a[name]) == sorted(c.lower() for c, _ in b[name]), name
        boxes = [np.array(sorted(x for _, x in side[name])).reshape(-1, 4) for side in (a, b)]
        np.testing.assert_allclose(*boxes, atol=atol)


def draw_boxes():
    """Boxes inside of the image, in hundredths of a px."""
    sides = st.integers(100, 3000), st.integers(100, 3000)
    starts = st.integers(0, 100 * WIDTH - 3000), st.integers(0, 100 * HEIGHT - 3000)
    numbers = st.tuples(*starts, *sides).map(lambda box: [number / 100 for number in box])
    return st.tuples(numbers, st.sampled_from([7, 3]))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(draw_boxes(), max_size=4, unique_by=str), min_size=1, max_size=3))
@pytest.mark.parametrize("through", ["voc", "yolo"])
def test_boxes_come_back(through, images):
    if not any(images):
        images = [*images, [([1.5, 2.25, 10.0, 12.5], 7)]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        named = {
            f"{'sub/' * (i % 2)}{i}.png": [{"bbox": box, "category_id": c} for box, c in objects]
            for i, objects in enumerate(images)
        }
        write_coco(root / "a", "train", named)
        assert convert("coco", root / "a", "train", through, root / "b") == 0
        image_set = "Set_train" if through == "voc" else "train"
        assert convert(through, root / "b", image_set, "coco", root / "c") == 0
        before, after = (content_of("coco", root / name, "train")[0] for name in "ac")
        if through == "voc":
            before = {("sub_" * (int(name) % 2)) + name: rows for name, rows in before.items()}
        assert_same(before, after, atol=2e-4)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0.125, 60)] * 2), min_size=3, max_size=9, unique=True))
def test_outlines_come_back(points):
    ring = np.array(points, np.float64)
    low, high = ring.min(axis=0), ring.max(axis=0)
    if (high - low).min() < 1:
        return
    one = {
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "category_id": 3,
        "segmentation": [ring.ravel().tolist()],
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_coco(root / "a", "val", {"1.png": [one]})
        assert convert("coco", root / "a", "val", "yolo", root / "b") == 0
        assert convert("yolo", root / "b", "val", "coco", root / "c") == 0
        first, second = (
            load_dataset("coco", root / name, "val", with_masks=True).records[0] for name in "ac"
        )
        np.testing.assert_allclose(first.boxes, second.boxes, atol=1e-3)
        np.testing.assert_allclose(first.polygons[0][0], second.polygons[0][0], atol=1e-3)
        assert convert("coco", root / "a", "val", "yolo", root / "d", "--boxes") == 0
        assert len((root / "d/labels/val/1.txt").read_text().split()) == 5


@pytest.fixture
def flagged(tmp_path):
    """A set with everything that some format cannot hold."""
    two = [[1, 1, 20, 1, 20, 20, 1, 20], [30, 30, 50, 30, 50, 50, 30, 50]]
    write_coco(
        tmp_path / "a",
        "train",
        {
            "1.png": [
                {"bbox": [1, 1, 49, 49], "category_id": 7, "segmentation": two},
                {"bbox": [10, 10, 30, 25], "category_id": 3, "segmentation": [RING]},
                {"bbox": [5, 5, 40, 40], "category_id": 3, "iscrowd": 1},
                {"bbox": [6, 6, 20, 20], "category_id": 7, "ignore": 1},
            ],
            "2.png": [],
        },
    )
    write_coco(tmp_path / "a", "val", {"3.png": [{"bbox": [1, 2, 3, 4], "category_id": 3}]})
    return tmp_path


def test_what_cannot_be_held_is_counted(flagged, capsys):
    assert convert("coco", flagged / "a", "train+val", "yolo", flagged / "yolo") == 0
    shown = capsys.readouterr().out
    assert "train: 2 images, 2 objects, 2 that need not be found" in shown
    for text in (
        "1 crowd regions: YOLO has no flag",
        "1 objects that need not be found (difficult): YOLO",
        "1 objects in several parts",
        "1 boxes that are not the extent of their outline",
        "image_set: train, test_image_set: val, NUM_CLASSES: 3}",
    ):
        assert text in shown, text
    record = load_dataset("yolo", flagged / "yolo", "train", with_masks=True).records[0]
    np.testing.assert_allclose(record.boxes, [[1, 1, 49, 49], [10, 10, 39, 29.5]], atol=1e-3)
    assert convert("coco", flagged / "a", "train+val", "voc", flagged / "voc") == 0
    shown = capsys.readouterr().out
    assert "2 outlines of objects" in shown and "1 crowd regions, which become" in shown
    kept, ignored = content_of("voc", flagged / "voc", "Set_train")
    assert [len(rows["1"]) for rows in (kept, ignored)] == [2, 2] and not kept["2"]
    assert convert("voc", flagged / "voc", "Set_train+Set_val", "coco", flagged / "back") == 0
    again, ignored_again = content_of("coco", flagged / "back", "train")
    assert_same(kept, again, 1e-3)
    assert_same(ignored, ignored_again, 1e-3)
    assert len(content_of("coco", flagged / "back", "val")[0]) == 1


def test_coco_keeps_ids_flags_and_outlines(flagged):
    assert convert("coco", flagged / "a", "train", "coco", flagged / "b", "--images", "copy") == 0
    old, new = (
        json.loads((flagged / name / "annotations/instances_train.json").read_text())
        for name in "ab"
    )
    assert new["categories"] == CATEGORIES
    assert [image["id"] for image in new["images"]] == [image["id"] for image in old["images"]]
    flags = {(o["category_id"], o["iscrowd"], o.get("ignore", 0)) for o in new["annotations"]}
    assert flags == {(7, 0, 0), (3, 0, 0), (3, 1, 0), (7, 0, 1)}
    rings = [o["segmentation"] for o in new["annotations"] if "segmentation" in o]
    np.testing.assert_allclose(rings[1][0], RING, atol=1e-4)
    areas = [o["area"] for o in new["annotations"]]
    np.testing.assert_allclose(areas, [761, 615, 1600, 400], atol=0.1)


@pytest.mark.parametrize("images", ["link", "copy"])
def test_images_are_linked_or_copied(flagged, images):
    out = flagged / "out"
    assert convert("coco", flagged / "a", "val", "yolo", out, "--images", images) == 0
    image = out / "images" / "val" / "3.png"
    assert image.is_symlink() == (images == "link")
    assert image.read_bytes() == (flagged / "a/images/val/3.png").read_bytes()


def test_nothing_is_written_over(flagged, capsys):
    out = flagged / "out"
    out.mkdir()
    assert convert("coco", flagged / "a", "val", "yolo", out) == 0  # an empty folder
    before = sorted(out.rglob("*"))
    assert convert("coco", flagged / "a", "train", "yolo", out) == 2
    assert "is there already" in capsys.readouterr().err and sorted(out.rglob("*")) == before
    assert convert("coco", flagged / "a", "val", "yolo", flagged / "a" / "new") == 2
    assert convert("coco", flagged / "a", "val", "yolo", flagged / "a") == 2
    assert "inside" in capsys.readouterr().err


def test_what_fails_leaves_nothing_behind(flagged, capsys):
    folder = flagged / "a" / "images" / "val"
    write_coco(flagged / "a", "val", {"3.png": [], "3.jpg": []})
    before = sorted(flagged.iterdir())
    assert convert("coco", flagged / "a", "val", "yolo", flagged / "out") == 3
    assert "one label file" in capsys.readouterr().err
    assert convert("coco", flagged / "a", "test", "yolo", flagged / "out") == 3
    (folder / "3.jpg").unlink()
    assert convert("coco", flagged / "a", "val", "yolo", flagged / "out") == 3
    assert sorted(flagged.iterdir()) == before


def test_boxes_of_stored_pixels_do_not_go_to_programs_that_turn_them(flagged, capsys):
    write_coco(flagged / "a", "val", {"3.jpg": [{"bbox": [1, 2, 30, 40], "category_id": 3}]})
    path = flagged / "a" / "images" / "val" / "3.jpg"
    jpeg = path.read_bytes()
    tiff = b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"
    exif = b"Exif\0\0" + tiff
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    assert convert("coco", flagged / "a", "val", "yolo", flagged / "out") == 3
    assert "would turn it" in capsys.readouterr().err
    assert convert("coco", flagged / "a", "val", "voc", flagged / "out") == 0


def test_sets_with_other_classes_share_one_list(flagged):
    more = [{"id": 1, "name": "Ant"}, {"id": 2, "name": "bee"}]
    write_coco(flagged / "a", "val", {"3.png": [{"bbox": [1, 2, 30, 40], "category_id": 2}]}, more)
    assert convert("coco", flagged / "a", "train+val", "yolo", flagged / "out") == 0
    for image_set, count in (("train", 2), ("val", 1)):
        dataset = load_dataset("yolo", flagged / "out", image_set)
        assert dataset.class_names[1:] == ("red kite", "Ant", "bee")
        assert dataset.num_objects == count
    assert dataset.records[0].classes.tolist() == [3]

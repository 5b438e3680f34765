"""A COCO set rewritten as Open Images trains on the very same numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from sniper.chips.sampler import ChipSettings, make_epoch
from sniper.data import load_dataset
from sniper.loader.sample import BatchSettings, make_sample
from sniper.models.assembly import DetectorSpec, batch_contract
from sniper.models.spec import TargetSettings

RANGES = ((-1, 60), (40, -1))
CLASSES = ("ant", "bee", "cat")
SIZES = ((640, 427), (333, 500), (1023, 767), (97, 61))


def machine_id(category: int) -> str:
    return f"/m/{category:02d}"


def write_as_openimages(root, image_set, content):
    """The tables of a COCO file; images keep their file names."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    rows = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf"]
    for entry in content["annotations"]:
        (width, height), (x, y, w, h) = sizes[entry["image_id"]], entry["bbox"]
        shares = (x / width, (x + w) / width, y / height, (y + h) / height)
        shown = ",".join(f"{share:.6f}" for share in shares)
        label = machine_id(entry["category_id"])
        rows.append(f"{entry['image_id']:016x},x,{label},1,{shown},{entry.get('iscrowd', 0)}")
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{image_set}-annotations-bbox.csv").write_text("\n".join([*rows, ""]))
    images = "".join(
        f"{image['id']:016x},{image['file_name']},{image['width']},{image['height']}\n"
        for image in content["images"]
    )
    table = f"ImageID,FileName,Width,Height\n{images}"
    (root / f"{image_set}-images.csv").write_text(table)
    names = "".join(f"{machine_id(c['id'])},{c['name']}\n" for c in content["categories"])
    (root / "class-descriptions-boxable.csv").write_text(names)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Boxes to 0.01 px in images of sides that divide nothing, some at the border, some crowds."""
    root, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(5)
    images, annotations = [], []
    for number, (width, height) in enumerate(SIZES, start=1):
        name = f"{number}.png"
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        path = root / "images" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        cv2.imencode(".png", pixels)[1].tofile(path)
        for index in range(60):
            x, y = (round(rng.uniform(0, side - 20), 2) for side in (width, height))
            w, h = (round(rng.uniform(1, side - at), 2) for side, at in ((width, x), (height, y)))
            if index % 10 == 0:
                x, y, w, h = 0.0, y, round(width - 0.0, 2), h
            category, crowd = 1 + int(rng.integers(len(CLASSES))), int(index % 15 == 1)
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": category}
                | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd}
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    write_as_openimages(root / "tables", "train", content)
    folder = str(root / "images" / "{set}")
    return (
        load_dataset("coco", root, "train"),
        load_dataset("openimages", root / "tables", "train", image_folder=folder),
    )


def assert_same_records(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert (a.image_path, a.width, a.height) == (b.image_path, b.width, b.height)
        for name in ("boxes", "classes"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        crowds = [
            np.zeros((0, 4)) if r.crowd_boxes is None else np.unique(r.crowd_boxes, axis=0)
            for r in (a, b)
        ]
        np.testing.assert_array_equal(*crowds)


def assert_same_samples(ours, theirs, most):
    """Tensors of the same chips of both, to the bit."""
    spec = DetectorSpec(
        *("resnet_mx_18_e2e_mask", 81, (2, 4, 8), (0.5, 1, 2), 16, 1),
        max_gt=20,
        targets=TargetSettings(RANGES),
    )
    settings = BatchSettings(batch_contract(spec, 128), pixel_means=(103.9, 116.8, 123.7))
    chip_settings = ChipSettings([1.5, 0.5], RANGES, chip_size=128)
    samples = make_epoch(ours, chip_settings, seed=2, epoch=0, batch_size=1)
    rows = samples.samples[:most].tolist()
    with_objects = 0
    for seed, (row, place) in enumerate(rows):
        chip = samples.chips.chip(row, place)
        first, second = (make_sample(of[row], chip, settings, seed) for of in (ours, theirs))
        with_objects += bool((first["gt_boxes"] > 0).any())
        for name, array in first.items():
            assert array.tobytes() == second[name].tobytes(), name
    # Chips at the very border may hold too little of their boxes.
    assert with_objects > 0.8 * most


def test_boxes_are_equal_to_the_bit(both):
    coco, openimages = both
    assert coco.num_objects == openimages.num_objects == 4 * 56
    assert coco.class_names == openimages.class_names
    assert_same_records(coco.records, openimages.records)


def test_training_samples_are_equal_to_the_bit(both):
    coco, openimages = both
    assert_same_samples(coco.records, openimages.records, most=30)


def numbered_as(record, other, numbers):
    """The record with the other's numbers of classes; `numbers` learns which means which."""
    assert len(record.classes) == len(other.classes)
    for mine, theirs in zip(record.classes.tolist(), other.classes.tolist()):
        assert numbers.setdefault(mine, theirs) == theirs
    return replace(
        record, classes=np.array([numbers[c] for c in record.classes.tolist()], np.int32)
    )


@pytest.mark.parametrize("image_set", ["train", "val"])
def test_coco_mini_as_open_images(coco_mini, openimages, tmp_path, image_set):
    """Its classes have other numbers, in the order of the official list."""
    classes = openimages / "annotations" / "class-descriptions-boxable.csv"
    for path in [classes, *(openimages / "coco_mini_as_openimages").iterdir()]:
        (tmp_path / path.name).symlink_to(path)
    folder = str(coco_mini / "images" / f"{image_set}2017")
    coco = load_dataset("coco", coco_mini, f"{image_set}2017", image_folder=folder).records
    ours = load_dataset("openimages", tmp_path, image_set, image_folder=folder).records
    numbers: dict[int, int] = {}
    by_path = {record.image_path: record for record in coco}
    coco = [by_path[record.image_path] for record in ours]
    ours = [numbered_as(record, other, numbers) for record, other in zip(ours, coco)]
    assert len(set(numbers.values())) == len(numbers) > 30
    assert_same_records(coco, ours)
    assert_same_samples(coco, ours, most=20)

"""`sniper merge-detections`: from chips back to images, against a slow and obvious reference."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sniper.tools import export_chips
from sniper.tools.merge_detections import main
from tests.tools.conftest import SIZES

HARD = ("TEST.NMS", "0.5")


@pytest.fixture
def exported(tiny_set):
    def export(*overrides, flags=()):
        out = tiny_set.root / "chips"
        command = ["--cfg", str(tiny_set.recipe), "--out", str(out), "--format", "coco"]
        assert export_chips.main([*command, *flags, "--set", *HARD, *overrides]) == 0
        return out

    return export


def merge(chips, results, *flags):
    path, out = chips / "results.json", chips / "merged.json"
    path.write_text(json.dumps(results))
    files = ["--chips", str(chips), "--results", str(path), "--out", str(out)]
    code = main([*files, "--overwrite", *flags])
    return json.loads(out.read_text()) if code == 0 else code


def table_of(chips):
    return json.loads((chips / "chips.json").read_text())


def annotations_of(chips):
    return json.loads((chips / "annotations" / "instances_chips.json").read_text())["annotations"]


def detection(one, score=0.9, **more):
    return {key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": score} | more


@pytest.mark.parametrize("overrides", [(), ("TRAIN.LEGACY_BOXES", "True")])
def test_perfect_detections_find_each_object_once(tiny_set, exported, overrides):
    """Chips of several levels, and mirrored ones, show an object several times."""
    chips = exported(*overrides)
    trained = [one for one in annotations_of(chips) if not one["iscrowd"]]
    assert {True, False} == {chip["flipped"] for chip in table_of(chips)["chips"]}
    merged = merge(chips, [detection(one) for one in trained])
    objects = [
        (one["image_id"], one["category_id"], *one["bbox"])
        for one in tiny_set.content["annotations"]
    ]
    assert len(trained) > len(objects) == len(merged)
    found = [(one["image_id"], one["category_id"], *one["bbox"]) for one in merged]
    for expected, got in zip(sorted(objects), sorted(found)):
        assert expected[:2] == got[:2]
        # Boxes of chips are whole px: half a px on both sides, in px of a coarse level (x0.4).
        np.testing.assert_allclose(got[2:], expected[2:], atol=2 * 0.5 / 0.4 + 0.1)


def reference(table, results, prune):
    """All in loops: (image id, category) -> boxes x1 y1 x2 y2 score."""
    found = {}
    for one in results:
        chip = table["chips"][one["image_id"] - 1]
        image = table["images"][chip["image"]]
        x, y, w, h = one["bbox"]
        # In continuous coordinates a box ends where its last px does.
        left, top = (x / chip["factor"] + chip["rect"][0], y / chip["factor"] + chip["rect"][1])
        right, bottom = left + w / chip["factor"], top + h / chip["factor"]
        ends = [end + 1 / chip["factor"] for end in chip["rect"][2:]]
        start_x, end_x = chip["rect"][0], ends[0]
        if chip["flipped"]:
            left, right = image["width"] - right, image["width"] - left
            start_x, end_x = image["width"] - end_x, image["width"] - start_x
        # The last px of a box begins one px before the box ends.
        borders = [
            (start_x > 1, left - start_x),
            (chip["rect"][1] > 1, top - chip["rect"][1]),
            (end_x < image["width"] - 1, end_x - (right - 1)),
            (ends[1] < image["height"] - 1, ends[1] - (bottom - 1)),
        ]
        if prune and any(inside and distance < 10 for inside, distance in borders):
            continue
        side = np.sqrt((right - left - 1) * (bottom - top - 1))
        low, high = table["valid_ranges"][chip["level"]]
        if side > low and (high <= 0 or side <= high):
            key = image["id"], one["category_id"]
            found.setdefault(key, []).append((left, top, right - 1, bottom - 1, one["score"]))
    return {key: hard_nms(rows) for key, rows in found.items()}


def hard_nms(rows):
    kept = []
    for row in sorted(rows, key=lambda row: -row[4]):
        if all(iou(row, other) <= 0.5 for other in kept):
            kept.append(row)
    return kept


def iou(a, b):
    def area(x1, y1, x2, y2):
        return max(x2 - x1 + 1, 0) * max(y2 - y1 + 1, 0)

    both = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return both / (area(*a[:4]) + area(*b[:4]) - both)


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_random_detections(exported, seed, prune):
    chips = exported()
    table, rng = table_of(chips), np.random.default_rng(seed)
    results = []
    for _ in range(150):
        chip = table["chips"][rng.integers(len(table["chips"]))]
        x, y = rng.uniform(0, 80, 2).tolist()
        box = [x, y, *rng.uniform(8, 60, 2).tolist()]
        category = int(rng.choice([5, 2, 90]))
        results.append({"image_id": chip["id"], "category_id": category, "bbox": box})
        results[-1]["score"] = float(rng.uniform(0.01, 1))
    merged = merge(chips, results, *(["--prune"] if prune else []))
    expected = reference(table, results, prune)
    found = {}
    for one in merged:
        x, y, w, h = one["bbox"]
        row = (x, y, x + w - 1, y + h - 1, one["score"])
        found.setdefault((one["image_id"], one["category_id"]), []).append(row)
    assert found.keys() == {key for key, rows in expected.items() if rows}
    for key, rows in found.items():
        order = sorted(rows, key=lambda row: -row[4])
        np.testing.assert_allclose(order, expected[key], atol=0.11)  # written with one decimal


def test_settings_of_another_recipe(tiny_set, exported):
    chips = exported()
    one = next(one for one in annotations_of(chips) if not one["iscrowd"])
    x, y, w, h = one["bbox"]
    close = detection(one, 0.5, bbox=[x + w / 4, y, w, h])  # IoU 0.6
    results = [detection(one), close]
    assert len(merge(chips, results)) == 1
    recipe = ("--recipe", str(tiny_set.recipe), "--set")
    assert len(merge(chips, results, *recipe, "TEST.NMS", "0.8")) == 2
    soft = merge(chips, results, *recipe, "TEST.NMS", "-1")
    assert len(soft) == 2 and min(row["score"] for row in soft) < 0.5
    assert merge(chips, results, "--set", "TEST.NMS", "0.8") == 2


def test_yolo_programs_number_classes_from_one(exported):
    one = next(one for one in annotations_of(exported()) if not one["iscrowd"])
    chips = exported(flags=("--format", "yolo", "--force"))
    ids = [0, *(entry["id"] for entry in table_of(chips)["categories"])]
    merged = merge(chips, [detection(one) | {"category_id": ids.index(one["category_id"])}])
    assert [row["category_id"] for row in merged] == [one["category_id"]]


def test_wrong_input_is_told(exported, capsys):
    chips = exported()
    one = detection(annotations_of(chips)[0])
    assert merge(chips, []) == []
    assert merge(chips, [one | {"image_id": 10_000}]) == 3
    assert "belong to no image or category" in capsys.readouterr().err
    results, out = chips / "results.json", chips / "merged.json"
    files = ["--results", str(results), "--out", str(out)]
    assert main(["--chips", str(chips), *files]) == 2
    assert "--out is there already" in capsys.readouterr().err
    assert main(["--chips", str(chips / "images"), *files, "--overwrite"]) == 3
    assert "the table of the chips cannot be read" in capsys.readouterr().err
    table = table_of(chips)
    for spoil in (
        lambda chip: chip.pop("rect"),
        lambda chip: chip.update(image=99),
        lambda chip: chip.update(level=7),
        lambda chip: chip.update(factor=0),
        lambda chip: chip.update(id=5),
        lambda chip: chip.update(rect=[1, 2, 3]),
    ):
        broken = json.loads(json.dumps(table))
        spoil(broken["chips"][0])
        (chips / "chips.json").write_text(json.dumps(broken))
        assert main(["--chips", str(chips), *files, "--overwrite"]) == 3
        assert "the table of the chips is broken" in capsys.readouterr().err


def test_sizes_of_images(exported):
    table = table_of(exported())
    assert {image["id"]: (image["width"], image["height"]) for image in table["images"]} == {
        key: size
        for key, size in SIZES.items()
        if key != 12  # without objects
    }

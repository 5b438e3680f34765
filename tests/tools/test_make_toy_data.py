from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from sniper.errors import ConfigError, DataError, TrainingError
from sniper.tools import make_toy_data as tool
from sniper.tools.toy import scene
from sniper.tools.toy.processes import run_jobs
from sniper.tools.toy.scene import SceneSettings
from sniper.tools.toy.settings import ToySettings
from sniper.tools.toy.shapes import CLASSES
from sniper.tools.toy.stamp import STAMP_FILE
from sniper.tools.toy.writer import make_toy_data

SMALL = ToySettings(
    train=4,
    val=2,
    test=2,
    test_dev=2,
    seed=3,
    scene=SceneSettings(max_size_px=90, long_side_px=160),
)


def quiet(_: str) -> None:
    pass


def digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "data"
    settings = ToySettings(train=30, val=6, test=3, test_dev=3)
    assert make_toy_data(out, settings, progress=quiet)
    return out


@pytest.fixture(scope="module")
def coco(full: Path) -> COCO:
    return COCO(str(full / "annotations" / "instances_train.json"))


@pytest.fixture()
def small(tmp_path: Path) -> Path:
    out = tmp_path / "small"
    assert make_toy_data(out, SMALL, workers=1, progress=quiet)
    return out


def test_the_layout_is_that_of_coco(full: Path) -> None:
    names = {p.name for p in (full / "annotations").iterdir()}
    assert names == {
        "instances_train.json",
        "instances_val.json",
        "instances_test.json",
        "image_info_test-dev2026.json",
    }
    counts = {p.name: len(list(p.glob("*.jpg"))) for p in (full / "images").iterdir()}
    assert counts == {"train": 30, "val": 6, "test": 3, "test2026": 3}


def test_every_image_has_the_size_that_its_annotation_says(full: Path) -> None:
    ids: list[int] = []
    folders = {"train": "train", "val": "val", "test": "test", "test-dev2026": "test2026"}
    for file in (full / "annotations").iterdir():
        content = json.loads(file.read_text())
        folder = folders[file.stem.split("_")[-1]]
        for entry in content["images"]:
            image = cv2.imread(str(full / "images" / folder / entry["file_name"]))
            assert image.shape == (entry["height"], entry["width"], 3)
            assert max(image.shape) <= 640
            ids.append(entry["id"])
    assert len(set(ids)) == len(ids) == 42


def test_the_test_dev_split_has_no_annotations(full: Path) -> None:
    content = json.loads((full / "annotations" / "image_info_test-dev2026.json").read_text())
    assert "annotations" not in content
    assert len(content["categories"]) == len(CLASSES)


def test_classes_are_balanced_and_their_ids_have_gaps(coco: COCO) -> None:
    ids = [c["id"] for c in coco.dataset["categories"]]
    assert len(ids) == 10 and max(ids) > len(ids)
    counts = Counter(a["category_id"] for a in coco.dataset["annotations"])
    assert set(counts) == set(ids)
    assert max(counts.values()) <= 2 * min(counts.values())


def test_small_medium_and_large_objects_are_all_common(coco: COCO) -> None:
    areas = np.array([a["area"] for a in coco.dataset["annotations"]])
    shares = [np.mean(areas < 32**2), np.mean((areas >= 32**2) & (areas <= 96**2))]
    shares.append(np.mean(areas > 96**2))
    assert min(shares) >= 0.15
    sides = [np.sqrt(a["bbox"][2] * a["bbox"][3]) for a in coco.dataset["annotations"]]
    assert 10 <= min(sides) < 15 and 300 < max(sides) <= 410
    assert 7 <= len(areas) / len(coco.imgs) <= 14


def test_most_objects_have_the_colour_of_their_class_and_some_have_not() -> None:
    rng = np.random.default_rng(0)
    typical = 0
    for index in range(400):
        kind = CLASSES[index % 10]
        typical += scene._hue(rng, kind) == kind.hue_deg
        assert scene._hue(rng, None) is None, "distractors have any colour"
    assert 0.85 <= typical / 400 <= 0.95


def test_boxes_lie_inside_their_images(coco: COCO) -> None:
    for a in coco.dataset["annotations"]:
        image = coco.imgs[a["image_id"]]
        x, y, w, h = a["bbox"]
        assert x >= 0 and y >= 0 and w > 0 and h > 0
        assert x + w <= image["width"] and y + h <= image["height"]
        assert 0 < a["area"] <= w * h and a["iscrowd"] == 0


def test_polygons_are_valid_and_agree_with_box_and_area(coco: COCO) -> None:
    for a in coco.dataset["annotations"]:
        assert a["segmentation"] and all(len(p) >= 6 for p in a["segmentation"])
        assert sum(map(len, a["segmentation"])) <= 400
        mask = coco.annToMask(a)
        assert 0.75 < mask.sum() / a["area"] < 1.1
        x, y, w, h = a["bbox"]
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        # Sharp points are cut off a little by the simplified outline.
        slack = max(3, 0.04 * max(w, h))
        assert np.abs(np.array(found) - [x, y, x + w, y + h]).max() <= slack


def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    settings = ToySettings(14, 2, 2, 2, seed=5, scene=SMALL.scene)
    make_toy_data(tmp_path / "a", settings, workers=1, progress=quiet)
    make_toy_data(tmp_path / "b", settings, workers=2, progress=quiet)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_another_seed_gives_other_pictures(small: Path, tmp_path: Path) -> None:
    other = ToySettings(4, 2, 2, 2, seed=4, scene=SMALL.scene)
    make_toy_data(tmp_path / "other", other, workers=1, progress=quiet)
    ours, theirs = digests(small), digests(tmp_path / "other")
    assert ours.keys() == theirs.keys()
    assert not set(ours.values()) & set(theirs.values())


def test_pictures_do_not_depend_on_the_counts(small: Path, tmp_path: Path) -> None:
    fewer = ToySettings(2, 0, 2, 0, seed=3, scene=SMALL.scene)
    make_toy_data(tmp_path / "fewer", fewer, workers=1, progress=quiet)
    name = "images/test/test_000001.jpg"
    assert digests(tmp_path / "fewer")[name] == digests(small)[name]
    assert not (tmp_path / "fewer/annotations/instances_val.json").exists()


def test_a_second_call_reuses_the_data(small: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    assert not make_toy_data(small, SMALL, workers=1, progress=quiet)
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before


@pytest.mark.parametrize("damage", ["image gone", "image cut", "annotations changed", "unfinished"])
def test_damaged_data_is_written_again(small: Path, damage: str) -> None:
    before = digests(small)
    image = small / "images" / "train" / "train_000002.jpg"
    annotations = small / "annotations" / "instances_val.json"
    stamp = small / STAMP_FILE
    if damage == "image gone":
        image.unlink()
    elif damage == "image cut":
        image.write_bytes(image.read_bytes()[:500])
    elif damage == "annotations changed":
        annotations.write_text(annotations.read_text().replace('"iscrowd":0', '"iscrowd":1', 1))
    else:
        stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "sha256": None}))
        annotations.unlink()
    lines: list[str] = []
    assert make_toy_data(small, SMALL, workers=1, progress=lines.append)
    assert digests(small) == before
    assert "incomplete or was changed" in lines[0]


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="did not make"):
        make_toy_data(tmp_path, SMALL, progress=quiet)
    (tmp_path / STAMP_FILE).write_text("[]")
    with pytest.raises(DataError, match="did not make"):
        make_toy_data(tmp_path, SMALL, force=True, progress=quiet)
    assert {p.name for p in tmp_path.iterdir()} == {"mine.txt", STAMP_FILE}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="did not make"):
        make_toy_data(tmp_path / "file", SMALL, progress=quiet)
    with pytest.raises(DataError, match="cannot be written"):
        make_toy_data(tmp_path / "file" / "below", SMALL, progress=quiet)


def test_other_settings_need_force_and_keep_the_users_files(small: Path) -> None:
    fewer = ToySettings(2, 1, 0, 1, seed=3, scene=SMALL.scene)
    before = digests(small)
    with pytest.raises(DataError, match="train: 4 there, 2 wanted"):
        make_toy_data(small, fewer, progress=quiet)
    assert digests(small) == before
    own = small / "images" / "train" / "holiday.jpg"
    own.write_bytes(b"mine")
    assert make_toy_data(small, fewer, workers=1, force=True, progress=quiet)
    assert {p.name for p in own.parent.iterdir()} == {
        "holiday.jpg",
        "train_000000.jpg",
        "train_000001.jpg",
    }
    assert not (small / "annotations" / "instances_test.json").exists()
    assert not make_toy_data(small, fewer, progress=quiet)


def test_a_path_that_cannot_be_written_is_named(small: Path) -> None:
    image = small / "images" / "val" / "val_000001.jpg"
    image.unlink()
    image.mkdir()
    with pytest.raises(DataError, match="val"):
        make_toy_data(small, SMALL, workers=1, progress=quiet)


def test_a_dead_worker_ends_the_run() -> None:
    with pytest.raises(TrainingError, match="worker process"):
        list(run_jobs(os._exit, [1] * 32, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--train", "-1"],
        ["--train", "0", "--val", "0", "--test", "0", "--test-dev", "0"],
        ["--seed", "-3"],
        ["--classes", "11"],
        ["--objects", "5", "4"],
        ["--sizes", "2", "100"],
        ["--sizes", "200", "100"],
        ["--long-side", "20"],
        ["--fine", "--size-bound"],
        ["--fine", "--classes", "1", "--held-out", "14"],
    ],
)
def test_bad_settings_end_with_exit_code_2(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tool.main([str(tmp_path / "out"), *arguments]) == ConfigError.exit_code
    error = capsys.readouterr().err
    assert "cannot use this value" in error or "expected" in error
    assert not (tmp_path / "out").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    flags = "--train 3 --val 1 --test 0 --test-dev 1 --classes 4 --objects 2 3 --long-side 160"
    arguments = [str(out), *flags.split(), "--sizes", "12", "80", "--workers", "1"]
    assert tool.main(arguments) == 0
    assert "written in" in capsys.readouterr().out
    content = json.loads((out / "annotations" / "instances_train.json").read_text())
    assert [c["name"] for c in content["categories"]] == [c.name for c in CLASSES[:4]]
    assert all(max(i["width"], i["height"]) <= 160 for i in content["images"])
    assert all(max(a["bbox"][2:]) <= 160 for a in content["annotations"])
    assert tool.main(arguments) == 0
    assert "was there already" in capsys.readouterr().out
    assert tool.main([*arguments, "--seed", "8"]) == DataError.exit_code
    assert "--force" in capsys.readouterr().err


def test_without_anything_to_do_the_usage_is_shown(capsys: pytest.CaptureFixture) -> None:
    assert tool.main([]) == ConfigError.exit_code
    assert "OUT" in capsys.readouterr().err


def test_the_shipped_demo_image_is_the_generators(tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parents[2] / "data" / "demo" / "demo.jpg"
    assert shipped.stat().st_size < 150_000
    assert tool.main(["--demo", str(tmp_path / "demo.jpg")]) == 0
    image = cv2.imread(str(shipped)).astype(int)
    again = cv2.imread(str(tmp_path / "demo.jpg")).astype(int)
    assert image.shape == again.shape == (480, 640, 3)
    assert np.abs(image - again).mean() < 3


def test_the_demo_image_needs_a_place(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("x")
    assert tool.main(["--demo", str(tmp_path / "file" / "demo.jpg")]) == DataError.exit_code
    assert "demo image" in capsys.readouterr().err


def test_stamps_of_sets_without_size_bound_classes_stay_as_they_were():
    assert "size_bound" not in SMALL.as_dict()["scene"]
    bound = dataclasses.replace(SMALL, scene=dataclasses.replace(SMALL.scene, size_bound=True))
    assert bound.as_dict()["scene"]["size_bound"] is True

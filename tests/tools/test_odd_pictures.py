"""One odd picture never ends a folder; drawings are never input: detect, demo.py, main_test.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper.data import image_record
from sniper.errors import DataError
from sniper.runs.predictor import Predictor
from sniper.tools.cli import main as sniper_main
from sniper.tools.demo import main as demo_main
from tests.runs.random_run import random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return random_run(tmp_path_factory.mktemp("run"))


def write(path: Path, height=70, width=90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height).integers(0, 255, (height, width, 3)).astype(np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def odd(tmp_path) -> Path:
    """Two good pictures among odd ones."""
    folder = tmp_path / "data" / "odd"
    write(folder / "a.png")
    write(folder / "z.png", 64, 64)
    write(folder / "strip.png", 1, 9000)
    write(folder / "pole.png", 9000, 2)
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    good = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    # Its header is right, its pixels are not.
    (folder / "damaged.png").write_bytes(good[:60] + bytes(200) + good[260:])
    (folder / "dangling.png").symlink_to("nowhere.png")
    return folder


ODD = ["cut.png", "damaged.png", "dangling.png", "pole.png", "strip.png", "text.png", "zero.jpg"]


def detect(run, *flags) -> int:
    return sniper_main(["detect", *map(str, flags), "--cfg", str(run.recipe), "--format", "png"])


def test_detect_leaves_them_out_and_lists_them(run, odd, tmp_path):
    out = tmp_path / "out"
    assert detect(run, odd, "--out", out) == 3
    found = json.loads((out / "detections.json").read_text())
    assert [image["name"] for image in found["images"]] == ["a.png", "z.png"]
    assert sorted(one["name"] for one in found["skipped"]) == ODD
    assert found["complete"] is True
    thin = next(one["reason"] for one in found["skipped"] if one["name"] == "strip.png")
    assert "too thin" in thin and "9000x1 px" in thin


@pytest.mark.parametrize("mode", ["single", "pyramid", "slice"])
def test_thin_pictures_are_refused_by_name(run, mode):
    predictor = Predictor(run.recipe, mode=mode)
    wide = np.zeros((1, 60_000, 3), np.uint8)
    with pytest.raises(DataError, match="too thin"):
        predictor(wide)
    assert predictor([wide, np.zeros((40, 40, 3), np.uint8)], on_error="skip")[0].height == 40
    with pytest.raises(DataError, match=r"w\.png"):
        predictor._detector.detect([image_record("w.png", 1, 60_000, 1)])


def test_demo_on_a_folder(run, odd, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--cfg", str(run.recipe), "--im_path", str(odd), "--out"]
    assert demo_main([*flags, str(out)]) == 3
    assert "7 pictures were left out" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "detections.json", "z.jpg"]
    assert demo_main([*flags, str(odd)]) == 2
    assert "among their originals" in capsys.readouterr().err


def test_main_test_on_a_folder_when_asked(run, odd, tmp_path, capsys):
    output = tmp_path / "output"
    keys = ["dataset.dataset", "folder", "dataset.dataset_path", str(odd.parent)]
    keys += ["dataset.test_image_set", "odd", "output_path", str(output)]
    flags = ["test", "--cfg", str(run.recipe), "--weights", str(run.weights), "--set", *keys]
    assert sniper_main(flags) == 3
    assert not list(output.rglob("detections_odd_results.json"))
    capsys.readouterr()
    assert sniper_main([*flags, "TEST.SKIP_BAD_IMAGES", "True"]) == 3
    error = capsys.readouterr().err
    assert "7 images were left out" in error
    listed = json.loads((output / "results" / "detections_odd_skipped.json").read_text())
    assert sorted(Path(entry.split(" (")[0]).name for entry in listed["skipped"]) == ODD
    assert list((output / "results").glob("detections_odd*results*.json"))
    for name in ODD:
        (odd / name).unlink()
    assert sniper_main([*flags, "TEST.SKIP_BAD_IMAGES", "True"]) == 0
    assert not (output / "results" / "detections_odd_skipped.json").exists()


def test_drawings_inside_the_searched_folder_are_no_input(run, tmp_path):
    folder = tmp_path / "photos"
    write(folder / "a.png")
    write(folder / "b" / "c.png")
    for _ in range(2):
        assert detect(run, folder, "--recursive", "--out", folder) == 0
        found = json.loads((folder / "detections.json").read_text())
        assert [image["name"] for image in found["images"]] == ["a.png", "b/c.png"]
    assert len(list((folder / "drawings").rglob("*.png"))) == 2
    assert not os.path.exists(folder / "drawings" / "drawings")

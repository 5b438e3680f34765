"""New classes for a detector from folders of pictures, end to end with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper import Predictor
from sniper.errors import ConfigError, DataError
from sniper.inference.picture_classes import load_classes
from sniper.runs import picture_features
from sniper.tools.cli import main
from tests.runs.random_run import random_run

COLOURS = {"blue": (200, 60, 40), "green": (40, 200, 60), "red": (50, 40, 210)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return random_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five pictures of each colour, all different."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(5):
            noise = rng.normal(0, 25, (48, 60, 3))
            picture = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), picture)
    return folder


def fit(run, folder: Path, out: Path, *flags: object) -> int:
    chosen = ["--cfg", str(run.recipe)]
    return main(["fit-classes", str(folder), "--out", str(out), *map(str, flags), *chosen])


@pytest.fixture(scope="module")
def fitted(run, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "colours.npz"
    assert fit(run, folder, out, "--json", out.with_suffix(".json")) == 0
    return out


def test_classes_are_learnt_and_measured_on_what_is_held_out(fitted):
    report = json.loads(fitted.with_suffix(".json").read_text())
    assert report["classes"] == list(COLOURS)
    assert report["learnt_from"] == [3, 3, 3] and report["pictures"] == 6
    assert report["accuracy"] == 1 and np.trace(report["confusion"]) == 6
    classes = load_classes(fitted)
    assert classes.spec.size_px == 128, "pictures are as large as chips"
    assert "red/4.png" in classes.files and "red/0.png" not in classes.files


def test_a_detector_finds_the_new_classes_where_its_own_boxes_are(run, folder, fitted):
    image = cv2.imread(str(folder / "red" / "0.png"))
    own = Predictor(run.recipe, mode="single")(image)[0]
    predictor = Predictor(run.recipe, mode="single", classes=fitted)
    new = predictor(image)[0]
    assert predictor.class_names == ("__background__", *COLOURS)
    assert predictor.category_ids is None
    assert len(own) and len(new)
    assert predictor.class_names[new.classes[0]] == "red"
    again = Predictor(run.recipe, mode="single", classes=load_classes(fitted))(image)[0]
    np.testing.assert_array_equal(again.scores, new.scores)


def test_weights_of_another_network_are_refused(run, fitted, tmp_path):
    other = random_run(tmp_path, seed=4)
    with pytest.raises(DataError, match="another network"):
        Predictor(other.recipe, classes=fitted)


def test_features_are_computed_once_for_each_file_content(run, folder, fitted, monkeypatch):
    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(picture_features.PictureFeatures, "_compute", refuse)
    again = fitted.with_name("again.npz")
    assert fit(run, folder, again, "--pictures", 2, "--schedule", "2018", "--normalise") == 0
    assert load_classes(again).spec.normalise and len(load_classes(again).labels) == 6
    with pytest.raises(AssertionError, match="computed again"):
        fit(run, folder, again, "--size", 64)


def test_classes_can_be_added_one_at_a_time(run, folder, fitted, tmp_path):
    two = tmp_path / "pictures"
    for name in ("blue", "green"):
        (two / name).parent.mkdir(exist_ok=True)
        (two / name).symlink_to(folder / name)
    cache = ["--cache", fitted.parent / "feature_cache"]
    out = tmp_path / "classes.npz"
    assert fit(run, two, out, *cache) == 0
    assert fit(run, folder / "red", out, *cache, "--add-to", out) == 0
    added, at_once = load_classes(out), load_classes(fitted)
    assert added.names == at_once.names
    rows = at_once.features
    np.testing.assert_allclose(added.probabilities(rows), at_once.probabilities(rows), atol=1e-4)
    assert fit(run, folder / "red", out, *cache, "--add-to", out) == ConfigError.exit_code
    assert fit(run, folder / "red", out, *cache, "--add-to", out, "--normalise") == 2


def test_copies_measure_nothing_and_broken_pictures_are_told(run, folder, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    for name in ("blue", "green"):
        (pictures / name).mkdir(parents=True)
        for number in range(5):
            content = (folder / name / f"{number}.png").read_bytes()
            (pictures / name / f"{number}.png").write_bytes(content)
    # By name the first are held out, the last are learnt from.
    (pictures / "blue" / "0.png").write_bytes((pictures / "blue" / "4.png").read_bytes())
    (pictures / "green" / "0.png").write_bytes(b"no picture")
    out = tmp_path / "c.npz"
    assert fit(run, pictures, out, "--json", tmp_path / "r.json") == 3
    printed = capsys.readouterr()
    assert "copies" in printed.err and "green/0.png" in printed.err
    assert json.loads((tmp_path / "r.json").read_text())["pictures"] == 2
    assert "accuracy on 2 pictures" in printed.out


def test_a_background_is_one_more_row_and_no_class(run, folder, fitted, tmp_path, capsys):
    things = tmp_path / "things"
    things.mkdir()
    (things / "blue").symlink_to(folder / "blue")
    out = tmp_path / "c.npz"
    cache = ["--cache", fitted.parent / "feature_cache"]
    assert fit(run, things, out, *cache) == ConfigError.exit_code, "one class alone"
    assert fit(run, things, out, *cache, "--background", folder / "red") == 0
    assert "(none of them)" in capsys.readouterr().out
    classes = load_classes(out)
    assert classes.names == ("blue",) and len(classes.weights) == 2
    probability = classes.probabilities(classes.features)[:, 0]
    assert probability[classes.labels == 0].min() > 0.5 > probability[classes.labels < 0].max()


def test_pictures_held_out_are_drawn_and_detect_takes_the_file(run, folder, fitted, tmp_path):
    shown, found = tmp_path / "shown", tmp_path / "found"
    out = tmp_path / "c.npz"
    cache = ["--cache", fitted.parent / "feature_cache", "--threshold", 0.01]
    assert fit(run, folder, out, *cache, "--pictures", 4, "--draw", shown) == 0
    content = json.loads((shown / "detections.json").read_text())
    assert len(content["images"]) == 3 and content["complete"]
    assert len(list((shown / "drawings").rglob("*.jpg"))) == 3
    flags = ["--classes", str(fitted), "--cfg", str(run.recipe), "--format", "none"]
    assert main(["detect", str(folder / "red"), "--out", str(found), *flags]) == 0
    content = json.loads((found / "detections.json").read_text())
    assert content["classes"] == ["__background__", *COLOURS]
    assert content["classes_file"] == str(fitted)


def test_flags_that_do_not_fit_are_refused(run, folder, tmp_path, capsys):
    assert fit(run, folder, tmp_path / "c.npz", "--lr", 0.1) == ConfigError.exit_code
    assert fit(run, folder, tmp_path / "c.zip") == ConfigError.exit_code
    assert fit(run, tmp_path / "nowhere", tmp_path / "c.npz") == DataError.exit_code
    assert "no such folder" in capsys.readouterr().err


def test_rfcn_3k_serves_as_well(folder, tmp_path):
    run = random_run(tmp_path, ["symbol", "mobilenetv2_3k"])
    out = tmp_path / "c.npz"
    assert fit(run, folder, out) == 0
    (found,) = Predictor(run.recipe, mode="single", classes=out)(folder / "green" / "0.png")
    assert found.class_names == ("__background__", *COLOURS)
    assert len(found) and found.class_names[found.classes[0]] == "green"

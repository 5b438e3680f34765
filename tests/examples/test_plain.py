"""`examples/plain_*.py` do what the programs do: the same weights, the same boxes."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sniper import Predictor
from sniper.config import load_config
from sniper.data.image import read_image
from sniper.errors import DataError
from sniper.models.weights import for_test, read_params
from sniper.runs.plan import test_plan, train_plan
from tests.runs import random_run

HERE = Path(__file__).resolve()
EXAMPLES = HERE.parents[2] / "examples"
LINES = 125
UPDATES = 3


def load(name):
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / name)))


def run(name, *arguments, monkeypatch):
    """Runs an example as the command line does."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize(
    "name", ["plain_train.py", "plain_detect.py", "own_format.py", "own_parts.py"]
)
def test_they_are_one_page(name):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= LINES


def test_training_gives_the_weights_of_the_real_run(real_run, tmp_path, monkeypatch, capsys):
    plan, plain = train_plan(load_config(str(real_run.recipe))), load("plain_train.py")
    spec = plain.detector_spec(11)
    # Sizes of FocusPixels say nothing to a network without that branch.
    targets = replace(spec.targets, focus=plan.detector.targets.focus)
    assert not spec.auto_focus and plan.detector == replace(spec, targets=targets)
    # Without proposals no chip counts false alarms.
    assert replace(plan.chips, min_false_alarms=None) == plain.CHIPS
    assert tuple(plan.batch.pixel_means) == plain.PIXEL_MEANS
    out = tmp_path / "plain.params"
    flags = ["--updates", UPDATES, "--out", out]
    run("plain_train.py", real_run.root / "toy", *flags, monkeypatch=monkeypatch)
    assert capsys.readouterr().out.count("RPNLogLoss") == UPDATES
    # Two epochs have begun: the run has gone through the end of one.
    (weights,) = real_run.folder.glob("SNIPER-*.params")
    assert weights.name == "SNIPER-0002.params"
    for ours, theirs in zip(read_params(out), read_params(weights)):
        assert set(ours) == set(theirs) and len(ours) > 50
        for name, value in ours.items():
            np.testing.assert_array_equal(value.asnumpy(), theirs[name].asnumpy(), err_msg=name)
    image = real_run.root / "toy" / "images" / "val" / "val_000000.jpg"
    # The other page reads them as they are, and refuses to take them for another network's.
    run("plain_detect.py", image, out, "--threshold", 0.1, monkeypatch=monkeypatch)
    with pytest.raises(DataError, match="the weights do not fit the network"):
        run("plain_detect.py", image, out, "--cfg", "sniper_res18_toy", monkeypatch=monkeypatch)


def test_detection_gives_the_boxes_of_the_real_run(tmp_path, monkeypatch, capsys):
    made = random_run.random_run(tmp_path / "run")
    rng = np.random.default_rng(0)
    images = [tmp_path / f"{number}.png" for number in range(2)]
    for path, size in zip(images, [(90, 70), (64, 96)]):
        pixels = cv2.resize(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8), size)
        cv2.imwrite(str(path), pixels)
    plan = test_plan(made.cfg, mode="pyramid", devices="cpu")
    arg, aux = read_params(made.weights)
    detect = load("plain_detect.py").detect
    predictions = Predictor(made.recipe)([str(image) for image in images])
    assert len(plan.levels) == 2 == len(predictions)
    for image, prediction in zip(images, predictions):
        found = detect(read_image(image), plan, for_test(arg), aux)
        assert len(found) > 5
        order = np.argsort(-found.rows[:, 4], kind="stable")
        np.testing.assert_array_equal(found.rows[order, :4], prediction.boxes)
        np.testing.assert_array_equal(found.rows[order, 4], prediction.scores)
        np.testing.assert_array_equal(found.classes[order], prediction.classes)
    first = predictions[0]
    low = float(first.scores[2])
    flags = ["--cfg", made.recipe, "--threshold", low]
    run("plain_detect.py", images[0], made.weights, *flags, monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(first.filter(low)) >= 3
    x1, y1, x2, y2 = first.boxes[0]
    name = first.class_names[first.classes[0]]
    line = f"{name} {first.scores[0]:.3f} at {x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}"
    assert line in lines


def test_the_snippet_of_the_package_trains_tests_and_predicts(real_run):
    lines = [line for line in real_run.printed.splitlines() if "'detections':" in line]
    assert [line.split()[0] for line in lines] == ["val_000000.jpg", "val_000001.jpg"]

"""Detection reads boxes as the training of its weights wrote them (TRAIN.LEGACY_BOXES)."""

from __future__ import annotations

import json
import zipfile

import cv2
import numpy as np
import pytest

from sniper import Predictor
from sniper.models.archive_file import META
from sniper.runs.export import export_model
from sniper.runs.load_model import load_model
from sniper.runs.plan import test_plan as plan_of
from tests.runs.random_run import random_run

KEY = "  LEGACY_BOXES: false\n"


@pytest.fixture
def run(tmp_path):
    return random_run(tmp_path)


def boxes(run, path, source=None):
    """What is found in a picture; `source` is an archive."""
    model = (run.cfg, run.weights) if source is None else (source,)
    (prediction,) = Predictor(*model, devices="cpu")(path)
    return prediction.boxes


def test_weights_of_a_version_without_the_key_are_read_as_in_2018(run, tmp_path):
    picture = tmp_path / "a.png"
    noise = np.random.default_rng(1).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    cv2.imwrite(str(picture), cv2.resize(noise, (120, 90)))
    exact = boxes(run, picture)
    text = run.recipe.read_text()
    assert text.count(KEY) == 1
    run.recipe.write_text(text.replace(KEY, ""))
    legacy = boxes(run, picture)
    assert len(legacy) and not np.array_equal(exact, legacy)
    # What the run was told counts, not the recipe of the test.
    run.recipe.write_text(text.replace(KEY, "  LEGACY_BOXES: true\n"))
    np.testing.assert_array_equal(boxes(run, picture), legacy)
    # An archive keeps it.
    archive = tmp_path / "model.zip"
    run.recipe.write_text(text.replace(KEY, ""))
    export_model(plan_of(run.cfg, devices="cpu"), run.weights, archive)
    with zipfile.ZipFile(archive) as files:
        assert json.loads(files.read(META))["config"]["TRAIN"]["LEGACY_BOXES"] is True
    np.testing.assert_array_equal(boxes(run, picture, archive), legacy)


def test_the_recipe_counts_where_nothing_else_tells(run):
    plan = plan_of(run.cfg, devices="cpu")
    assert load_model(plan.detector, run.weights).legacy_boxes is False
    run.recipe.write_text("{broken")
    assert load_model(plan.detector, run.weights).legacy_boxes is None
    run.recipe.unlink()
    assert load_model(plan.detector, run.weights).legacy_boxes is None
    assert not plan.legacy_boxes

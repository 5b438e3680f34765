"""Settings of a test: the grid, what they share, and plans that are stopped and go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sniper.config import load_config
from sniper.errors import ConfigError
from sniper.inference.detector import Detector
from sniper.progress import silent
from sniper.runs.datasets import open_dataset
from sniper.runs.load_model import load_model, make_detector
from sniper.runs.plan import test_plan
from sniper.runs.setting_runs import BLOCK_IMAGES, SettingRuns
from sniper.runs.test_settings import MODES, settings_grid
from tests.runs.photo_set import write_photo_set
from tests.runs.random_run import random_run

FOCUS = [
    *("TRAIN.AUTO_FOCUS", "True", "TRAIN.AUTO_FOCUS_DC_LOW", "4"),
    *("TRAIN.AUTO_FOCUS_SMALL_THRESH", "22", "TRAIN.AUTO_FOCUS_DC_HIGH", "34"),
    *("TEST.AUTO_FOCUS", "True", "gpus", "cpu"),
]
FOCUS_LEVELS = [
    *("TEST.SCALES", "[[64, 96], [128, 192]]", "TEST.VALID_RANGES", "[[10, -1], [-1, 40]]"),
    *("TEST.DO_PRUNING", "[False, True]", "TEST.CHIP_HYPERPARAMS", "[[1, 0.3, 1], [-1, -1, -1]]"),
    *("TEST.USE_CACHE", "[False, False]"),
]


class Case:
    """A small network with random weights that finds FocusPixels, and a set."""

    def __init__(self, root):
        overrides = [*FOCUS, *FOCUS_LEVELS, *write_photo_set(root, BLOCK_IMAGES + 1)]
        self.run = random_run(root, overrides)
        self.cfg = self.run.cfg
        plan = test_plan(self.cfg)
        self.model = load_model(plan.detector, self.run.weights)
        self.detector = make_detector(plan, self.model)
        self.dataset = open_dataset(plan.source, plan.image_set)
        self.settings = settings_grid(self.cfg, MODES, 96, 72)
        self.plans = {
            setting.name: test_plan(load_config(self.run.recipe, setting.overrides()))
            for setting in self.settings
        }


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("settings"))


def count_images(monkeypatch):
    """How many images each call of the network's levels sees."""
    seen = []
    real = Detector.run_level

    def counted(self, index, run, windows):
        seen.append(len(run.records))
        return real(self, index, run, windows)

    monkeypatch.setattr(Detector, "run_level", counted)
    return seen


class Done:
    """What all settings find, and how many images the levels saw for it."""

    def __init__(self, case, folder):
        self.folder = folder
        with pytest.MonkeyPatch.context() as patch:
            self.seen = count_images(patch)
            self.runs = SettingRuns(case.detector, case.run.weights, folder).run(
                case.dataset, case.plans
            )


@pytest.fixture(scope="module")
def done(case, tmp_path_factory):
    return Done(case, tmp_path_factory.mktemp("parts"))


def test_the_grid_has_all_modes_and_each_setting_once(case):
    names = [setting.name for setting in case.settings]
    assert len(set(names)) == len(names)
    assert {setting.mode for setting in case.settings} >= {"single", "pyramid", "focus"}
    for setting in case.settings:
        assert case.plans[setting.name].mode == setting.mode


def test_pyramids_with_fewer_levels_open_their_outer_ranges():
    cfg = load_config("sniper_mobilenetv2_toy", ["gpus", "cpu"])
    of_pyramid = settings_grid(cfg, ["pyramid"], 320, 240)
    assert [len(s.keys.get("SCALES", cfg.TEST.SCALES)) for s in of_pyramid] == [2, 2, 3]
    assert of_pyramid[-1].keys == {"MODE": "pyramid"}
    for setting in of_pyramid[:2]:
        keys = load_config("sniper_mobilenetv2_toy", ["gpus", "cpu", *setting.overrides()]).TEST
        finest_first = sorted(range(2), key=lambda k: -np.prod(keys.SCALES[k]))
        ranges = [tuple(keys.VALID_RANGES[k]) for k in finest_first]
        assert ranges[0][0] == -1 and ranges[1][1] == -1
        assert ranges[0][1] > 0 and ranges[1][0] > 0


def test_slices_are_smaller_than_the_images_and_focus_needs_its_branch():
    cfg = load_config("sniper_mobilenetv2_toy", ["gpus", "cpu"])
    for setting in settings_grid(cfg, ["slice"], 320, 240):
        assert setting.keys["SLICE_SIZE"] < 320
    assert settings_grid(cfg, ["focus", "single"], 320, 240)
    with pytest.raises(ConfigError, match="FocusPixels"):
        settings_grid(cfg, ["focus"], 320, 240)


def test_settings_find_what_their_own_detectors_find_in_as_many_pixels(case, done):
    assert done.runs.keys() == case.plans.keys()
    for name, plan in case.plans.items():
        detector = make_detector(plan, case.model)
        expected = detector.detect(case.dataset.records, on_step=silent)
        found = done.runs[name]
        np.testing.assert_array_equal(found.table.offsets, expected.offsets, name)
        np.testing.assert_array_equal(found.table.rows, expected.rows, name)
        pixels = detector.take_stats().pixels / len(case.dataset.records)
        assert found.per_image("pixels") == pytest.approx(pixels), name
        assert found.per_image("wall_s") > 0
    assert any(len(run.table.rows) for run in done.runs.values())


def test_levels_are_computed_once_and_a_second_plan_computes_nothing(case, done, monkeypatch):
    levels = sum(len(plan.levels) for plan in case.plans.values())
    assert 0 < sum(done.seen) < levels * len(case.dataset.records)
    seen = count_images(monkeypatch)
    again = SettingRuns(case.detector, case.run.weights, done.folder).run(case.dataset, case.plans)
    assert not seen
    for name in case.plans:
        assert again[name].per_image("cpu_s") == pytest.approx(
            done.runs[name].per_image("cpu_s"), rel=0.5
        )
        np.testing.assert_array_equal(again[name].table.rows, done.runs[name].table.rows)


@pytest.mark.slow
def test_a_plan_that_was_stopped_goes_on(case, done, tmp_path, monkeypatch):
    # Most of the calls: the first ones warm up.
    real, left = Detector.run_level, [len(done.seen) - 3]

    def stopped(self, index, run, windows):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(self, index, run, windows)

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "run_level", stopped)
        with pytest.raises(KeyboardInterrupt):
            SettingRuns(case.detector, case.run.weights, tmp_path).run(case.dataset, case.plans)
    # A kill between the two files of a part: its times are missing.
    times = sorted(tmp_path.rglob("*.json"))
    assert 0 < len(times) < len(list(done.folder.rglob("*.json")))
    times[-1].unlink()
    found = SettingRuns(case.detector, case.run.weights, tmp_path).run(case.dataset, case.plans)
    for name in case.plans:
        np.testing.assert_array_equal(found[name].table.rows, done.runs[name].table.rows)


def test_no_images_are_refused(case, tmp_path):
    empty = replace(case.dataset, records=())
    with pytest.raises(ConfigError, match="compared on images"):
        SettingRuns(case.detector, case.run.weights, tmp_path).run(empty, case.plans)

"""Plans: all that a run does, resolved once."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest

from sniper.config import load_config, recipe_names
from sniper.errors import ConfigError
from sniper.inference.level import FOCUS, SAME
from sniper.runs.devices import Device
from sniper.runs.plan import test_plan as plan_of_test
from sniper.runs.plan import train_plan
from sniper.runs.test import detector_settings

ON_CPU = ["gpus", "cpu"]


@pytest.mark.parametrize("recipe", sorted(recipe_names()))
def test_every_recipe_has_both_plans(recipe):
    cfg = load_config(recipe, ON_CPU)
    train, test = train_plan(cfg), plan_of_test(cfg)
    assert (train.name, test.name) == (recipe, recipe)
    assert train.folder == test.model_dir
    assert train.data.source == test.source
    assert train.chips.chip_size == train.batch.contract.chip_size
    assert len(test.levels) == len(cfg.TEST.SCALES)
    for plan in (train, test):
        assert plan.devices == (Device("cpu"),)
        with pytest.raises(dataclasses.FrozenInstanceError):
            plan.name = "another"


def test_a_plan_of_a_test_travels_to_other_processes():
    plan = plan_of_test(load_config("sniper_res18_toy_autofocus", ON_CPU))
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_reports_say_how_a_plan_detects():
    cfg = load_config("sniper_res101_e2e", [*ON_CPU, "TEST.NMS", "0.3"])
    settings = detector_settings(plan_of_test(cfg))
    assert settings["scales"] == [f"{short}x{long}" for short, long in cfg.TEST.SCALES]
    assert settings["NMS"] == "IoU 0.3" and settings["mode"] == "pyramid"
    assert "box_voting" not in settings
    soft = ["TEST.NMS", "-1", "TEST.NMS_SIGMA", "0.5", "TEST.BOX_VOTING", "0.6"]
    settings = detector_settings(plan_of_test(load_config("sniper_res101_e2e", [*ON_CPU, *soft])))
    assert settings["NMS"] == "soft, sigma 0.5" and settings["box_voting"] == "IoU 0.6"


def test_a_plan_does_not_follow_the_configuration():
    cfg = load_config("sniper_mobilenetv2_toy", ON_CPU)
    plan = train_plan(cfg)
    lr = plan.step.lr
    cfg.TRAIN.lr = 7.0
    assert plan.step.lr == lr != 7.0


def test_what_is_not_in_force_is_noted():
    cfg = load_config("sniper_res101_e2e", ON_CPU)
    assert cfg.TRAIN.fp16
    for plan in (train_plan(cfg), plan_of_test(cfg)):
        assert not plan.detector.fp16
        assert [note for note in plan.notes if note.startswith("fp16")]
    assert not train_plan(load_config("sniper_res101_e2e_fp32", ON_CPU)).notes


def test_configurations_for_tests_only_are_not_trained():
    with pytest.raises(ConfigError, match=r"TRAIN\.lr must be positive"):
        train_plan(load_config("sniper_mobilenetv2_toy", [*ON_CPU, "TRAIN.lr", "0"]))


def test_mode_batch_and_devices_of_the_caller_win():
    cfg = load_config("sniper_res18_toy_autofocus", ON_CPU)
    focus = plan_of_test(cfg)
    assert focus.mode == "focus"
    assert [level.windows for level in focus.levels] == [SAME, SAME, FOCUS]
    pyramid = plan_of_test(cfg, mode="pyramid", batch_images=3, devices="cpu,cpu")
    assert [level.windows for level in pyramid.levels] == [SAME] * 3
    assert [level.batch_images for level in pyramid.levels] == [3] * 3
    assert len(pyramid.devices) == 2
    with pytest.raises(ConfigError, match="must hold an image"):
        plan_of_test(cfg, batch_images=0)
    # Proposals come from all levels in full.
    assert plan_of_test(cfg, rpn_only=True).mode == "pyramid"


def test_validation_is_a_test_of_its_own_set():
    toy = ["sniper_mobilenetv2_toy", [*ON_CPU, "TRAIN.VALIDATE_EVERY", "2"]]
    assert train_plan(load_config(toy[0], ON_CPU)).validation is None
    validation = train_plan(load_config(*toy)).validation
    assert (validation.every, validation.test.image_set) == (2, "val")
    other = train_plan(load_config(toy[0], [*toy[1], "TRAIN.VALIDATION_SET", "test"])).validation
    assert other.test.image_set == "test"
    # Boxes of proposals alone cannot be evaluated.
    rpn = train_plan(load_config(toy[0], [*toy[1], "TRAIN.ONLY_PROPOSAL", "True"]))
    assert rpn.rpn_only and rpn.validation is None


def test_pretrained_weights_are_a_file():
    cfg = load_config("sniper_res101_e2e", [*ON_CPU, "network.pretrained", "folder/net"])
    assert train_plan(cfg).weights.pretrained == Path("folder/net-0000.params")
    fixed = train_plan(load_config("sniper_res101_e2e_frozen_bn", ON_CPU)).weights.fixed
    assert {"gamma", "beta"} <= set(fixed)

"""Which checkpoint is tested."""

from __future__ import annotations

import os

import pytest

from sniper.config import load_config
from sniper.errors import ConfigError, DataError
from sniper.runs.find_weights import newest_model, weights_path
from sniper.runs.plan import test_plan as plan_of
from sniper.runs.predictor import Predictor
from sniper.training.run_state import RunState


def _touch(folder, *names):
    for name in names:
        (folder / f"{name}.params").touch()


def test_the_newest_finished_epoch_is_taken(tmp_path):
    _touch(
        tmp_path, "SNIPER-0002", "SNIPER-0010", "SNIPER-ema-0011", "SNIPER-update-0900", "X-0099"
    )
    assert weights_path(tmp_path, None, "SNIPER").name == "SNIPER-0010.params"
    assert weights_path(tmp_path, 2, "SNIPER").name == "SNIPER-0002.params"
    assert weights_path(tmp_path, None, "SNIPER-ema").name == "SNIPER-ema-0011.params"


def test_what_an_earlier_run_has_left_is_not_the_newest(tmp_path):
    _touch(tmp_path, "SNIPER-0001", "SNIPER-0002", "SNIPER-0007")
    for epoch, run in ((1, 2), (2, 2), (7, 1)):
        state = RunState(epoch, 10 * epoch, 100, 8, 0, run=run)
        (tmp_path / f"SNIPER-{epoch:04d}.json").write_text(state.to_json())
    assert weights_path(tmp_path, None, "SNIPER").name == "SNIPER-0002.params"
    assert weights_path(tmp_path, 7, "SNIPER").name == "SNIPER-0007.params"
    (tmp_path / "SNIPER-0002.json").unlink()
    assert weights_path(tmp_path, None, "SNIPER").name == "SNIPER-0002.params"
    # A clock that went back does not matter within a folder.
    (tmp_path / "config.yml").touch()
    os.utime(tmp_path / "SNIPER-0002.params", (1, 1))
    assert newest_model(tmp_path, "SNIPER") == tmp_path / "SNIPER-0002.params"
    assert newest_model(tmp_path / "none", "SNIPER") is None


def test_weights_without_a_number_are_found_and_missing_ones_listed(tmp_path):
    _touch(tmp_path, "SNIPER-best", "SNIPER-0002")
    assert weights_path(tmp_path, None, "SNIPER-best").name == "SNIPER-best.params"
    with pytest.raises(DataError, match=r"SNIPER-0007\.params\n.*SNIPER-0002.*\n.*TEST_EPOCH N"):
        weights_path(tmp_path, 7, "SNIPER")
    with pytest.raises(DataError, match="no weights in that folder"):
        weights_path(tmp_path / "none", None, "SNIPER")


def test_a_predictor_names_its_own_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r'Predictor\(cfg, weights="FILE"\)') as caught:
        Predictor("sniper_mobilenetv2_toy")
    assert "--" not in str(caught.value)
    with pytest.raises(ConfigError, match='devices must list .*\n.*\n.*\n.*devices="cpu"'):
        Predictor("sniper_mobilenetv2_toy", devices="gpu")
    with pytest.raises(ConfigError, match="batch_images"):
        Predictor("sniper_mobilenetv2_toy", batch_images=0)
    with pytest.raises(ConfigError, match="where: mode"):
        Predictor("sniper_mobilenetv2_toy", mode="focus")


def test_a_longer_training_is_tested_at_its_end():
    assert plan_of(load_config("sniper_mobilenetv2_toy")).epoch is None
    longer = load_config("sniper_res101_e2e", ["gpus", "cpu", "TRAIN.end_epoch", "9"])
    assert plan_of(longer).epoch is None
    assert plan_of(load_config("sniper_res101_e2e", ["gpus", "cpu"])).epoch == 7

"""Where demo.py finds a model when nobody names one."""

from __future__ import annotations

import pytest

from sniper.config import load_config, save_config
from sniper.errors import DataError
from sniper.runs.find_weights import find_weights


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A folder with one trained model of the toy recipe, which runs on the CPU."""
    folder = tmp_path / "output" / "toy" / "train"
    folder.mkdir(parents=True)
    save_config(load_config("sniper_mobilenetv2_toy"), folder / "config.yml")
    (folder / "SNIPER-0002.params").touch()
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_newest_model_keeps_its_own_devices(trained):
    # The 2018 recipe asks for GPU 0: its device must not follow into a model that has its own.
    cfg, weights = find_weights(load_config("sniper_res101_e2e"), "SNIPER", [])
    assert weights.name == "SNIPER-0002.params"
    assert cfg.gpus == "cpu"
    assert cfg.symbol == load_config("sniper_mobilenetv2_toy").symbol


def test_overrides_reach_the_newest_model(trained):
    cfg, _ = find_weights(load_config("sniper_res101_e2e"), "SNIPER", ["gpus", "1"])
    assert str(cfg.gpus) == "1"


def test_a_named_recipe_is_not_replaced(trained):
    with pytest.raises(DataError):
        find_weights(load_config("sniper_res101_e2e"), "SNIPER", None)

"""The linear rule, applied: `main_train.py --auto-scale-lr`."""

from __future__ import annotations

import pytest

from sniper.config import dump_config, load_config
from sniper.runs.plan import train_plan
from sniper.runs.rates import auto_scaled
from sniper.tools import train as command

BASE = ["gpus", "cpu"]


def scaled(overrides, workers=1, recipe="sniper_mobilenetv2_toy"):
    """The toy's rate is 0.1 (warm-up from 0.01) for 16 chips of one device."""
    return auto_scaled(load_config(recipe, [*BASE, *overrides]), workers)


@pytest.mark.parametrize(
    ("overrides", "workers", "lr"),
    [
        ([], 1, 0.1),
        (["TRAIN.BATCH_IMAGES", "8"], 1, 0.05),
        (["TRAIN.BATCH_IMAGES", "32", "TRAIN.lr", "0.2"], 1, 0.4),
        (["TRAIN.BATCH_IMAGES", "8", "TRAIN.REFERENCE_IMAGES", "8"], 1, 0.1),
        # A sum grows with its terms: the rate stays.
        (["gpus", "cpu,cpu", "TRAIN.ACCUMULATION_STEPS", "4"], 3, 0.1),
        (["TRAIN.GRADIENT_REDUCTION", "mean", "gpus", "cpu,cpu"], 3, 0.6),
        (["TRAIN.GRADIENT_REDUCTION", "mean", "TRAIN.ACCUMULATION_STEPS", "4",
          "TRAIN.BATCH_IMAGES", "4", "TRAIN.REFERENCE_REPLICAS", "2"], 1, 0.05),
    ],
)  # fmt: skip
def test_the_rate_goes_with_the_batch(overrides, workers, lr):
    cfg, text = scaled(overrides, workers)
    assert pytest.approx(lr) == cfg.TRAIN.lr
    given = load_config("sniper_mobilenetv2_toy", [*BASE, *overrides]).TRAIN
    assert cfg.TRAIN.warmup_lr / cfg.TRAIN.lr == pytest.approx(given.warmup_lr / given.lr)
    assert text.startswith("--auto-scale-lr: TRAIN.lr ")
    assert f"-> {lr:g}" in text or f"TRAIN.lr {lr:g} stays" in text
    again, text = auto_scaled(cfg, workers)
    assert dump_config(again) == dump_config(cfg), "once is enough"
    assert "stays" in text


def test_the_recipe_of_2018_on_two_devices_with_half_the_chips(tmp_path):
    cfg = load_config("sniper_res101_e2e", ["gpus", "cpu,cpu", "TRAIN.BATCH_IMAGES", "8"])
    assert (cfg.TRAIN.REFERENCE_IMAGES, cfg.TRAIN.lr) == (16, 0.015)
    after, text = auto_scaled(cfg, 1)
    assert pytest.approx(0.0075) == after.TRAIN.lr
    assert "8 chips of a device / 16 of the recipe" in text
    assert "the sum of 2 gradients makes the step grow by itself" in text
    assert cfg.TRAIN.lr == 0.015, "the configuration itself is not changed"
    # What is written beside the weights says what its rate is for.
    (tmp_path / "config.yml").write_text(dump_config(after))
    assert load_config(tmp_path / "config.yml").TRAIN.REFERENCE_IMAGES == 8


def test_the_command_hands_the_flag_on(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "sniper.runs.mining.mine_and_train", lambda cfg, **options: seen.update(options)
    )
    base = ["--cfg", "sniper_mobilenetv2_toy"]
    assert command.main([*base, "--auto-scale-lr", "--set", "gpus", "cpu"]) == 0
    assert seen["auto_scale_lr"] is True
    assert command.main([*base, "--set", "gpus", "cpu"]) == 0
    assert seen["auto_scale_lr"] is False


def test_nothing_is_scaled_without_the_flag():
    cfg = load_config("sniper_mobilenetv2_toy", [*BASE, "TRAIN.BATCH_IMAGES", "4"])
    assert train_plan(cfg).step.lr == 0.1

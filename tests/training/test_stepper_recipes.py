"""From recipes to the settings of an update, and the arithmetic of recipes with other batches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sniper.config import load_config
from sniper.runs.rates import step_settings, step_updates
from sniper.runs.resolve import detector_spec
from tests.training import step_toys as toys

COCO = "sniper_res101_e2e"
BOX_LOSS_ROIS = 188


def settings_of(recipe, *overrides, fp16=True, samples=955_776, batch_size=128):
    cfg = load_config(recipe, list(overrides))
    steps = step_updates(cfg.TRAIN.lr_step, samples, batch_size)
    return replace(step_settings(cfg, fp16=fp16), steps=tuple(steps), fixed=("conv0",))


def spec_of(recipe, *overrides):
    cfg = load_config(recipe, list(overrides))
    return detector_spec(cfg, train=True, batch_images=cfg.TRAIN.BATCH_IMAGES, fp16=cfg.TRAIN.fp16)


def test_the_2018_recipe_gives_the_updates_of_2018():
    settings = settings_of(COCO)
    assert (settings.lr, settings.steps, settings.lr_factor) == (0.015, (39_799,), 0.1)
    assert (settings.warmup_lr, settings.warmup_step) == (0.0005, 1000)
    assert (settings.momentum, settings.wd, settings.clip_gradient) == (0.9, 0.0001, 0)
    assert (settings.loss_scale, settings.dynamic_loss_scale) == (100, False)
    assert (settings.accumulation, settings.reduction, settings.ema_decay) == (1, "sum", 0)
    assert settings.multi_precision and settings.fixed == ("conv0",)
    assert spec_of(COCO).loss_scale == settings.loss_scale


def test_without_half_precision_there_is_no_loss_scale():
    settings = settings_of(COCO, "TRAIN.DYNAMIC_LOSS_SCALE", "True", fp16=False)
    assert (settings.loss_scale, settings.dynamic_loss_scale) == (1, False)
    assert not settings.multi_precision
    assert settings_of(COCO, "TRAIN.DYNAMIC_LOSS_SCALE", "True").dynamic_loss_scale
    assert settings_of(COCO, "TRAIN.warmup", "False").warmup_step == 0


def test_averaged_gradients_take_the_mean_of_the_box_loss():
    mean = ("TRAIN.GRADIENT_REDUCTION", "mean")
    assert spec_of(COCO).bbox_loss_divisor == 0  # the network's own constant
    assert spec_of(COCO, *mean).bbox_loss_divisor == BOX_LOSS_ROIS * 16
    assert spec_of(COCO, *mean, "TRAIN.BATCH_IMAGES", "2").bbox_loss_divisor == BOX_LOSS_ROIS * 2
    assert spec_of(COCO, *mean, "TRAIN.bbox_loss_divisor", "900").bbox_loss_divisor == 900


@pytest.mark.parametrize(
    ("recipe", "fp16", "frozen"),
    [(f"{COCO}_fp32", False, False), (f"{COCO}_small_batch", True, True)],
)
def test_recipes_with_other_batches_make_the_updates_of_2018(recipe, fp16, frozen):
    """lr x gradient and lr x wd of every loss, in numbers."""
    base, cfg = load_config(COCO), load_config(recipe)
    train = cfg.TRAIN
    replicas = len(cfg.gpus.split(",")) * train.ACCUMULATION_STEPS
    assert replicas * train.BATCH_IMAGES == 8 * base.TRAIN.BATCH_IMAGES
    assert replicas == train.REFERENCE_REPLICAS
    assert (train.fp16, cfg.network.BN_MODE == "frozen") == (fp16, frozen)
    # A loss that is a mean over chips: lr / replicas of each gradient, now and in a sum of eight.
    for key in ("lr", "warmup_lr"):
        assert train[key] == pytest.approx(8 * base.TRAIN[key])
    assert train.lr * train.wd == pytest.approx(base.TRAIN.lr * base.TRAIN.wd)
    # The box loss of each chip.
    now = train.lr / (replicas * spec_of(recipe).bbox_loss_divisor)
    assert now == pytest.approx(base.TRAIN.lr / (BOX_LOSS_ROIS * 16))
    for key in ("lr_step", "warmup_step", "end_epoch", "momentum"):
        assert train[key] == base.TRAIN[key]


def test_a_sum_is_a_mean_with_another_rate_and_decay():
    """What the recipes above rely on; exact, since four is a power of two."""
    options = {"accumulation": 4, "lr": 0.05, "warmup_lr": 0.01, "wd": 0.02}
    summed = toys.make_stepper(**options)
    options.update(lr=0.2, warmup_lr=0.04, wd=0.005)
    averaged = toys.make_stepper(**options, reduction="mean")
    for seed in range(20):
        for stepper in (summed, averaged):
            stepper.step(toys.toy_batch(4, seed))
    toys.assert_same(toys.values(summed), toys.values(averaged))

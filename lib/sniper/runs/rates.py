"""The learning rate of a run: its schedule, and how it goes with devices and batch."""

from __future__ import annotations

import copy

from easydict import EasyDict

from sniper.config import parse_lr_steps
from sniper.errors import ConfigError
from sniper.runs.devices import devices_of
from sniper.training.step_settings import StepSettings

COSINE = "cosine"


def step_settings(cfg: EasyDict, *, fp16: bool) -> StepSettings:
    """The update, without what the chips and the network decide: `steps` and `fixed`."""
    train = cfg.TRAIN
    return StepSettings(
        lr=train.lr,
        lr_factor=train.lr_factor,
        warmup_lr=train.warmup_lr,
        warmup_step=train.warmup_step if train.warmup else 0,
        momentum=train.momentum,
        wd=train.wd,
        clip_gradient=train.clip_gradient,
        loss_scale=train.scale if fp16 else 1.0,
        dynamic_loss_scale=fp16 and bool(train.DYNAMIC_LOSS_SCALE),
        loss_scale_window=train.LOSS_SCALE_WINDOW,
        accumulation=train.ACCUMULATION_STEPS,
        reduction=train.GRADIENT_REDUCTION,
        ema_decay=train.EMA_DECAY,
        multi_precision=fp16,
    )


def step_updates(lr_step: str, samples: int, batch_size: int, begin_epoch: int = 0) -> list[int]:
    """Update numbers after which the rate drops.

    Args:
        lr_step: comma list of epochs, fractions allowed, or of updates ("1600u"); empty for a
            constant rate.
        samples: padded number of chips in an epoch.
        batch_size: chips per update, all devices together.
        begin_epoch: epochs done before; epochs that lie before it are left out.

    Raises:
        ConfigError: the list is not a strictly increasing list of numbers.
    """
    try:
        entries = parse_lr_steps(str(lr_step))
    except ValueError:
        raise ConfigError(
            "TRAIN.lr_step is not a list of epochs or updates",
            got=repr(lr_step),
            expected="e.g. '5.33', '4,6' or '1600u,1900u'",
        ) from None
    steps = []
    for number, unit in entries:
        if unit == "updates":
            steps.append(int(number))
        elif number > begin_epoch:
            steps.append(int((number - begin_epoch) * samples / batch_size))
    if any(b <= a for a, b in zip(steps, steps[1:])) or any(step < 1 for step in steps):
        raise ConfigError(
            "TRAIN.lr_step must give strictly increasing updates",
            got=f"{lr_step!r} -> updates {steps}",
            expected="increasing epochs that are at least one update apart",
        )
    return steps


def cosine_updates(
    end_epoch: int, max_updates: int, samples: int, batch_size: int, warmup_step: int
) -> int:
    """Updates of a run, over which a cosine lowers the rate.

    Args:
        end_epoch: epochs of the run.
        max_updates: it ends after so many updates; 0: after its epochs.
        samples: padded number of chips in the first epoch.
        batch_size: chips per update, all devices together.
        warmup_step: updates of the warm-up.

    Raises:
        ConfigError: the warm-up would last as long as the run.
    """
    updates = end_epoch * samples // batch_size
    updates = min(updates, max_updates) if max_updates else updates
    if updates <= warmup_step:
        raise ConfigError(
            "the warm-up leaves no update for the cosine",
            where="TRAIN.warmup_step, TRAIN.LR_SCHEDULE cosine",
            got=f"{warmup_step} of {updates} updates",
            fix="train for longer, or warm up for fewer updates",
        )
    return updates


def auto_scaled(cfg: EasyDict, workers: int) -> tuple[EasyDict, str]:
    """A configuration with the learning rate that the linear rule gives for devices and batch.

    The rate of the recipe belongs to `TRAIN.REFERENCE_IMAGES` chips of a device and, where
    gradients are averaged, to `TRAIN.REFERENCE_REPLICAS` gradients in an update; where they are
    summed, the step grows with their number as it is. Afterwards both say what is in force, so that
    scaling once more changes nothing.

    Args:
        cfg: a checked configuration; it is not changed.
        workers: processes that train together.

    Returns:
        The configuration, and a sentence that says what was done.
    """
    train = cfg.TRAIN
    replicas = len(devices_of(cfg.gpus)) * train.ACCUMULATION_STEPS * workers
    factor = train.BATCH_IMAGES / train.REFERENCE_IMAGES
    parts = [f"{train.BATCH_IMAGES} chips of a device / {train.REFERENCE_IMAGES} of the recipe"]
    if train.GRADIENT_REDUCTION == "mean":
        factor *= replicas / train.REFERENCE_REPLICAS
        parts.append(f"{replicas} gradients / {train.REFERENCE_REPLICAS}")
        rest = ""
    else:
        rest = f"; the sum of {replicas} gradients makes the step grow by itself" * (replicas > 1)
    scaled = copy.deepcopy(cfg)
    keys = scaled.TRAIN
    keys.lr, keys.warmup_lr = train.lr * factor, train.warmup_lr * factor
    keys.REFERENCE_IMAGES = train.BATCH_IMAGES
    if train.GRADIENT_REDUCTION == "mean":
        keys.REFERENCE_REPLICAS = replicas
    done = (
        f"TRAIN.lr {train.lr:g} -> {keys.lr:g}, TRAIN.warmup_lr {train.warmup_lr:g} -> "
        f"{keys.warmup_lr:g}"
        if factor != 1
        else f"TRAIN.lr {train.lr:g} stays"
    )
    return scaled, f"--auto-scale-lr: {done} (x {factor:g} = {' x '.join(parts)}{rest})"

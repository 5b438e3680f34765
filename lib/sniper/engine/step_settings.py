"""The settings of an update, from the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from easydict import EasyDict

from sniper.config import parse_lr_steps
from sniper.errors import ConfigError
from sniper.training.step_settings import StepSettings


def step_settings(
    cfg: EasyDict, *, fp16: bool, samples: int, batch_size: int, fixed: Sequence[str]
) -> StepSettings:
    """Settings of the update as a configuration gives them.

    Args:
        cfg: the checked configuration.
        fp16: half precision is in force; without it there is no loss scale.
        samples: padded chips of the first epoch.
        batch_size: chips per update: devices x BATCH_IMAGES x ACCUMULATION_STEPS x workers.
        fixed: names of the parameters that are not trained.

    Raises:
        ConfigError: `TRAIN.lr_step` does not give increasing updates.
    """
    train = cfg.TRAIN
    return StepSettings(
        lr=train.lr,
        steps=tuple(step_updates(train.lr_step, samples, batch_size)),
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
        fixed=tuple(fixed),
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

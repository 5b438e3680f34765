"""What decides an update: learning rate, decay, loss scale, accumulation, averaging."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepSettings:
    """Settings of a `Stepper`; rates and decay as the recipe gives them, before any loss scale.

    Args:
        lr: base learning rate.
        steps: updates after which the rate drops.
        lr_factor: factor of each drop.
        warmup_lr: rate at which the warm-up starts.
        warmup_step: updates of the warm-up; 0: none.
        cosine_updates: updates of the run, over which a cosine lowers the rate; 0: steps do.
        momentum: of SGD.
        wd: weight decay of the parameters named `_weight` or `_gamma`.
        clip_gradient: limit of each value of the reduced gradient; 0: none.
        loss_scale: factor on the losses, the first one if it is dynamic.
        dynamic_loss_scale: halve it on overflow, double it after `loss_scale_window` updates.
        loss_scale_window: updates without overflow after which it doubles.
        accumulation: batches whose gradients make one update.
        reduction: "sum" or "mean" over devices, accumulated batches and workers.
        ema_decay: decay of the moving average of the weights; 0: none is kept.
        multi_precision: fp32 master weights of fp16 parameters.
        fixed: names of the parameters that are not trained.
    """

    lr: float
    steps: tuple[int, ...] = ()
    lr_factor: float = 0.1
    warmup_lr: float = 0.0
    warmup_step: int = 0
    cosine_updates: int = 0
    momentum: float = 0.9
    wd: float = 0.0005
    clip_gradient: float = 0.0
    loss_scale: float = 1.0
    dynamic_loss_scale: bool = False
    loss_scale_window: int = 2000
    accumulation: int = 1
    reduction: str = "sum"
    ema_decay: float = 0.0
    multi_precision: bool = False
    fixed: tuple[str, ...] = ()

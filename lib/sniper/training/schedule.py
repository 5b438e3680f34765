"""Learning-rate schedules: linear warm-up, then steps as in 2018, or a cosine."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import mxnet as mx

logger = logging.getLogger(__name__)


def learning_rate(
    update: int,
    *,
    base_lr: float,
    steps: Sequence[int],
    factor: float = 0.1,
    warmup_lr: float = 0.0,
    warmup_step: int = 0,
    cosine_updates: int = 0,
) -> float:
    """Rate of update number `update` (the first is 1); a step takes effect after its update.

    Args:
        update: its number.
        base_lr: the rate after the warm-up.
        steps: updates after which it drops.
        factor: of each drop.
        warmup_lr: where the warm-up starts.
        warmup_step: updates of the warm-up; 0: none.
        cosine_updates: updates of the run: instead of steps half a cosine (Loshchilov and Hutter,
            2017) from the base rate at the end of the warm-up to what would be 0 one update after
            the last; later updates have the rate of the last one. 0: steps.
    """
    if update < warmup_step:
        return warmup_lr + update * (base_lr - warmup_lr) / warmup_step
    if cosine_updates:
        start = max(warmup_step, 1)
        done = (min(update, cosine_updates) - start) / (cosine_updates + 1 - start)
        return base_lr * 0.5 * (1 + math.cos(math.pi * done))
    return base_lr * factor ** sum(update > step for step in steps)


class WarmupSchedule(mx.lr_scheduler.LRScheduler):
    """`learning_rate` as an MXNet scheduler; logs every drop of a step once.

    Rates are given as the recipe has them. With a `loss_scale` the optimizer gets them divided by
    it, as in 2018; it may be changed between updates.
    """

    def __init__(
        self,
        base_lr: float,
        steps: Sequence[int],
        factor: float = 0.1,
        warmup_lr: float = 0.0,
        warmup_step: int = 0,
        *,
        cosine_updates: int = 0,
        loss_scale: float = 1.0,
    ) -> None:
        # The base class has a warm-up of its own with another formula: it stays off.
        super().__init__(base_lr=base_lr)
        self.loss_scale = loss_scale
        self._warmup_lr = warmup_lr
        self._warmup_step = warmup_step
        self._steps = () if cosine_updates else tuple(steps)
        self._factor = factor
        self._cosine_updates = cosine_updates
        self._drops_seen = 0

    def __call__(self, num_update: int) -> float:
        """Rate of update `num_update`, divided by the loss scale."""
        drops = sum(num_update > step for step in self._steps)
        if drops > self._drops_seen:
            rate = self.rate(num_update)
            logger.info("update %d: the learning rate is now %g", num_update, rate)
            self._drops_seen = drops
        return self._rate(num_update, self.loss_scale)

    def rate(self, num_update: int) -> float:
        """Rate of update `num_update` as the recipe counts it, whatever the loss scale."""
        return self._rate(num_update, 1.0)

    def _rate(self, num_update: int, scale: float) -> float:
        return learning_rate(
            num_update,
            base_lr=self.base_lr / scale,
            steps=self._steps,
            factor=self._factor,
            warmup_lr=self._warmup_lr / scale,
            warmup_step=self._warmup_step,
            cosine_updates=self._cosine_updates,
        )

"""The figures of a run while it trains: metrics of all workers, pace, progress lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sniper.loader.train import Batch
from sniper.progress import format_time
from sniper.training.distributed import Workers
from sniper.training.metrics import Measure, Metrics, Ratio
from sniper.training.pace import ProgressClock
from sniper.training.run_log import Display, RunLog, format_metrics
from sniper.training.run_state import RunState
from sniper.training.zero_watch import ZeroWatch

logger = logging.getLogger(__name__)

# The first figures come early, so that nobody has to guess whether a run hangs.
FIRST_DISPLAY = 10
# A line at least so often, however slow the batches are.
SILENT_S = 25.0
_ABOUT_FIGURES = (
    "the figures: RPN... proposals, RCNN... their classes and boxes; ...Loss should fall; ...Acc "
    "(share that is right) often falls as well during the first 400 batches: at first nearly every "
    "proposal is background, which is easy to tell; later many are objects"
)


class Meter:
    """Adds up metrics and shows them.

    Which batches get a progress line depends on their place in the run alone, and the sums are
    part of a checkpoint: a resumed run shows what an unbroken one does. All workers call the same
    methods; the sums are taken over all of them.

    Args:
        log: where the figures go; None on the workers that do not write.
        workers: this process among the others.
        clock: measures the pace.
        display: batches between progress lines.
        measure: gives the metrics of a batch.
        state: sums to go on with.
        watched: metrics that must not stay 0, with what is wrong then.
    """

    def __init__(
        self,
        log: RunLog | None,
        workers: Workers,
        clock: ProgressClock,
        display: int,
        measure: Measure,
        state: RunState,
        watched: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._workers = workers
        self._clock = clock
        self._display = display
        self._metrics = Metrics(measure, _ratios(state.window), _ratios(state.sums))
        self._zeros = ZeroWatch(watched or {}, state.updates)
        self._session_batches = 0
        self._told_s = time.monotonic()

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> dict[str, float]:
        """Adds the outputs of a batch; returns its own values."""
        self._session_batches += 1
        self._clock.step()
        return self._metrics.update(outputs, batch.label)

    def show(
        self,
        state: RunState,
        *,
        batches: int,
        remaining: int,
        lr: float,
        loss_scale: float,
        waited_s: float,
    ) -> None:
        """Shows progress where it is due.

        Args:
            state: where the run stands after the batch.
            batches: of the epoch.
            remaining: batches to the end of the run.
            lr: learning rate of the last update.
            loss_scale: of the batch.
            waited_s: time in this epoch spent waiting for data.
        """
        early = state.epoch == 0 and state.batch == FIRST_DISPLAY
        if early or state.batch % self._display == 0 or state.batch == batches:
            # Collective: workers without a log take part as well.
            values = self._averages(self._metrics.window)
            self._metrics.window = {}
            pace = self._clock.read(state.batch_size, waited_s, remaining)
            if self._log is not None:
                place = (state.epoch, state.batch, batches, state.updates)
                self._log.display(Display(*place, lr, loss_scale, state.skipped, pace, values))
                self._zeros.window(values, state.updates)
            self._told_s = time.monotonic()
        elif self._session_batches == FIRST_DISPLAY:
            # A resumed run soon says something too, without a break in its averages.
            text = format_metrics(self._averages(self._metrics.window))
            logger.info("epoch %d, batch %d of %d: %s", state.epoch + 1, state.batch, batches, text)
        elif self._log is not None and time.monotonic() - self._told_s >= SILENT_S:
            self._told_s = time.monotonic()
            left = format_time(self._clock.seconds_left(remaining))
            logger.info(
                "epoch %d, batch %d of %d: about %s left",
                *(state.epoch + 1, state.batch, batches, left),
            )
        if self._log is not None and self._session_batches == FIRST_DISPLAY:
            self._announce(remaining, is_new=early)

    def _announce(self, remaining: int, *, is_new: bool) -> None:
        """Says how long the run will take, as soon as that can be told."""
        left_s = self._clock.seconds_left(remaining)
        end = time.strftime("%H:%M", time.localtime(time.time() + left_s))
        logger.info("this will take about %s, until %s", format_time(left_s), end)
        if is_new:
            logger.info(_ABOUT_FIGURES)

    def end_epoch(self, state: RunState, took_s: float, *, complete: bool) -> None:
        """Shows the averages of the epoch, and starts a new one if it is complete."""
        values = self._averages(self._metrics.epoch)
        if self._log is not None:
            self._log.epoch(state.epoch, state.updates, took_s, values)
            if complete:
                self._zeros.epoch(values, state.updates)
        if complete:
            self._metrics = Metrics(self._metrics.measure)

    def into(self, state: RunState) -> RunState:
        """The state with the sums of this meter."""
        metrics = self._metrics
        return replace(state, window=_sums(metrics.window), sums=_sums(metrics.epoch))

    def _averages(self, ratios: Mapping[str, Ratio]) -> dict[str, float]:
        sums = [number for ratio in ratios.values() for number in _pair(ratio)]
        totals = self._workers.total(np.array(sums, np.float64)).reshape(-1, 2).tolist()
        return {name: Ratio(*pair).value for name, pair in zip(ratios, totals)}


def _pair(ratio: Ratio) -> tuple[float, float]:
    return ratio.numerator, ratio.denominator


def _sums(ratios: Mapping[str, Ratio]) -> dict[str, tuple[float, float]]:
    return {name: _pair(ratio) for name, ratio in ratios.items()}


def _ratios(sums: Mapping[str, tuple[float, float]]) -> dict[str, Ratio]:
    return {name: Ratio(*pair) for name, pair in sums.items()}

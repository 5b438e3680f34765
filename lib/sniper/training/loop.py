"""The loop of a training run: in which order batches, checkpoints and validation come."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sniper.errors import SniperError
from sniper.loader.train import Batch, TrainLoader
from sniper.progress import LongCall
from sniper.training.distributed import Workers
from sniper.training.finite_checks import check_step
from sniper.training.interrupts import StopRequest
from sniper.training.keeper import Keeper, Validator
from sniper.training.meter import SILENT_S, Meter
from sniper.training.run_log import RunLog
from sniper.training.run_state import RunState
from sniper.training.stepper import Stepper, StepResult
from sniper.training.trace import RunTrace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings:
    """When things happen.

    Attributes:
        end_epoch: epochs of the run.
        max_updates: the run ends after so many updates; 0: after its epochs.
        accumulation: batches of an update.
        checkpoint_every: updates between checkpoints within an epoch; 0: none.
        validate_every: epochs between validations, and one at the end; 0: none.
        patience: the run ends after so many validations without a better one; 0: it does not.
        min_delta: by how much a better one has to be better.
    """

    end_epoch: int
    max_updates: int = 0
    accumulation: int = 1
    checkpoint_every: int = 0
    validate_every: int = 0
    patience: int = 0
    min_delta: float = 0.0

    def finished(self, state: RunState) -> bool:
        """Whether a run that stands there has nothing left to train."""
        ended = state.epoch >= self.end_epoch or self.limit_reached(state)
        return ended or self.stops_early(state)

    def stops_early(self, state: RunState) -> bool:
        """Whether validations have not got better for long enough."""
        return 0 < self.patience <= state.unimproved

    def judged(self, state: RunState, value: float) -> RunState:
        """The state after a validation with this value, the larger the better."""
        if state.mark is None or value > state.mark + self.min_delta:
            return replace(state, mark=value, unimproved=0)
        return replace(state, unimproved=state.unimproved + 1)

    def early_stop_text(self, state: RunState) -> str:
        """Why the run has ended before its time, and where its best weights come from."""
        best = state.best
        figure = "the figure that decides" if best is None else best.metric
        mark = "" if state.mark is None else f" {state.mark:.4f}"
        delta = f" by more than {self.min_delta:g}" if self.min_delta else ""
        kept = "" if best is None else f"; best: {best.value:.4f} after epoch {best.epoch}"
        return (
            f"stopped early, after epoch {state.epoch}: {figure} has not exceeded{mark}{delta} in "
            f"{state.unimproved} validation(s) (TRAIN.EARLY_STOPPING){kept}"
        )

    def limit_reached(self, state: RunState) -> bool:
        """Whether `max_updates` ends the run here."""
        return 0 < self.max_updates <= state.updates

    def validation_missing(self, state: RunState) -> bool:
        """Whether the weights are to be validated, and were not."""
        if not self.validate_every or state.updates <= state.validated:
            return False
        due = state.batch == 0 and state.epoch % self.validate_every == 0
        return due or self.finished(state)


class TrainingLoop:
    """Runs the remaining epochs of a run; with several workers all of them run the same loop.

    Args:
        settings: when things happen.
        stepper: makes the updates; restored already when the run goes on.
        loader: its epoch is started already, at the batch where the run goes on.
        workers: this process among the others.
        meter: shows the figures.
        keeper: saves and validates.
        state: where the run stands.
        log: where the figures of a validation go; None on the workers that do not write.
        validation: None when there is none, and on the workers that do not write.
        trace: keeps digests of batches and weights; None on the workers that do not write.
        bad_batch: file for a batch that spoils the training.
    """

    def __init__(
        self,
        settings: LoopSettings,
        stepper: Stepper,
        loader: TrainLoader,
        workers: Workers,
        meter: Meter,
        keeper: Keeper,
        state: RunState,
        *,
        log: RunLog | None,
        validation: Validator | None,
        trace: RunTrace | None = None,
        bad_batch: Path,
    ) -> None:
        self._settings = settings
        self._stepper = stepper
        self._loader = loader
        self._workers = workers
        self._meter = meter
        self._keeper = keeper
        self._state = state
        self._log = log
        self._validation = validation
        self._trace = trace
        self._bad_batch = bad_batch
        self._stop = StopRequest()
        self._step_s: float | None = None

    def run(self) -> None:
        """Trains to the end, or until a signal asks to stop.

        Raises:
            TrainingError: stopped by a signal, a loss is not finite, a file cannot be written, ...
            DataError: an image cannot be read.
        """
        with self._stop.listen():
            try:
                self._run()
            except KeyboardInterrupt:
                raise self._keeper.stopped() from None

    def _run(self) -> None:
        self._validate_if_missing()
        is_started = True
        while not self._settings.finished(self._state):
            if not is_started:
                self._loader.start_epoch(self._state.epoch)
            self._run_epoch()
            self._validate_if_missing()
            is_started = False
        if self._settings.limit_reached(self._state):
            logger.info("TRAIN.MAX_UPDATES %d reached", self._settings.max_updates)
        if self._settings.stops_early(self._state):
            logger.info("%s", self._settings.early_stop_text(self._state))

    def _run_epoch(self) -> None:
        started_s = time.monotonic()
        for text in self._loader.epoch_stats.chips.lines():
            logger.debug("epoch %d: %s", self._state.epoch + 1, text)
        with self._stop.updates():
            for batch in self._batches():
                result = self._train_on(batch)
                # `_end_epoch` saves after the last batch, and within an update there is nothing new
                # to save.
                if self._state.batch == self._batches_of_epoch or not _ends_update(result):
                    continue
                if self._stop_requested():
                    self._save_and_stop()
                if self._settings.finished(self._state):
                    break
                self._save_if_due(result)
            self._end_epoch(time.monotonic() - started_s)

    @property
    def _batches_of_epoch(self) -> int:
        return self._loader.batches_per_epoch

    def _batches(self) -> Iterator[Batch]:
        """The batches; a signal to the whole process group may end the loader's processes first."""
        while True:
            try:
                batch = next(self._loader, None)
            except SniperError:
                # Saving is collective: the other workers would not come to it.
                if not self._stop.requested or self._workers.count > 1:
                    raise
                self._save_and_stop()
            if batch is None:
                return
            yield batch

    def _train_on(self, batch: Batch) -> StepResult:
        if self._trace is not None:
            self._trace.batch(batch, self._state)
        began_s = time.monotonic()
        with _company(batch.index, self._step_s):
            result = self._stepper.step(batch)
        self._step_s = time.monotonic() - began_s
        losses = self._meter.add(result.outputs, batch)
        check_step(batch, result, losses, epoch=self._state.epoch, file=self._bad_batch)
        self._state = replace(
            self._state,
            batch=batch.index + 1,
            updates=self._stepper.updates,
            skipped=self._state.skipped + result.skipped,
        )
        if self._trace is not None:
            self._trace.trained(batch, result, self._state)
        self._workers.beat()
        self._meter.show(
            self._state,
            batches=self._batches_of_epoch,
            remaining=self._remaining_batches(),
            lr=self._stepper.learning_rate,
            loss_scale=result.loss_scale,
            waited_s=self._loader.wait_time_s,
        )
        return result

    def _remaining_batches(self) -> int:
        """Batches to the end of the run, if all epochs are as long as this one."""
        settings, state = self._settings, self._state
        batches = (settings.end_epoch - state.epoch) * self._batches_of_epoch - state.batch
        if settings.max_updates:
            to_do = (settings.max_updates - state.updates) * settings.accumulation
            batches = min(batches, to_do)
        return max(batches, 0)

    def _stop_requested(self) -> bool:
        """Whether any worker was asked to stop: all have to end after the same update."""
        return bool(self._workers.total(np.array([float(self._stop.requested)]))[0])

    def _save_and_stop(self) -> None:
        self._keeper.save_update(self._meter.into(self._state))
        raise self._keeper.stopped()

    def _save_if_due(self, result: StepResult) -> None:
        every = self._settings.checkpoint_every
        if every and result.updated and self._state.updates % every == 0:
            self._keeper.save_update(self._meter.into(self._state))

    def _end_epoch(self, took_s: float) -> None:
        """Saves the epoch, also one that MAX_UPDATES has cut short."""
        complete = self._state.batch == self._batches_of_epoch
        self._meter.end_epoch(self._state, took_s, complete=complete)
        if complete:
            self._state = replace(self._state, epoch=self._state.epoch + 1, batch=0)
        self._keeper.save_epoch(self._meter.into(self._state))
        if self._trace is not None:
            self._trace.checkpoint(self._state)
        if self._stop_requested():
            raise self._keeper.stopped()

    def _validate_if_missing(self) -> None:
        if self._settings.validation_missing(self._state):
            state = self._meter.into(self._state)
            self._state = self._keeper.validate(
                self._validation, state, self._log, self._settings.judged
            )


def _company(index: int, last_step_s: float | None) -> contextlib.AbstractContextManager[object]:
    """Lines while a batch takes long, as those of large networks on a CPU do; for short ones none.

    Args:
        index: of the batch in its epoch.
        last_step_s: what the batch before took; None for the first, which also builds the network.
    """
    if last_step_s is not None and last_step_s < SILENT_S / 3:
        return contextlib.nullcontext()
    return LongCall(f"batch {index + 1}", SILENT_S)


def _ends_update(result: StepResult) -> bool:
    return result.updated or result.skipped

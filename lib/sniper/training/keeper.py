"""Keeps what a run has learned: checkpoints, and the weights that do best at validation."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import mxnet as mx
import numpy as np

from sniper.errors import TrainingError
from sniper.models.weights import Params
from sniper.training.checkpoint import Checkpoint, CheckpointFolder, Snapshot
from sniper.training.distributed import Workers
from sniper.training.finite_checks import check_weights
from sniper.training.gradients import PREFIX as UNFINISHED
from sniper.training.interrupts import stopped
from sniper.training.pace import ProgressClock
from sniper.training.run_log import RunLog, Validated
from sniper.training.run_state import BestModel, RunState
from sniper.training.stepper import Stepper

logger = logging.getLogger(__name__)

# The others wait so long while the first worker writes or validates: hours on a large set.
_LONGEST_TASK_S = 4 * 3600.0


class Validator(Protocol):
    """Says how good weights are."""

    def run(self, arg: Params, aux: Params, epoch: int) -> Validated:
        """Detects with weights on the validation set and evaluates.

        Args:
            arg, aux: parameters and batch-norm averages as trained, by name.
            epoch: epochs done.

        Raises:
            SniperError: the validation failed.
        """
        ...


class Keeper:
    """Saves and validates; all workers call the same methods, the first one alone writes.

    Args:
        stepper: has the weights.
        symbol: the training network.
        checkpoints: where they go.
        workers: this process among the others.
        clock: does not count the time that is spent here.
        resumed: the checkpoint that the run goes on from.
        keep_best: save the weights that do best at validation.
    """

    def __init__(
        self,
        stepper: Stepper,
        symbol: mx.sym.Symbol,
        checkpoints: CheckpointFolder,
        workers: Workers,
        clock: ProgressClock,
        *,
        resumed: Checkpoint | None = None,
        keep_best: bool = True,
    ) -> None:
        self._stepper = stepper
        self._symbol = symbol
        self._checkpoints = checkpoints
        self._workers = workers
        self._clock = clock
        self._keep_best = keep_best
        self._saved = resumed

    def save_update(self, state: RunState) -> None:
        """Writes a checkpoint within an epoch."""
        self._save(self._checkpoints.save_update, state, f"update {state.updates}")

    def save_epoch(self, state: RunState) -> None:
        """Writes the checkpoint of an epoch."""
        self._save(self._checkpoints.save_epoch, state, f"epoch {state.file_epoch}")

    def validate(
        self,
        validation: Validator | None,
        state: RunState,
        log: RunLog | None,
        judged: Callable[[RunState, float], RunState],
    ) -> RunState:
        """Validates the weights of the last checkpoint, averaged ones if the run makes them.

        Args:
            validation: None on the workers that do not write.
            state: where the run stands.
            log: where the figures go.
            judged: says what a value means for the end of the run (`LoopSettings.judged`).

        Returns:
            The state with the outcome; it is saved too, after everything else, so that a run that
            is killed before validates again.
        """
        averaged = self._stepper.averaged_params()
        arg, aux = self._stepper.params() if averaged is None else averaged
        self._workers.average_(aux)
        state = replace(state, validated=state.updates)
        with self._alone("the validation"):
            if validation is not None and log is not None and self._saved is not None:
                outcome = validation.run(arg, aux, state.file_epoch)
                log.validation(state.file_epoch - 1, state.updates, outcome)
                if state.best is None or outcome.value > state.best.value:
                    place = (state.file_epoch, state.updates, outcome.set_name)
                    best = BestModel(*place, outcome.metric, outcome.value, averaged is not None)
                    state = replace(state, best=best)
                    self._save_best(arg, aux, best)
                state = judged(state, outcome.value)
                self._saved = self._checkpoints.save_state(self._saved, state)
        # The first worker alone knows the outcome, and all have to end together.
        known = float(state.unimproved) if self._workers.is_writer else 0.0
        unimproved = int(self._workers.total(np.array([known]))[0])
        return replace(state, unimproved=unimproved)

    def stopped(self) -> TrainingError:
        """The error that ends a stopped run."""
        if not self._workers.is_writer:
            return TrainingError("stopped as requested", where=f"worker {self._workers.rank}")
        return stopped(self._saved and self._saved.path(".params"))

    def _save(
        self, write: Callable[[Snapshot, RunState], Checkpoint], state: RunState, name: str
    ) -> None:
        # Collective, so it stands outside of what the first worker does alone.
        snapshot = self._snapshot()
        with self._alone("the checkpoint"):
            if self._workers.is_writer:
                self._saved = write(snapshot, state)
                logger.info("%s saved: %s", name, self._saved.path(".params"))

    def _save_best(self, arg: dict, aux: dict, best: BestModel) -> None:
        if self._keep_best:
            path = self._checkpoints.save_best(arg, aux, best)
            logger.info("the best so far, %s %.4f: %s", best.metric, best.value, path)

    def _snapshot(self) -> Snapshot:
        arg, aux = self._stepper.params()
        # The running averages of each worker come from its own chips.
        self._workers.average_(aux)
        self._workers.check_same_arrays("the weights", arg, aux)
        averaged = self._stepper.averaged_params()
        check_weights(arg, aux)
        state = self._stepper.state()
        # The first worker saves its part of an unfinished update, and all go on from that part: of
        # equal parts, the means, the sum over the workers is what it was.
        self._workers.average_({n: a for n, a in state.items() if n.startswith(UNFINISHED)})
        return Snapshot(
            self._symbol,
            arg,
            aux,
            state,
            None if averaged is None else (averaged[0], aux),
        )

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Work of the first worker, which the others wait for."""
        with self._clock.pause(), self._workers.long_task(_LONGEST_TASK_S):
            yield
            self._workers.barrier(what, _LONGEST_TASK_S)

"""The trace of a run: digests of its batches and weights, for `sniper reproduce`.

A line for every batch of the first 50 updates after each place that a run can be repeated from
(its start, a resume, the end of an epoch), and later for every 100th update. Weights are looked at
after the first 10 of these updates and after every 5th: they cost more than batches, and what
changes them does so early.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sniper.errors import DataError
from sniper.loader.train import Batch
from sniper.training.digests import ArrayDigest, WeightsDigest, digest_array, digest_weights
from sniper.training.run_log import JsonLines
from sniper.training.run_state import RunState

if TYPE_CHECKING:
    from sniper.training.stepper import Stepper, StepResult

# Updates.
WINDOW = 50
EVERY = 100
_FIRST_WEIGHTS = 10
_WEIGHTS_EVERY = 5

_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, eq=False)
class TraceLine:
    """What is kept of a batch, or of the start of a session (without arrays).

    Attributes:
        session: number of the part of the run that wrote it; a resume begins a new one.
        epoch: counted from 0.
        batch: of the epoch, counted from 0; of a start the first batch that follows.
        update: the update that the batch belongs to, counted from 1; of a start those done.
        arrays: by name.
        updated: whether the weights were updated: not by batches of an unfinished or skipped one.
        weights: after the update; None: not looked at.
    """

    session: int
    epoch: int
    batch: int
    update: int
    arrays: Mapping[str, ArrayDigest]
    updated: bool
    weights: WeightsDigest | None

    @property
    def is_start(self) -> bool:
        """Whether a session begins here."""
        return not self.arrays


class RunTrace:
    """Writes the trace of one session.

    Args:
        path: the file; lines are added.
        session: its number.
        stepper: has the weights.
        state: where the session begins.
    """

    def __init__(self, path: Path, session: int, stepper: Stepper, state: RunState) -> None:
        self._session = session
        self._stepper = stepper
        self._window_from = state.updates
        self._arrays: dict[str, ArrayDigest] | None = None
        self._file = JsonLines(path)
        self._write(state.epoch, state.batch, state.updates, {}, updated=False, weights=True)

    def batch(self, batch: Batch, state: RunState) -> None:
        """Looks at a batch before it is trained.

        Args:
            batch: what comes next.
            state: before it.
        """
        self._arrays = batch_digests(batch) if self._is_due(state.updates) else None

    def trained(self, batch: Batch, result: StepResult, state: RunState) -> None:
        """Writes the line of that batch, where it is due.

        Args:
            batch: it has been trained.
            result: what came of it.
            state: after it.
        """
        if self._arrays is None:
            return
        update = state.updates + (not result.updated)
        weights = result.updated and self._are_weights_due(update)
        self._write(
            *(state.epoch, batch.index, update, self._arrays),
            updated=result.updated,
            weights=weights,
        )

    def checkpoint(self, state: RunState) -> None:
        """From the end of an epoch on a run can be repeated: look closely for a while."""
        self._window_from = state.updates

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._file.close()

    def _is_due(self, updates: int) -> bool:
        return updates < self._window_from + WINDOW or (updates + 1) % EVERY == 0

    def _are_weights_due(self, update: int) -> bool:
        return update <= self._window_from + _FIRST_WEIGHTS or update % _WEIGHTS_EVERY == 0

    def _write(
        self,
        epoch: int,
        batch: int,
        update: int,
        arrays: Mapping[str, ArrayDigest],
        *,
        updated: bool,
        weights: bool,
    ) -> None:
        place = {"session": self._session, "epoch": epoch, "batch": batch, "update": update}
        digests = {name: digest.as_dict() for name, digest in arrays.items()}
        of_weights = digest_weights(self._stepper.weights).as_dict() if weights else None
        what = {"arrays": digests, "updated": updated, "weights": of_weights}
        self._file.write({**place, **what})


def batch_digests(batch: Batch) -> dict[str, ArrayDigest]:
    """Digests of all arrays of a batch, data first."""
    return {name: digest_array(array) for name, array in batch_arrays(batch).items()}


def batch_arrays(batch: Batch) -> dict[str, np.ndarray]:
    """All arrays of a batch, data first."""
    return {**batch.data, **batch.label}


def read_trace(path: Path) -> list[TraceLine]:
    """The lines of a run; a session's last one, cut off when the run was killed, is left out.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(
            "the run has no digests of its batches",
            where=path,
            got=error,
            fix="runs of this version write them; train again to have some",
        ) from error
    read: list[TraceLine] = []
    cut_off = ""
    for number, text in enumerate(lines, 1):
        try:
            line = _line(json.loads(text))
        except _DAMAGED as error:
            if not cut_off:
                cut_off = f"line {number}: {type(error).__name__}: {error}"
            continue
        # The next session begins a new line behind what a killed one has left: no other may miss.
        if cut_off and not line.is_start:
            raise DataError(
                "the digests of a run are damaged",
                where=path,
                got=cut_off,
                expected="the lines that training wrote",
                fix="take the file from a copy: without this line less would be compared",
            )
        cut_off = ""
        read.append(line)
    if not read:
        raise DataError("no line of the digests can be read", where=path)
    return read


def _line(values: Mapping[str, Any]) -> TraceLine:
    weights = values["weights"]
    return TraceLine(
        session=int(values["session"]),
        epoch=int(values["epoch"]),
        batch=int(values["batch"]),
        update=int(values["update"]),
        arrays={name: ArrayDigest.from_dict(digest) for name, digest in values["arrays"].items()},
        updated=bool(values["updated"]),
        weights=None if weights is None else WeightsDigest.from_dict(weights),
    )

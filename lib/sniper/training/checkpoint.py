"""Checkpoints: parameters, optimizer state and where the run stands; all or nothing.

Files in the model folder (`<prefix>` is `--save_prefix`, SNIPER by default):

* `<prefix>-symbol.json`: the network.
* `<prefix>-%04d.params`: after an epoch, 2018 layout with the `_test` pair; `.states` holds the
  optimizer (an `.params`-style dictionary), `.json` the `RunState`.
* `<prefix>-ema-%04d.params`: the moving averages of the weights, when the run makes them.
* `<prefix>-update-%04d.*`: the same three within an epoch, by the number of updates; only the
  newest is kept, and only until the next checkpoint.
* `<prefix>-best.params`, `<prefix>-best.json`: the weights that did best at validation.

A checkpoint is written into a folder of its own first and moved when it is complete; the `.json`
moves last, so that its presence says that the others are there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import mxnet as mx

from sniper.errors import DataError, TrainingError
from sniper.files import atomic_write_text
from sniper.models.weights import (
    Params,
    load_optimizer_arrays,
    read_params,
    with_test_params,
    write_arrays,
    write_params,
)
from sniper.training.run_state import BestModel, RunState, read_run_state

logger = logging.getLogger(__name__)

_TEST_SUFFIX = "_test"


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """The arrays of a checkpoint.

    Attributes:
        symbol: the training network.
        arg, aux: parameters and batch-norm averages by name, as trained.
        optimizer: momenta and what else an update needs, by name.
        averaged: moving averages of arg and aux; None when the run makes none.
    """

    symbol: mx.sym.Symbol
    arg: Params
    aux: Params
    optimizer: Params
    averaged: tuple[Params, Params] | None = None


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk: `<folder>/<stem>.json` and its siblings."""

    stem: Path
    state: RunState

    def path(self, suffix: str) -> Path:
        """`<stem>.params` and its siblings."""
        return self.stem.with_name(self.stem.name + suffix)

    def read_params(self) -> tuple[Params, Params]:
        """Parameters as they were trained (without the `_test` pair).

        Raises:
            DataError: the file is damaged.
        """
        arg, aux = read_params(self.path(".params"))
        return {k: v for k, v in arg.items() if not k.endswith(_TEST_SUFFIX)}, aux

    def read_optimizer(self) -> Params:
        """Arrays of the optimizer by name.

        Raises:
            TrainingError: the file is damaged.
        """
        path = self.path(".states")
        try:
            return load_optimizer_arrays(path)
        except DataError as error:
            raise TrainingError(
                "the optimizer state cannot be read",
                where=path,
                got=error,
                fix="delete this checkpoint's .json file to resume from the one before",
            ) from error


class CheckpointFolder:
    """Reads and writes the checkpoints of one run."""

    def __init__(self, folder: str | Path, prefix: str, keep: int = 0) -> None:
        """`keep` is the number of newest epochs to keep; 0 keeps all."""
        self.folder = Path(folder)
        self.prefix = prefix
        self.keep = keep

    def stem(self, epoch: int) -> Path:
        """`<folder>/<prefix>-0003`: what the files of an epoch begin with."""
        return self.folder / f"{self.prefix}-{epoch:04d}"

    def save_epoch(self, snapshot: Snapshot, state: RunState) -> Checkpoint:
        """Writes the checkpoint of the epoch that `state` is in, drops old ones; returns it.

        Raises:
            TrainingError: it could not be written; the previous checkpoints are untouched.
        """
        epoch = state.file_epoch
        checkpoint = Checkpoint(self.stem(epoch), state)
        with self._staging() as staging:
            files = self._write(staging, snapshot, checkpoint)
            if snapshot.averaged is not None:
                # In front: the .json has to stay the last one that is moved.
                files.insert(0, self._write_weights(staging, self._ema(epoch), *snapshot.averaged))
            self._commit(staging, files)
        self._drop_updates(checkpoint)
        self._drop_epochs(epoch)
        return checkpoint

    def save_update(self, snapshot: Snapshot, state: RunState) -> Checkpoint:
        """Writes a checkpoint within an epoch, in place of the one before; see `save_epoch`."""
        stem = self.folder / f"{self.prefix}-update-{state.updates:04d}"
        checkpoint = Checkpoint(stem, state)
        with self._staging() as staging:
            self._commit(staging, self._write(staging, snapshot, checkpoint))
        self._drop_updates(checkpoint)
        return checkpoint

    def save_state(self, checkpoint: Checkpoint, state: RunState) -> Checkpoint:
        """Puts another run state to a checkpoint that is there."""
        atomic_write_text(checkpoint.path(".json"), state.to_json())
        return Checkpoint(checkpoint.stem, state)

    def save_best(self, arg: Params, aux: Params, best: BestModel) -> Path:
        """Writes the best weights so far and where they come from; returns the weights' path."""
        name = f"{self.prefix}-best.params"
        with self._staging() as staging:
            self._write_weights(staging, self.folder / name, arg, aux)
            about = f"{self.prefix}-best.json"
            atomic_write_text(staging / about, json.dumps(dataclasses.asdict(best), indent=2))
            self._commit(staging, [name, about])
        return self.folder / name

    def newest(self) -> Checkpoint | None:
        """The complete checkpoint with most updates of the last run; None where there is none."""
        checkpoints = [
            Checkpoint(path.with_suffix(""), read_run_state(path))
            for path in sorted(self.folder.glob(f"{self.prefix}-*.json"))
            if self._pattern(r"(?:update-)?\d{4,}").fullmatch(path.stem)
            and all(path.with_suffix(suffix).exists() for suffix in (".params", ".states"))
        ]
        return max(checkpoints, key=_progress, default=None)

    def _pattern(self, rest: str) -> re.Pattern[str]:
        return re.compile(re.escape(self.prefix) + "-" + rest)

    def _ema(self, epoch: int) -> Path:
        return self.folder / f"{self.prefix}-ema-{epoch:04d}.params"

    def _write(self, staging: Path, snapshot: Snapshot, checkpoint: Checkpoint) -> list[str]:
        """Writes all files of a checkpoint; returns their names in the order of moving them."""
        name = checkpoint.stem.name
        symbol = f"{self.prefix}-symbol.json"
        atomic_write_text(staging / symbol, snapshot.symbol.tojson())
        self._write_weights(staging, checkpoint.path(".params"), snapshot.arg, snapshot.aux)
        write_arrays(staging / f"{name}.states", snapshot.optimizer)
        atomic_write_text(staging / f"{name}.json", checkpoint.state.to_json())
        return [symbol, f"{name}.params", f"{name}.states", f"{name}.json"]

    @staticmethod
    def _write_weights(staging: Path, target: Path, arg: Params, aux: Params) -> str:
        write_params(staging / target.name, with_test_params(arg), aux)
        return target.name

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        """A folder for files in the making; what a killed run has left there goes away."""
        folder = self.folder / f".{self.prefix}-saving.tmp"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _commit(self, staging: Path, names: list[str]) -> None:
        """Moves complete files to their places; the last name marks the whole."""
        try:
            # An older checkpoint of the same name is not complete any more from here on.
            (self.folder / names[-1]).unlink(missing_ok=True)
            for name in names:
                os.replace(staging / name, self.folder / name)
        except OSError as error:
            raise TrainingError(
                "a checkpoint could not be moved to its place",
                where=self.folder / names[-1],
                got=str(error),
                fix="check the permissions, then go on with --resume",
            ) from error

    def _drop_updates(self, newest: Checkpoint) -> None:
        """Removes the checkpoints within an epoch, apart from `newest`."""
        names = self._pattern(r"update-\d{4,}")
        for path in self.folder.glob(f"{self.prefix}-update-*.json"):
            if names.fullmatch(path.stem) and path.stem != newest.stem.name:
                _remove(path.with_suffix(""))

    def _drop_epochs(self, epoch: int) -> None:
        if self.keep <= 0:
            return
        names = self._pattern(r"(?:ema-)?(\d{4,})")
        for path in self.folder.glob(f"{self.prefix}-*.params"):
            match = names.fullmatch(path.stem)
            if match and int(match[1]) <= epoch - self.keep:
                _remove(path.with_suffix(""))


def _progress(checkpoint: Checkpoint) -> tuple[int, int, int]:
    # Not by time: clocks go back, and those of several machines differ.
    state = checkpoint.state
    return state.run, state.updates, state.epoch


def _remove(stem: Path) -> None:
    # The state goes first, so that a half-removed checkpoint is never resumed from.
    for suffix in (".json", ".states", ".params"):
        stem.with_name(stem.name + suffix).unlink(missing_ok=True)

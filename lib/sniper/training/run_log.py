"""Figures of a run: progress lines, JSON lines and TensorBoard curves."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sniper.progress import format_time
from sniper.training.pace import Pace
from sniper.training.tensorboard import TensorBoard

logger = logging.getLogger(__name__)


class JsonLines:
    """Appends one JSON object per line; a reader can follow the run while it goes on."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = open(path, "a+b", buffering=0)
        if self._file.tell() and not _ends_with_newline(self._file):
            self._write(b"\n")  # a run was killed in the middle of a line

    def write(self, values: Mapping[str, object]) -> None:
        """Writes one line; a full disk ends the lines, not the run."""
        self._write(json.dumps(values).encode() + b"\n")

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(line)
        except OSError as error:
            self._file.close()
            logger.warning("%s cannot be written any more: %s", self.path, error)


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, 2)
    return file.read(1) == b"\n"


@dataclass(frozen=True)
class Validated:
    """The outcome of a validation.

    Attributes:
        set_name: the set.
        figures: all figures of the report, NaN where the set has no such object.
        metric: name of the figure that chooses the best weights; larger is better.
        took_s: seconds.
    """

    set_name: str
    figures: dict[str, float]
    metric: str
    took_s: float

    @property
    def value(self) -> float:
        """The figure that chooses the best weights; 0 where there is none."""
        value = self.figures[self.metric]
        return 0.0 if math.isnan(value) else value


@dataclass(frozen=True)
class Display:
    """What a progress line tells.

    Attributes:
        epoch: number of the running epoch, from 0.
        batch: batches of it done.
        batches: batches of the epoch.
        update: optimizer updates done in the run.
        lr: learning rate of the last update.
        loss_scale: the gradients' factor in force.
        skipped: updates that dynamic loss scaling has skipped in the run.
        pace: speed and memory.
        metrics: averages since the last progress line.
    """

    epoch: int
    batch: int
    batches: int
    update: int
    lr: float
    loss_scale: float
    skipped: int
    pace: Pace
    metrics: Mapping[str, float]


class RunLog:
    """Writes the figures to every place that is open.

    JSON lines have a `kind`: "train" (one per progress line, averages since the one before),
    "epoch" (averages over an epoch), "validation". `update` counts optimizer updates. After a
    resume or a restart the numbers go on from a smaller update; later lines replace earlier ones.
    """

    def __init__(self, folder: Path, name: str, *, tensorboard: bool) -> None:
        """Opens `<folder>/<name>.jsonl` and, if asked for, `<folder>/tensorboard`."""
        self._json = JsonLines(folder / f"{name}.jsonl")
        self._board = TensorBoard(folder / "tensorboard") if tensorboard else None

    def display(self, shown: Display) -> None:
        """One progress line."""
        pace = shown.pace
        scale = f", loss scale {shown.loss_scale:g}" if shown.loss_scale != 1 else ""
        skipped = f", {shown.skipped} updates skipped" if shown.skipped else ""
        logger.info(
            "epoch %d, batch %d of %d: %s, lr %.4g%s%s, %s",
            *(shown.epoch + 1, shown.batch, shown.batches, pace, shown.lr, scale, skipped),
            format_metrics(shown.metrics),
        )
        run = {
            "lr": shown.lr,
            "loss_scale": shown.loss_scale,
            "skipped": shown.skipped,
            "chips_per_s": round(pace.chips_per_s, 3),
            "data_wait": round(pace.data_wait, 4),
            "memory_gb": round(pace.memory_gb, 3),
        }
        if pace.gpu_memory_gb is not None:
            run["gpu_memory_gb"] = round(pace.gpu_memory_gb, 3)
        place = {"epoch": shown.epoch, "batch": shown.batch, "update": shown.update}
        self._line("train", {**place, **run, **shown.metrics})
        self._curve("train", shown.metrics, shown.update)
        self._curve("run", run, shown.update)

    def epoch(self, epoch: int, update: int, took_s: float, metrics: Mapping[str, float]) -> None:
        """The averages of an epoch (of what this process has trained of it)."""
        logger.info(
            "epoch %d trained in %s: %s",
            *(epoch + 1, format_time(took_s), format_metrics(metrics)),
        )
        place = {"epoch": epoch, "update": update, "took_s": round(took_s, 3)}
        self._line("epoch", {**place, **metrics})
        self._curve("epoch", metrics, update)

    def validation(self, epoch: int, update: int, outcome: Validated) -> None:
        """The result of a validation."""
        place = {"epoch": epoch, "update": update, "set": outcome.set_name}
        # JSON knows no NaN.
        figures = {k: None if math.isnan(value) else value for k, value in outcome.figures.items()}
        self._line("validation", {**place, "took_s": round(outcome.took_s, 3), **figures})
        self._curve("validation", outcome.figures, update)

    def close(self) -> None:
        """Closes all files. Idempotent."""
        self._json.close()
        if self._board is not None:
            self._board.close()

    def _line(self, kind: str, values: Mapping[str, object]) -> None:
        self._json.write({"kind": kind, "time": round(time.time(), 3), **values})

    def _curve(self, group: str, values: Mapping[str, float], update: int) -> None:
        if self._board is not None:
            self._board.write(group, values, update)


def format_metrics(values: Mapping[str, float]) -> str:
    """`RPNAcc=0.9123 RPNLogLoss=0.2345`."""
    return " ".join(f"{name}={value:.4f}" for name, value in values.items())

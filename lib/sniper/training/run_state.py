"""Where a run stands: the small JSON file of a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

from sniper.errors import TrainingError


@dataclasses.dataclass(frozen=True)
class BestModel:
    """The best validation result so far.

    Attributes:
        epoch: epochs that had been trained.
        updates: optimizer updates that had been done.
        set_name: the validation set.
        metric: name of the figure that decides, the larger the better.
        value: its value.
        averaged: whether the weights are moving averages.
    """

    epoch: int
    updates: int
    set_name: str
    metric: str
    value: float
    averaged: bool = False


@dataclasses.dataclass(frozen=True)
class RunState:
    """Where a run stands. Fields with defaults are missing in files of older versions.

    Attributes:
        epoch: epochs done.
        updates: optimizer updates done.
        samples: padded chips of the first epoch; the schedule is derived from it.
        batch_size: chips per batch, all devices and workers together.
        seed: the run's seed; chips and batches of every epoch follow from it.
        batch: batches of the running epoch done; 0 between epochs.
        skipped: updates that dynamic loss scaling has skipped.
        window: sums (numerator, denominator) of the metrics since the last progress line.
        sums: the same since the beginning of the epoch.
        validated: updates that the weights had when they were validated last.
        best: the best validation result.
        saved_at_s: seconds since 1970, for people: clocks go back.
        run: 1 for the first run in a model folder, 2 for the next one that began anew there, ...; a
            resumed run keeps its number. 0: an older version did not count.
        cosine_updates: updates over which a cosine lowers the rate; 0: steps do.
        unimproved: validations since the last one that was better by enough, for early stopping.
        mark: the value that a validation has to exceed then; None: none was validated.
    """

    epoch: int
    updates: int
    samples: int
    batch_size: int
    seed: int
    batch: int = 0
    skipped: int = 0
    window: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    sums: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    validated: int = 0
    best: BestModel | None = None
    saved_at_s: float = 0.0
    run: int = 0
    cosine_updates: int = 0
    unimproved: int = 0
    mark: float | None = None

    @property
    def file_epoch(self) -> int:
        """Number in the names of this epoch's files: 1 for the first, once it has begun."""
        return self.epoch + (self.batch > 0)

    def to_json(self) -> str:
        """The text of the file, with the time of now."""
        dated = dataclasses.replace(self, saved_at_s=time.time())
        return json.dumps(dataclasses.asdict(dated), indent=2)


def read_run_state(path: Path) -> RunState:
    """Reads what `RunState.to_json` has made.

    Raises:
        TrainingError: the file is no run state.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("best") is not None:
            values["best"] = BestModel(**values["best"])
        # JSON has made lists of the pairs.
        for name in ("window", "sums"):
            values[name] = {key: (n, d) for key, (n, d) in values.get(name, {}).items()}
        return RunState(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise TrainingError(
            "the run state cannot be read",
            where=path,
            got=str(error),
            fix="delete this file to resume from the checkpoint before",
        ) from error

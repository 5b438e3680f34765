"""Stops a run whose losses, gradients or weights are not finite, and says what to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import mxnet as mx
import numpy as np

from sniper.errors import TrainingError
from sniper.files import atomic_write
from sniper.loader.train import Batch
from sniper.training.stepper import StepResult

_MOST_NAMES = 5


def check_step(
    batch: Batch, result: StepResult, losses: Mapping[str, float], *, epoch: int, file: Path
) -> None:
    """Looks at what came of a batch.

    Args:
        batch: what was trained on.
        result: what the step gave; an update that dynamic loss scaling skips is no error.
        losses: metrics of this batch.
        epoch: for the message.
        file: the batch is saved there as NPZ when something is wrong.

    Raises:
        TrainingError: a loss is not finite, or a gradient for which no smaller loss scale helps.
    """
    broken = [name for name, value in losses.items() if not np.isfinite(value)]
    if not broken and not result.bad_gradients:
        return
    problem = f"the loss is not finite: {', '.join(broken)}"
    if not broken:
        problem = f"gradients are not finite: {_some(result.bad_gradients)}"
    raise TrainingError(
        problem,
        where=f"epoch {epoch}, batch {batch.index}",
        got=f"images {_images(batch, result.outputs)}",
        fix=f"{_save(batch, file)}; a smaller TRAIN.lr or a longer warm-up often helps; "
        "--resume goes on from the last checkpoint, which is not affected",
    )


def check_weights(*groups: Mapping[str, mx.nd.NDArray]) -> None:
    """Looks through arrays that are going to be saved.

    Raises:
        TrainingError: a value is infinite or NaN.
    """
    broken = [
        name
        for group in groups
        for name, value in group.items()
        if not np.isfinite(value.asnumpy()).all()
    ]
    if broken:
        raise TrainingError(
            "the weights are not finite any more, and are not saved",
            got=_some(broken),
            fix="the last checkpoint is not affected: go on from it with --resume and a smaller "
            "TRAIN.lr",
        )


def _images(batch: Batch, outputs: Mapping[str, np.ndarray]) -> str:
    """The images of the chips with broken outputs or pixels; all where that cannot be told.

    A ReLU makes 0 of NaN: outputs may be sound where gradients are not.
    """
    count = len(batch.image_paths)
    bad = np.zeros(count, bool)
    pixels = [value for name, value in batch.data.items() if name == "data"]
    for value in [*outputs.values(), *pixels]:
        # Outputs of RoIs have several rows for each chip.
        if value.ndim and len(value) and len(value) % count == 0:
            bad |= ~np.isfinite(value.reshape(count, -1)).all(axis=1)
    suspects = bad if bad.any() else np.ones(count, bool)
    paths = {path for path, is_suspect in zip(batch.image_paths, suspects) if is_suspect}
    return ", ".join(sorted(paths))


def _save(batch: Batch, file: Path) -> str:
    try:
        atomic_write(file, lambda temporary: np.savez(temporary, **batch.data, **batch.label))
    except TrainingError as error:  # a full disk must not hide why the run stops
        return f"the batch could not be saved ({error})"
    return f"the batch is saved in {file}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more

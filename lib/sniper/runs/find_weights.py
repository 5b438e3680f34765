"""Which file of weights a run, a tool or the demo takes."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from sniper.config import load_config
from sniper.errors import DataError, TrainingError
from sniper.runs.folders import model_folder
from sniper.training.run_state import read_run_state

logger = logging.getLogger(__name__)


MODELS_FOLDER = Path("output")


HOW_TO_GET_WEIGHTS = (
    "bash scripts/quickstart.sh trains a small model in minutes; "
    "main_train.py --cfg F trains the model of a recipe"
)


ANOTHER_EPOCH = (
    "train first (main_train.py with the same --cfg), or choose what is there: --set "
    "TEST.TEST_EPOCH N, or --weights FILE where the command has it"
)


def find_weights(
    cfg: EasyDict, save_prefix: str, fall_back: Sequence[str] | None
) -> tuple[EasyDict, Path]:
    """Weights and their configuration.

    Args:
        cfg: a configuration.
        save_prefix: stem of the checkpoint files.
        fall_back: when the configuration has no weights, take the newest model under `output/` with
            its own configuration and these overrides (KEY VALUE ...); None: do not.

    Raises:
        DataError: there are no weights.
    """
    try:
        return cfg, weights_path(model_folder(cfg), cfg.TEST.TEST_EPOCH, save_prefix)
    except DataError:
        if fall_back is None:
            raise
    newest = newest_model(MODELS_FOLDER, save_prefix)
    if newest is None:
        raise DataError(
            f"the weights are missing, and no trained model was found under {MODELS_FOLDER}/",
            where=model_folder(cfg),
            fix=HOW_TO_GET_WEIGHTS,
        )
    logger.info("%s has no weights here: the newest trained model is used in its place", cfg.name)
    return load_config(newest.parent / "config.yml", list(fall_back)), newest


def newest_model(folder: Path, save_prefix: str) -> Path | None:
    """Newest `.params` file below `folder` whose folder has a `config.yml`, or None."""
    checkpoints = [
        path
        for path in folder.glob(f"**/{save_prefix}-[0-9][0-9][0-9][0-9].params")
        if (path.parent / "config.yml").exists()
    ]
    if not checkpoints:
        return None
    # Between models the clock decides; within one the run and its epochs do.
    newest = max(checkpoints, key=lambda path: (path.stat().st_mtime, path.name))
    return weights_path(newest.parent, None, save_prefix)


def _of_last_run(folder: Path, save_prefix: str, epochs: Sequence[int]) -> list[int]:
    """Without what earlier runs in the folder have left; files without a state stay."""
    runs: dict[int, int] = {}
    for epoch in epochs:
        # A broken state is told by who resumes from it.
        with contextlib.suppress(OSError, TrainingError):
            runs[epoch] = read_run_state(folder / f"{save_prefix}-{epoch:04d}.json").run
    last = max(runs.values(), default=0)
    return [epoch for epoch in epochs if runs.get(epoch, last) == last]


def weights_path(
    folder: Path, epoch: int | None, save_prefix: str, *, fix: str = ANOTHER_EPOCH
) -> Path:
    """The file of a checkpoint: `<folder>/<prefix>-<epoch>.params`.

    Args:
        folder: of the model.
        epoch: number of the checkpoint; None takes the newest, that is the largest number of the
            last run in the folder: epochs that are finished count, the saved parts of an
            unfinished one do not.
        save_prefix: stem of the file; `<prefix>.params` is taken where no number fits
            (`SNIPER-best`).
        fix: what to do when there is none.

    Raises:
        DataError: there is no such file.
    """
    name = re.compile(re.escape(save_prefix) + r"-(\d{4,})\.params")
    # The names of one folder: a prefix may hold characters that `glob` understands.
    present = sorted(path.name for path in folder.glob("*.params"))
    numbers = [int(match[1]) for match in map(name.fullmatch, present) if match]
    if epoch is None:
        epoch = max(_of_last_run(folder, save_prefix, numbers), default=None)
    without_epoch = folder / f"{save_prefix}.params"
    if epoch in numbers:
        return folder / f"{save_prefix}-{epoch:04d}.params"
    if without_epoch.exists():
        return without_epoch
    raise DataError(
        "the weights are missing",
        where=folder / f"{save_prefix}-{'NNNN' if epoch is None else f'{epoch:04d}'}.params",
        got=f"{', '.join(present)} in that folder" if present else "no weights in that folder",
        fix=fix,
    )

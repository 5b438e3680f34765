"""Results of finished blocks of images on disk, so that a run that was killed can go on."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from sniper.data.npz import read_npz, write_npz
from sniper.errors import DataError
from sniper.inference.stats import RunStats

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_STATS = "stats"
# Of the SHA-256 of a key, for names of folders.
KEY_CHARACTERS = 16


@dataclass(frozen=True)
class BlockStore(Generic[Result]):
    """One file for each finished block.

    Attributes:
        root: the folder of all unfinished runs on a data set.
        key: tells apart everything that the results depend on.
        read: reads the arrays of a result.
    """

    root: Path
    key: str
    read: Callable[[Path], Result]

    @property
    def folder(self) -> Path:
        """Where the blocks of this run are."""
        return self.root / self.key[:KEY_CHARACTERS]

    def path(self, number: int) -> Path:
        """The file of a block."""
        return self.folder / f"block_{number:05d}.npz"

    def save(self, number: int, arrays: Mapping[str, np.ndarray], stats: RunStats) -> None:
        """Keeps a block.

        Raises:
            TrainingError: the file could not be written.
        """
        content = {**arrays, _STATS: np.array(json.dumps(stats.as_dict()))}
        write_npz(self.path(number), content)

    def load(self, number: int) -> tuple[Result, RunStats] | None:
        """A finished block; None if it is not there or, with a warning, damaged."""
        path = self.path(number)
        if not path.exists():
            return None
        try:
            stats = RunStats.from_dict(json.loads(str(read_npz(path, [_STATS])[_STATS])))
            return self.read(path), stats
        except (DataError, ValueError, TypeError) as error:
            logger.warning(
                "a block of images is computed anew, since its file is damaged: %s", error
            )
            return None

    def finished(self, numbers: Iterable[int]) -> set[int]:
        """Those of the blocks that are on disk and good."""
        return {number for number in numbers if self.load(number) is not None}

    def remove(self) -> None:
        """Removes the files, after a run that is complete, and what other runs have left."""
        remove_others(self.root, keep=self.folder.name, what="an unfinished run")
        shutil.rmtree(self.root, ignore_errors=True)


def remove_others(root: Path, *, keep: str, what: str) -> None:
    """Removes the folders beside `keep`, which hold what cannot be used any more."""
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.name != keep:
            logger.info("removed %s with other weights, settings or images: %s", what, folder)
            shutil.rmtree(folder, ignore_errors=True)

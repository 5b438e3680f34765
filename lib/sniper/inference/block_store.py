"""Results of finished blocks of images on disk, so that a run that was killed can go on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

import sniper
from sniper.data import Dataset
from sniper.data.cache import file_sha256
from sniper.data.npz import read_npz, write_npz
from sniper.errors import DataError
from sniper.inference.detector import Detector
from sniper.inference.level import Level
from sniper.inference.run_stats import RunStats

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


# What turns weights and pixels into detections; a change in one of these makes results old.
_CODE = ("boxes.py", "chips", "data", "inference", "loader", "models", "native", "ops")


@dataclass(frozen=True)
class RunKeys:
    """Keys of the results of a run.

    Attributes:
        result: of the detections or proposals.
        levels: of what each level finds, which depends on it and the levels before it.
    """

    result: str
    levels: tuple[str, ...]


def run_keys(
    detector: Detector,
    weights: Path,
    dataset: Dataset,
    blocks: Sequence[Sequence[int]],
    *,
    pixel_means: Sequence[float],
    kind: str,
) -> RunKeys:
    """Keys of everything that a detector finds in a data set.

    Args:
        detector: its network, levels and merging.
        weights: the file that its weights come from.
        dataset: the images; a file that was written to counts as another image.
        blocks: how the images are put together in files. Results do not depend on it.
        pixel_means: subtracted from the images.
        kind: `detections`, or `proposals` and how many.
    """
    common = {
        "version": sniper.__version__,
        "code": _code_sha256(),
        "weights": file_sha256(weights),
        "executor": detector.executor.identity(),
        "classes": list(detector.executor.traits.class_names),
        "pixel_means": [float(mean) for mean in pixel_means],
        "legacy_boxes": detector.legacy_boxes,
        "flip": detector.flip,
        "images": _images_sha256(dataset),
        "blocks": [list(map(int, block)) for block in blocks],
    }
    levels = [repr(replace(level, batch_images=1)) for level in detector.levels]
    # Valid ranges apply when levels are merged.
    raw = [repr(_without_range(level)) for level in detector.levels]
    return RunKeys(
        _sha256({**common, "kind": kind, "levels": levels, "merge": repr(detector.merge)}),
        tuple(_sha256({**common, "levels": raw[: k + 1]}) for k in range(len(raw))),
    )


def _without_range(level: Level) -> Level:
    return replace(level, batch_images=1, valid_range=(-1.0, -1.0))


def _images_sha256(dataset: Dataset) -> str:
    files = [
        [r.image_id, r.width, r.height, r.image_path, *_state(r.image_path)]
        for r in dataset.records
    ]
    return _sha256([dataset.name, files])


def _state(path: str) -> tuple[int, int]:
    """Size and time of a file; one that is missing is reported when it is read."""
    try:
        state = os.stat(path)
    except OSError:
        return -1, -1
    return state.st_size, state.st_mtime_ns


def _code_sha256() -> str:
    digest = hashlib.sha256()
    for path in _code_files(Path(sniper.__file__).parent):
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _code_files(package: Path) -> Iterable[Path]:
    for name in _CODE:
        files = [package / name] if name.endswith(".py") else (package / name).rglob("*")
        yield from sorted(path for path in files if path.suffix in (".py", ".so"))


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

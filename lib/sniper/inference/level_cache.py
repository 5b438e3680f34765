"""What one level found in a block of images, kept so that a later run need not look again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sniper.data.npz import read_npz, write_npz
from sniper.errors import DataError, TrainingError
from sniper.inference.level import Windows
from sniper.inference.merge_levels import LevelDetections

logger = logging.getLogger(__name__)

_ARRAYS = ("windows_of_image", "rows_of_window", "rows", "classes", "next_of_image", "next_windows")


@dataclass(frozen=True, eq=False)
class LevelResult:
    """What a level found in a block of images.

    Attributes:
        parts: per image, in the order of its windows.
        next_windows: per image the FocusChips for the next level, image px; None if the level does
            not choose them.
    """

    parts: list[list[LevelDetections]]
    next_windows: Windows | None


class LevelCache(Protocol):
    """Keeps the results of the levels of one block of images."""

    def load(self, level: int) -> LevelResult | None:
        """The result of a level; None if it has to be computed."""

    def save(self, level: int, result: LevelResult) -> None:
        """Takes a result that was computed."""


class LevelFiles:
    """A file for each level that is to be kept.

    Args:
        paths: level -> file, whose name must tell apart everything that the result depends on.
    """

    def __init__(self, paths: Mapping[int, Path]) -> None:
        self._paths = paths

    def load(self, level: int) -> LevelResult | None:
        """The result of a level; None if there is no file, or, with a warning, a damaged one."""
        path = self._paths.get(level)
        if path is None or not path.exists():
            return None
        try:
            return _from_arrays(level, read_npz(path, _ARRAYS))
        except (DataError, ValueError, IndexError) as error:
            logger.warning("computed anew, since the cache is damaged: %s", error)
            return None

    def save(self, level: int, result: LevelResult) -> None:
        """Writes a result; a file that cannot be written costs time later, but is no error."""
        path = self._paths.get(level)
        if path is None:
            return
        try:
            write_npz(path, _as_arrays(result))
        except TrainingError as error:
            logger.warning("going on without a cache: %s", error)


def _as_arrays(result: LevelResult) -> dict[str, np.ndarray]:
    parts = [part for parts_of_image in result.parts for part in parts_of_image]
    following = result.next_windows or []
    return {
        "windows_of_image": _ends(map(len, result.parts)),
        "rows_of_window": _ends(len(part.rows) for part in parts),
        "rows": np.concatenate([np.zeros((0, 5), np.float32), *(part.rows for part in parts)]),
        "classes": np.concatenate([np.zeros(0, np.int32), *(part.classes for part in parts)]),
        # Empty where the level does not choose windows; with no image at all it is one 0.
        "next_of_image": np.zeros(0, np.int64)
        if result.next_windows is None
        else _ends(map(len, following)),
        "next_windows": np.array(
            [window for of_image in following for window in of_image], np.float64
        ).reshape(-1, 4),
    }


def _from_arrays(level: int, arrays: Mapping[str, np.ndarray]) -> LevelResult:
    rows = _split(arrays["rows"], arrays["rows_of_window"])
    classes = _split(arrays["classes"], arrays["rows_of_window"])
    parts = [
        [
            LevelDetections(level, chip, *rows_and_classes)
            for chip, rows_and_classes in enumerate(zip(rows[start:stop], classes[start:stop]))
        ]
        for start, stop in _spans(arrays["windows_of_image"])
    ]
    if not len(arrays["next_of_image"]):
        return LevelResult(parts, None)
    windows = _split(arrays["next_windows"], arrays["next_of_image"])
    return LevelResult(parts, [list(map(tuple, of_image.tolist())) for of_image in windows])


def _ends(lengths: Iterable[int]) -> np.ndarray:
    return np.cumsum([0, *lengths], dtype=np.int64)


def _spans(offsets: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(offsets[:-1].tolist(), offsets[1:].tolist()))


def _split(array: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    return [array[start:stop] for start, stop in _spans(offsets)]

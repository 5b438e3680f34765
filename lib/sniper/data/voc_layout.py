"""The layout of Pascal VOC: where a set lives, what its list names, which classes it has."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from sniper.data.dataset import BACKGROUND
from sniper.data.ids import stable_ids
from sniper.data.image_endings import has_image_ending
from sniper.data.listings import read_class_list, read_lines
from sniper.data.problems import DUPLICATE_NAME, OnProblem, Problem, stop_at_errors
from sniper.errors import DataError

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)

_SET_NAME = re.compile(r"([A-Za-z0-9]+)_([A-Za-z0-9_][A-Za-z0-9_.-]*)")
# The list of one class has a flag behind every name.
_FLAGGED = re.compile(r"(\S+)\s+[-+]?[01]")
# Other tools list the files: VOC2007/JPEGImages/000005.jpg, Annotations\000005.xml.
_FOLDERS = re.compile(r"^(?:.*/)?(?:JPEGImages|Annotations)/")
# The names of VOC are numbers, which serve as ids: 000005 and 2008_000008.
_NUMBERED = re.compile(r"(?:\d{4}_)?\d{6}")


@dataclass(frozen=True)
class VocLayout:
    """Where a set lives: `VOC<year>/ImageSets/Main/<subset>.txt`."""

    root: Path
    year: str
    subset: str

    @property
    def name(self) -> str:
        """The set's name."""
        return f"PASCALVOC_{self.year}_{self.subset}"

    @property
    def list_path(self) -> Path:
        """The list of its images."""
        return self.root / "ImageSets" / "Main" / f"{self.subset}.txt"

    def class_names(self) -> tuple[str, ...]:
        """With the background: those of `classes.txt`, or the 20 of VOC."""
        return (BACKGROUND, *(read_class_list(self.root, self.root.parent) or VOC_CLASSES))


def parse_set(image_set: str) -> tuple[str, str]:
    """Year and set of a name: `07_test` -> ("2007", "test").

    Raises:
        DataError: it is no such name.
    """
    match = _SET_NAME.fullmatch(image_set)
    if match is None:
        raise DataError(
            "a Pascal VOC set is named by its year and its list",
            where="dataset.image_set or dataset.test_image_set",
            got=repr(image_set),
            expected="2007_trainval, 2012_val, ...",
        )
    year, subset = match.groups()
    return (f"20{year}" if re.fullmatch(r"[01]\d", year) else year), subset


def read_image_list(path: Path, on_problem: OnProblem = stop_at_errors) -> tuple[str, ...]:
    """Names of the images in a list of `ImageSets/Main`; a class's flags are ignored.

    Files that are listed with their folder or ending (`JPEGImages/000005.jpg`) give their names.

    Args:
        path: the list.
        on_problem: hears of names that stand there twice; when it comes back, once counts.

    Raises:
        DataError: the list is missing, empty or broken.
    """
    lines = read_lines(path, "list of images")
    flagged = [match[1] for match in map(_FLAGGED.fullmatch, lines) if match]
    names = [_bare(name) for name in (flagged if len(flagged) == len(lines) else lines)]
    outside = [name for name in names if _leaves_folder(name)]
    if not names:
        raise _broken_list(path, "no name")
    if outside:
        raise _broken_list(path, f"{outside[0]!r}, which leaves the folder of the images")
    uses = Counter(names)
    if len(uses) < len(names):
        texts = [f"{name}: {count} times" for name, count in uses.items() if count > 1]
        error = _broken_list(path, f"{len(names) - len(uses)} names that stood there before")
        on_problem(Problem(DUPLICATE_NAME, path.name, len(texts), texts, error))
    return tuple(uses)


def _broken_list(path: Path, problem: str) -> DataError:
    return DataError("the list of images is broken", where=path, got=problem)


def _bare(name: str) -> str:
    """What image and annotation have in common."""
    name = _FOLDERS.sub("", name.replace("\\", "/"))
    stem, ending = os.path.splitext(name)
    return stem if has_image_ending(name) or ending.lower() == ".xml" else name


def _leaves_folder(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def voc_image_ids(names: tuple[str, ...]) -> np.ndarray:
    """The numbers of VOC names; other names are hashed."""
    if all(map(_NUMBERED.fullmatch, names)):
        return np.array([int(name.replace("_", "")) for name in names], np.int64)
    return stable_ids(names)

"""The development kit of the ILSVRC detection challenge (DET): classes, lists, blacklist."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.listings import read_lines
from sniper.data.matlab import read_matlab
from sniper.errors import DataError

KIT_FOLDER = "ILSVRC2014_devkit"
NUM_DET_CLASSES = 200

_LISTS = Path("data") / "det_lists"
_META, _META_JSON = Path("data") / "meta_det.mat", Path("data") / "det_200_classes.json"
_BLACKLIST = Path("data") / "ILSVRC2014_det_validation_blacklist.txt"


@dataclass(frozen=True)
class DetClass:
    """A class of the challenge: its id in result files, its WordNet id, its name."""

    number: int
    wnid: str
    name: str


@dataclass(frozen=True, eq=False)
class IlsvrcTruth:
    """What the ILSVRC evaluation of a set needs beside the records, whose ids are image numbers.

    Attributes:
        class_names: K names of the classes that are evaluated.
        class_numbers: (K,) int64 their ids in result files, rising.
        evaluated_as: (C,) int32: each class of the set as one that is evaluated, 1 ... K; 0 for the
            background and classes that are none.
        listed: (L,) int64 numbers that images may have, rising; also of those not in the set.
        image_ids: (N,) int64, the image of each object.
        classes: (N,) int32, 1 ... K.
        boxes: (N, 4) float64 x1 y1 x2 y2 as annotated, inclusive.
        blacklist: (B, 2) int64 image and class 1 ... K that are not evaluated.
        first_px: number of the first pixel in result files. ImageNet's annotations count from 0
            (of 26,782 validation boxes 1,858 begin there, none ends at the image's width), and
            files are compared with them as they are; the files of 2018 counted from 1.
    """

    class_names: tuple[str, ...]
    class_numbers: np.ndarray
    evaluated_as: np.ndarray
    listed: np.ndarray
    image_ids: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    blacklist: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    first_px: int = 0


@dataclass(frozen=True, eq=False)
class DevKit:
    """A development kit.

    Attributes:
        root: its folder, with `data/det_lists`.
        classes: the classes of the challenge, by rising number.
        descendants: number of each class -> WordNet ids that the kit's hierarchy has below it and
            of the class itself.
        names: WordNet id -> name, of all synsets of the kit.
    """

    root: Path
    classes: tuple[DetClass, ...]
    descendants: Mapping[int, frozenset[str]]
    names: Mapping[str, str]

    def list_path(self, name: str) -> Path:
        """The list of a set: `val`, `ilsvrc13_val2`, ..."""
        return self.root / _LISTS / f"{name}.txt"

    def list_names(self) -> list[str]:
        """All validation lists of the kit."""
        return sorted(path.stem for path in (self.root / _LISTS).glob("*val*.txt"))

    def read_list(self, name: str) -> dict[str, int]:
        """Image -> its number: the second word of a line, or the number of the line.

        Raises:
            DataError: the list is missing or broken.
        """
        return read_numbered_list(self.list_path(name))

    def blacklist(self) -> list[tuple[int, str]]:
        """Number of an image and WordNet id of the class that is not evaluated in it.

        The kits of 2013 and 2014 have such a list for the validation images; none means nothing.

        Raises:
            DataError: it is broken.
        """
        path = self.root / _BLACKLIST
        if not path.is_file():
            return []
        pairs = []
        for number, line in enumerate(read_lines(path, "blacklist"), start=1):
            words = line.split()
            if len(words) != 2 or not words[0].isdecimal():
                raise DataError(
                    "the blacklist is broken",
                    where=f"{path}, line {number}",
                    got=repr(line),
                    expected="number of an image, WordNet id of a class",
                )
            pairs.append((int(words[0]), words[1]))
        return pairs


def find_kit(*folders: Path) -> Path | None:
    """The first of the folders that is a development kit, or has one in it."""
    for folder in folders:
        for candidate in (folder, folder / KIT_FOLDER):
            if (candidate / _LISTS).is_dir():
                return candidate
    return None


def read_kit(root: Path) -> DevKit:
    """Reads a development kit.

    Args:
        root: its folder, with `data/meta_det.mat` (or, without hierarchy, `det_200_classes.json`).

    Raises:
        DataError: the classes are missing or broken.
    """
    if (root / _META).is_file():
        return _kit_of_meta(root)
    path = root / _META_JSON
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        classes = [DetClass(int(e["id"]), str(e["wnid"]), str(e["name"])) for e in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            "the classes of the development kit cannot be read",
            where=path,
            got=error,
            expected=f"{root / _META}, or a JSON list of objects with id, wnid and name",
        ) from error
    below = {c.number: frozenset([c.wnid]) for c in classes}
    return DevKit(root, _checked(classes, path), below, {c.wnid: c.name for c in classes})


def _kit_of_meta(root: Path) -> DevKit:
    path = root / _META
    try:
        entries = read_matlab(path)["synsets"]
        # SciPy gives an array of one structure as the structure.
        entries = [entries] if isinstance(entries, Mapping) else entries
        synsets = {_number(entry): entry for entry in entries}
        classes = [
            DetClass(number, str(entry["WNID"]), str(entry["name"]))
            for number, entry in synsets.items()
            if number <= NUM_DET_CLASSES
        ]
        below = {c.number: _below(c.number, synsets) for c in classes}
        names = {str(entry["WNID"]): str(entry["name"]) for entry in synsets.values()}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            "the classes of the development kit cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="`synsets` with ILSVRC2014_DET_ID, WNID, name and children",
        ) from error
    return DevKit(root, _checked(classes, path), below, names)


def _number(synset: Mapping[str, Any]) -> int:
    """Its id; the kit of 2013 has its own name for the same."""
    for year in (2014, 2013):
        if f"ILSVRC{year}_DET_ID" in synset:
            return int(np.asarray(synset[f"ILSVRC{year}_DET_ID"]).item())
    raise KeyError("ILSVRC2014_DET_ID")


def _below(number: int, synsets: Mapping[int, Mapping[str, Any]]) -> frozenset[str]:
    """WordNet ids of a synset and of all below it."""
    seen, waiting = set(), [number]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += np.asarray(synsets[current]["children"]).ravel().astype(int).tolist()
    return frozenset(str(synsets[i]["WNID"]) for i in seen)


def _checked(classes: Sequence[DetClass], path: Path) -> tuple[DetClass, ...]:
    ordered = tuple(sorted(classes, key=lambda c: c.number))
    names, wnids = {c.name for c in ordered}, {c.wnid for c in ordered}
    if not ordered or not len(ordered) == len(names) == len(wnids):
        raise DataError(
            "the classes of the development kit are broken",
            where=path,
            got=f"{len(ordered)} classes with {len(names)} names and {len(wnids)} WordNet ids",
            expected="different ones",
        )
    return ordered


def read_numbered_list(path: Path) -> dict[str, int]:
    """Name of each image of a list -> its number: the second word, or the number of the line.

    Raises:
        DataError: the list is missing or empty, or a name or number is there twice.
    """
    numbers: dict[str, int] = {}
    lines = read_lines(path, "list of images")
    for place, line in enumerate(lines, start=1):
        words = line.split()
        has_number = len(words) == 2 and words[1].isdecimal()
        if len(words) != 1 and not has_number:
            raise _broken_list(path, repr(line))
        numbers[words[0]] = int(words[1]) if has_number else place
    if not numbers or len(set(numbers.values())) < len(lines):
        raise _broken_list(path, "nothing" if not lines else "a name or a number twice")
    return numbers


def _broken_list(path: Path, got: str) -> DataError:
    return DataError(
        "the list of images is broken", where=path, got=got, expected="lines `image number`"
    )

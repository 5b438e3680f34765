"""Classes beside the weights, so that a model can be used without its data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sniper.data.classes import Classes, numbered_class_names
from sniper.data.dataset import BACKGROUND
from sniper.data.ids import FileId, file_id
from sniper.errors import DataError
from sniper.files import atomic_write_text

FILE_NAME = "classes.json"
# As in COCO files: [{"id": 3, "name": "cat"}, ...], without the background.
CATEGORIES_NAME = "categories.json"

__all__ = [
    "check_class_names",
    "numbered_class_names",
    "read_class_names",
    "read_classes",
    "write_class_names",
    "write_classes",
]


def write_classes(folder: Path, classes: Classes) -> None:
    """Writes `classes.json` and, where the category ids are known, `categories.json`."""
    if classes.ids is not None:
        pairs = zip(classes.ids[1:], classes.names[1:])
        entries = [{"id": identity, "name": name} for identity, name in pairs]
        atomic_write_text(folder / CATEGORIES_NAME, json.dumps(entries, indent=1))
    write_class_names(folder, classes.names)


def read_classes(folder: Path, num_classes: int) -> Classes | None:
    """Classes of a model folder; None where it has none (a 2018 release).

    Args:
        folder: of the weights.
        num_classes: of the network, with the background.

    Raises:
        DataError: the files are broken, or are not those of the network.
    """
    path = folder / FILE_NAME
    names = read_class_names(folder)
    if names is None:
        return None
    check_class_names(names, num_classes, path)
    return Classes(names, _read_ids(folder / CATEGORIES_NAME, names), str(path))


def check_class_names(names: Sequence[str], num_classes: int, where: str | Path) -> None:
    """Compares the names of a model with its network.

    Raises:
        DataError: they are too few or too many, the background is not the first, or one is there
            twice.
    """
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    problem = None
    if len(names) != num_classes:
        problem = f"{len(names)} names: {', '.join(names[:5])}{', ...' if names[5:] else ''}"
    elif names[0] != BACKGROUND:
        problem = f"{names[0]!r} in front"
    elif twice:
        problem = f"{twice[0]!r} twice"
    if problem is not None:
        raise DataError(
            "the class names are not those of the network",
            where=where,
            got=problem,
            expected=f"{num_classes} names (dataset.NUM_CLASSES), {BACKGROUND} in front",
            fix="put the class list of the training run there, or use the recipe that the weights "
            "were trained with",
        )


def write_class_names(folder: Path, class_names: tuple[str, ...]) -> None:
    """Writes `classes.json` (index 0 is the background)."""
    atomic_write_text(folder / FILE_NAME, json.dumps(list(class_names), indent=1))


def read_class_names(folder: Path) -> tuple[str, ...] | None:
    """Class names of a model folder; None where it has none (a 2018 release).

    Raises:
        DataError: the file is no list of names.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    names = _read_json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError("the class names must be a list of strings", where=path, got=names)
    return tuple(names)


def _read_ids(path: Path, names: tuple[str, ...]) -> tuple[FileId, ...] | None:
    """Category ids of the names; None where nobody wrote them (older versions)."""
    if not path.exists():
        return None
    entries = _read_json(path)
    try:
        pairs = [(file_id(entry["id"]), entry["name"]) for entry in entries]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            "the categories must be a list of objects with id and name",
            where=path,
            got=repr(entries)[:200],
        ) from error
    if tuple(name for _, name in pairs) != names[1:]:
        raise DataError(
            f"{CATEGORIES_NAME} and {FILE_NAME} do not name the same classes",
            where=path,
            got=", ".join(str(name) for _, name in pairs[:10]),
            expected=", ".join(names[1:11]),
            fix=f"change both alike, or remove {CATEGORIES_NAME}",
        )
    return (0, *(identity for identity, _ in pairs))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError("the class names cannot be read", where=path, got=error) from error

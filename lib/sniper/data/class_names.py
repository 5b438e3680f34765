"""Class names beside the weights, so that a model can be used without its data set."""

from __future__ import annotations

import json
from pathlib import Path

from sniper.data import BACKGROUND
from sniper.errors import DataError
from sniper.files import atomic_write_text

FILE_NAME = "classes.json"


def write_class_names(folder: Path, class_names: tuple[str, ...]) -> None:
    """Writes `classes.json` (index 0 is the background)."""
    atomic_write_text(folder / FILE_NAME, json.dumps(list(class_names), indent=1))


def numbered_class_names(num_classes: int) -> tuple[str, ...]:
    """Names for classes that nobody named: `class 1`, `class 2`, ..."""
    return (BACKGROUND, *(f"class {index}" for index in range(1, num_classes)))


def read_class_names(folder: Path) -> tuple[str, ...] | None:
    """Class names of a model folder; None where it has none (a 2018 release).

    Raises:
        DataError: the file is no list of names.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError("the class names cannot be read", where=path, got=error) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError("the class names must be a list of strings", where=path, got=names)
    return tuple(names)

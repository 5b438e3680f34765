"""The official tables of Open Images as arrays: boxes, verified labels, classes, the hierarchy.

Millions of rows are read by pandas, which only this format needs.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

# The root of the official hierarchy: every object is one, so it is no class.
ROOT = "/m/0bl9f"

_BOX_COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_GROUP_COLUMN = "IsGroupOf"
_LABEL_COLUMNS = ("ImageID", "LabelName", "Confidence")
# `train-annotations-bbox.csv`, `oidv6-train-annotations-human-imagelabels-boxable.csv`,
# `challenge-2019-validation-detection-bbox.csv`
_FILE_NAME = re.compile(
    r"(?:oidv\d+-|challenge-\d{4}-)*(?P<set>[^-]+)-(?:annotations|detection)-"
    r"(?P<kind>bbox|human-imagelabels)(?:-boxable)?\.csv(?:\.gz)?"
)
_BOXES, _LABELS = "bbox", "human-imagelabels"


@dataclass(frozen=True)
class ClassList:
    """The classes that boxes can have.

    Attributes:
        ids: machine ids, `/m/011k07`, in the order of the file: class 1 is the first.
        names: what people call them.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class BoxRows:
    """N boxes, in the order of the file.

    Attributes:
        images: (N,) index into `image_ids`.
        labels: (N,) index into `label_ids`.
        boxes: (N, 4) float32 or float64 x1 y1 x2 y2, shares of the image's sides.
        groups: (N,) bool: the box is around several objects; None where the file does not say.
        image_ids: by index.
        label_ids: machine ids by index.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    groups: np.ndarray | None
    image_ids: np.ndarray
    label_ids: np.ndarray


@dataclass(frozen=True, eq=False)
class LabelRows:
    """What people have verified of whole images.

    Attributes:
        images: (N,) index into `image_ids`.
        labels: (N,) index into `label_ids`.
        present: (N,) bool: the class is in the image; else it is known not to be.
        image_ids: by index.
        label_ids: machine ids by index.
    """

    images: np.ndarray
    labels: np.ndarray
    present: np.ndarray
    image_ids: np.ndarray
    label_ids: np.ndarray


@dataclass(frozen=True, eq=False)
class ImageRows:
    """What a table says of images.

    Attributes:
        image_ids: (n,) texts.
        sizes: (n, 2) int64 width and height, px; 0 where the table does not say.
        file_names: of each; None where the table does not say.
    """

    image_ids: np.ndarray
    sizes: np.ndarray
    file_names: list[str] | None


@dataclass(frozen=True)
class SetFiles:
    """The files of one set; `labels` is None where there are none."""

    name: str
    boxes: Path
    labels: Path | None


def find_sets(folder: Path) -> dict[str, SetFiles]:
    """The sets whose official files lie in a folder or one below it, by name.

    Raises:
        DataError: two files say the same of one set.
    """
    found: dict[tuple[str, str], Path] = {}
    for path in sorted([*folder.glob("*.csv*"), *folder.glob("*/*.csv*")]):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            continue
        key = (match["set"], match["kind"])
        if key in found:
            raise DataError(
                "two files hold the same of one set",
                where=folder,
                got=f"{found[key]} and {path}",
                fix="leave one there",
            )
        found[key] = path
    return {
        name: SetFiles(name, path, found.get((name, _LABELS)))
        for (name, kind), path in found.items()
        if kind == _BOXES
    }


def find_file(folder: Path, pattern: str) -> Path | None:
    """The only file of a pattern in a folder or one below it, or None."""
    paths = sorted([*folder.glob(pattern), *folder.glob(f"*/{pattern}")])
    if len(paths) > 1:
        raise DataError(
            "several files have this name",
            where=folder,
            got=", ".join(map(str, paths)),
            fix="leave one there",
        )
    return paths[0] if paths else None


def read_classes(path: Path) -> ClassList:
    """`class-descriptions-boxable.csv`: lines `id,name`, with or without a line of titles.

    Raises:
        DataError: the file cannot be read, or an id or name is empty or there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError("the classes cannot be read", where=path, got=error) from error
    pairs = [line.partition(",")[::2] for line in lines if line.strip()]
    pairs = pairs[1:] if pairs and pairs[0][0] == "LabelName" else pairs
    ids, names = [a.strip() for a, _ in pairs], [_unquoted(b) for _, b in pairs]
    if not pairs or not all(ids) or not all(names) or len({*ids}) < len(ids):
        raise DataError(
            "the classes are broken",
            where=path,
            got=f"{len(ids)} lines with {len({*ids})} ids",
            expected="lines `/m/011k07,Tortoise` with different ids",
        )
    return ClassList(tuple(ids), tuple(names))


def _unquoted(name: str) -> str:
    name = name.strip()
    return name[1:-1].replace('""', '"') if name[:1] == '"' == name[-1:] else name


def read_hierarchy(path: Path) -> dict[str, frozenset[str]]:
    """Machine id -> all classes above it, without the root; a class may have several parents.

    Only `Subcategory` counts: what is `Part` of an object is none of its kinds.

    Raises:
        DataError: the file cannot be read, or is no such tree.
    """
    above: dict[str, set[str]] = {}

    def walk(node: Mapping[str, Any], ancestors: tuple[str, ...]) -> None:
        name = node["LabelName"]
        above.setdefault(name, set()).update(ancestors)
        for child in node.get("Subcategory", ()):
            walk(child, (*ancestors, name))

    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        top = tree["LabelName"]
        walk(tree, ())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            "the hierarchy of classes cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="the official JSON tree of LabelName and Subcategory",
        ) from error
    # Another part of the tree may know more of a class's parents: those of all its places count.
    while True:
        grown = {name: set().union(own, *(above[a] for a in own)) for name, own in above.items()}
        if grown == above:
            break
        above = grown
    return {name: frozenset(own - {top, ROOT}) for name, own in above.items() if name != top}


def read_boxes(path: Path, *, shares: type[np.floating[Any]] = np.float32) -> BoxRows:
    """A table of boxes, in its official columns.

    A box counts as one of a group where `IsGroupOf` is 1. Official tables have -1 for "unknown";
    where the column or a value is missing, a warning says so.

    Args:
        path: the file.
        shares: of the boxes; float64 has the numbers as they are written.

    Raises:
        ConfigError: pandas is not installed.
        DataError: the file cannot be read, or columns or values are wrong.
    """
    table = _read(path, _BOX_COLUMNS, optional=(_GROUP_COLUMN,), shares=shares)
    # Official order: x1, x2, y1, y2.
    boxes = np.stack([table[name].to_numpy() for name in ("XMin", "YMin", "XMax", "YMax")], axis=1)
    wrong = ~np.isfinite(boxes).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            "a box has no numbers", where=f"{path}, line {row + 2}", got=boxes[row].tolist()
        )
    return BoxRows(*_codes(table), boxes, _groups(table, path), *_names(table))


def _groups(table: Any, path: Path) -> np.ndarray | None:
    """(N,) bool: a group; None without the column."""
    if _GROUP_COLUMN not in table:
        logger.warning("%s has no IsGroupOf: no box is taken for one of a group", path)
        return None
    flags = table[_GROUP_COLUMN].to_numpy()
    missing = np.isnan(flags)
    if missing.any():
        logger.warning(
            "%s: %d of %d boxes have no value of IsGroupOf (the first in line %d): they are taken "
            "for single objects",
            *(path, np.count_nonzero(missing), len(missing), int(missing.argmax()) + 2),
        )
    return flags > 0


def read_labels(path: Path) -> LabelRows:
    """A table of labels that people have verified; confidence 1: present, 0: absent.

    Raises:
        ConfigError: pandas is not installed.
        DataError: the file cannot be read, or columns or values are wrong.
    """
    table = _read(path, _LABEL_COLUMNS)
    present = table["Confidence"].to_numpy() >= 0.5
    return LabelRows(*_codes(table), present, *_names(table))


def read_boxes_2018(path: Path) -> tuple[BoxRows, np.ndarray]:
    """The table of the 2018 program, which had no titles; boxes in px, x1 y1 x2 y2.

    Returns:
        The boxes, and (N, 2) width and height of each one's image, px.

    Raises:
        ConfigError: pandas is not installed.
        DataError: the file cannot be read, or values are wrong.
    """
    names = ("ImageID", "LabelName", "x1", "y1", "x2", "y2", "group", "height", "width")
    table = _parsed(path, names, np.float32, names=list(names), header=None)
    boxes = table[["x1", "y1", "x2", "y2"]].to_numpy()
    sizes = table[["width", "height"]].to_numpy().astype(np.int64)
    groups = table["group"].to_numpy() > 0
    return BoxRows(*_codes(table), boxes, groups, *_names(table)), sizes


def read_images(path: Path) -> ImageRows:
    """A table of images: ImageID, and FileName, Width and Height where it has them.

    Raises:
        ConfigError: pandas is not installed.
        DataError: the file cannot be read.
    """
    pandas = import_pandas(path)
    texts = dict.fromkeys(("ImageID", "FileName"), str)
    try:
        table = pandas.read_csv(path, dtype=texts, keep_default_na=False)
        sizes = np.zeros((len(table), 2), np.int64)
        if {"Width", "Height"} <= set(table.columns):
            sizes = table[["Width", "Height"]].to_numpy(np.int64)
        named = table["FileName"].tolist() if "FileName" in table.columns else None
        return ImageRows(table["ImageID"].to_numpy(object), sizes, named)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            "a table of images cannot be read",
            where=path,
            got=error,
            expected="a CSV file with the columns ImageID, and FileName, Width, Height if known",
        ) from error


def _codes(table: Any) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (table[name].cat.codes.to_numpy() for name in ("ImageID", "LabelName"))
    return images, labels


def _names(table: Any) -> tuple[np.ndarray, np.ndarray]:
    # Python's texts: NumPy's take four bytes a letter.
    ids = (table[name].cat.categories.to_numpy(object) for name in ("ImageID", "LabelName"))
    images, labels = ids
    return images, labels


def import_pandas(path: Path) -> Any:
    """Raises ConfigError where pandas is not installed, or reads ids as numbers: 0012 as 12."""
    fix = 'pip install "sniper-mxnet[openimages]", or pip install "pandas<3"'
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise ConfigError(
            "tables of Open Images are read by pandas, which cannot be imported",
            where=path,
            got=error,
            fix=fix,
        ) from error
    if int(pandas.__version__.partition(".")[0]) >= 3:
        raise ConfigError(
            "pandas 3 takes ids of images for numbers, and 0012 for 12",
            where=path,
            got=f"pandas {pandas.__version__}",
            fix=fix,
        )
    return pandas


def _read(
    path: Path,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    shares: type[np.floating[Any]] = np.float32,
) -> Any:
    pandas = import_pandas(path)
    try:
        present = pandas.read_csv(path, nrows=0).columns
    except (OSError, ValueError) as error:
        raise _unreadable(path, columns, error) from error
    missing = [name for name in columns if name not in present]
    if missing:
        got = f"no column {', '.join(missing)}; there are {', '.join(present)}"
        raise _unreadable(path, columns, got)
    wanted = [*columns, *(name for name in optional if name in present)]
    return _parsed(path, wanted, shares, usecols=wanted)


def _parsed(
    path: Path, columns: Sequence[str], numbers: type[np.floating[Any]], **options: Any
) -> Any:
    """The table: ids as categories, all else as numbers; float32 are as much as training needs."""
    ids = ("ImageID", "LabelName")
    kinds = {name: "category" if name in ids else numbers for name in columns}
    if numbers is np.float64:
        # What Python makes of the texts: pandas' own numbers may differ in the last bit.
        options["float_precision"] = "round_trip"
    try:
        table = import_pandas(path).read_csv(path, dtype=kinds, **options)
        if any((table[name].cat.codes < 0).any() for name in ids):
            raise ValueError("a row without image or label")
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        raise _unreadable(path, columns, error) from error
    return table


def _unreadable(path: Path, columns: Sequence[str], got: object) -> DataError:
    return DataError(
        "a table of Open Images cannot be read",
        where=path,
        got=got,
        expected=f"a CSV file with the columns {', '.join(columns)}",
    )

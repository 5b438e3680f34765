"""Pictures without boxes: a folder for each class, and which of them are held out."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sniper.data.folder_walk import walk_images
from sniper.data.image_endings import IMAGE_ENDINGS
from sniper.data.listings import listed_path, read_lines
from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HoldOut:
    """Which pictures of a class measure instead of teach.

    Attributes:
        share: of the pictures, the first ones by name (2018 behaviour).
        learn_from: so many, the last ones by name, teach and all others measure; None: see `share`.
        files: these measure; None: see `share`.
    """

    share: float = 0.4
    learn_from: int | None = None
    files: Collection[Path] | None = None

    def split(self, files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
        """Those that teach and those that measure."""
        if self.files is not None:
            is_held_out = [file.resolve() in self.files for file in files]
            teach = [file for file, is_out in zip(files, is_held_out) if not is_out]
            return teach, [file for file, is_out in zip(files, is_held_out) if is_out]
        count = math.floor(self.share * len(files))
        if self.learn_from is not None:
            count = max(0, len(files) - self.learn_from)
        return list(files[count:]), list(files[:count])


def class_folders(folder: str | Path) -> dict[str, list[Path]]:
    """Pictures of every class by its name, classes and pictures by name.

    A folder of folders has a class in each of them; a folder of pictures is one class. Links are
    followed, drawings of `sniper detect` are left out, and so are pictures beside folders, and
    folders without pictures: both are told.

    Raises:
        DataError: there is no such folder, or no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("there is no such folder of pictures", where=folder)
    below = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    beside = _pictures(folder)
    classes = {path.name: _pictures(path) for path in below}
    empty = [name for name, files in classes.items() if not files]
    classes = {name: files for name, files in classes.items() if files}
    if not classes and beside:
        return {folder.resolve().name: beside}
    if not classes:
        raise DataError(
            "no pictures were found",
            where=folder,
            got=f"{len(below)} folders",
            expected=f"a folder for each class with {', '.join(sorted(IMAGE_ENDINGS))} in it",
        )
    if empty:
        logger.warning("folders without pictures, left out: %s", ", ".join(empty))
    if beside:
        logger.warning(
            "%s: %d pictures beside the folders of classes, left out", folder, len(beside)
        )
    return classes


def pictures_of(folder: str | Path) -> list[Path]:
    """Pictures of a folder and of those in it, by name.

    Raises:
        DataError: there are none.
    """
    return [file for files in class_folders(folder).values() for file in files]


def read_file_list(path: str | Path) -> set[Path]:
    """Paths of a text file, one a line, relative to its own folder.

    Raises:
        DataError: it cannot be read, or names a file that is not there.
        ConfigError: it names none.
    """
    path = Path(path)
    names = read_lines(path, "list of pictures")
    files = [Path(listed_path(path.parent, name)).resolve() for name in names]
    missing = [name for name, file in zip(names, files) if not file.is_file()]
    if missing:
        raise DataError(
            "a list of pictures names files that are not there",
            where=path,
            got=", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else ""),
        )
    if not files:
        raise ConfigError("a list of pictures is empty", where=path)
    return set(files)


def _pictures(folder: Path) -> list[Path]:
    return [Path(path) for path in walk_images(str(folder), recursive=False)]

"""`classes.txt`: the classes of a set whose annotations do not list them."""

from __future__ import annotations

import codecs
import operator
import os
import unicodedata
from pathlib import Path

from sniper.data.dataset import BACKGROUND
from sniper.data.image_endings import IMAGE_ENDINGS, has_image_ending
from sniper.errors import DataError

FILE_NAME = "classes.txt"
_NAME = operator.attrgetter("name")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_class_list(*folders: Path) -> tuple[str, ...] | None:
    """Class names, without the background, from the first of the folders that has `classes.txt`.

    The file has one name a line; empty lines and lines that start with `#` are skipped.

    Returns:
        The names in the order of the file; None where no folder has the file.

    Raises:
        DataError: the file is unreadable or empty, or a name is used twice (case does not
            count) or is the background's.
    """
    for folder in folders:
        path = folder / FILE_NAME
        if path.is_file():
            return _checked(read_lines(path, "list of classes"), path)
    return None


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of a text (`read_text`) without surrounding blanks, without empty ones and `#` lines.

    Raises:
        DataError: the file cannot be read or is no text.
    """
    lines = [line.strip() for line in read_text(path, what).splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def read_text(path: Path, what: str) -> str:
    """A text in UTF-8 or, with a mark in front, UTF-16.

    Raises:
        DataError: the file cannot be read or is no text.
    """
    try:
        content = path.read_bytes()
        # PowerShell writes what it redirects in UTF-16.
        return content.decode("utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"the {what} cannot be read", where=path, got=error) from error


def listed_path(folder: str | Path, line: str) -> str:
    """The file of a list's line, relative to the list's folder; lists of Windows have `\\`."""
    path = os.path.join(folder, line)
    return path if "\\" not in line or os.path.exists(path) else path.replace("\\", "/")


def _checked(names: list[str], path: Path) -> tuple[str, ...]:
    problem = None
    folded = [name.lower() for name in names]
    twice = sorted({name for name in names if folded.count(name.lower()) > 1})
    if not names:
        problem = "no name"
    elif twice:
        problem = f"{', '.join(twice)} more than once"
    elif BACKGROUND in names:
        problem = f"{BACKGROUND}, which is always there"
    if problem is not None:
        raise DataError(
            "the list of classes is broken", where=path, got=problem, expected="one name a line"
        )
    return tuple(names)


def with_reason(path: str) -> str:
    """The path of a file that is not there, and what is there in its place."""
    if os.path.isdir(path):
        return f"{path} (it is a folder)"
    if os.path.islink(path):
        return f"{path} (it is a link to {os.readlink(path)}, which is not there)"
    return path


class FileIndex:
    """Remembers the listing of every folder that it was asked about."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}
        self._alike: dict[str, dict[str, list[str]]] = {}
        self._images: dict[str, dict[str, list[str]]] = {}

    def has(self, path: str) -> bool:
        """Whether there is a file of that name; a folder that cannot be listed has none."""
        folder, name = os.path.split(path)
        return name in self.names(folder)

    def images(self, stem: str) -> list[str]:
        """Image files of that path without its ending; the usual endings come first."""
        folder, name = os.path.split(stem)
        if folder not in self._images:
            by_stem: dict[str, list[str]] = {}
            for file in sorted(filter(has_image_ending, self.names(folder)), key=_by_ending):
                by_stem.setdefault(os.path.splitext(file)[0], []).append(file)
            self._images[folder] = by_stem
        return [os.path.join(folder, file) for file in self._images[folder].get(name, ())]

    def similar(self, path: str) -> list[str]:
        """Files that differ from a path in the case and Unicode form of their name alone."""
        folder, name = os.path.split(path)
        if folder not in self._alike:
            alike: dict[str, list[str]] = {}
            for file in sorted(self.names(folder)):
                alike.setdefault(_folded(file), []).append(file)
            self._alike[folder] = alike
        return [os.path.join(folder, file) for file in self._alike[folder].get(_folded(name), ())]

    def similar_images(self, stem: str) -> list[str]:
        """Image files whose name without ending differs from a stem in the same way."""
        folder, name = os.path.split(stem)
        files = filter(has_image_ending, self.names(folder))
        wanted = _folded(name)
        fits = (file for file in files if _folded(os.path.splitext(file)[0]) == wanted)
        return [os.path.join(folder, file) for file in sorted(fits, key=_by_ending)]

    def names(self, folder: str) -> frozenset[str]:
        """Names of the files of a folder; none of one that cannot be listed."""
        if folder not in self._names:
            self._names[folder] = _listing(folder)
        return self._names[folder]


def _folded(name: str) -> str:
    """What names have in common that a file system may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _by_ending(name: str) -> tuple[int, str]:
    return IMAGE_ENDINGS.index(os.path.splitext(name)[1].lower()), name


def _listing(folder: str) -> frozenset[str]:
    """Names of the files of a folder: neither folders, nor links that lead nowhere."""
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(map(_NAME, filter(os.DirEntry.is_file, entries)))
    except OSError:
        return frozenset()

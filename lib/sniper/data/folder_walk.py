"""Files below a folder, by one rule for detection and for data sets."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator

from sniper.data.image_endings import UNREAD_ENDINGS, has_image_ending
from sniper.data.video import is_video
from sniper.errors import DataError

logger = logging.getLogger(__name__)

# What `sniper detect` leaves in its --out folder.
DETECTIONS_FILE, DRAWINGS_FOLDER = "detections.json", "drawings"


def walk_images(folder: str, *, recursive: bool) -> Iterator[str]:
    """`walk_files` for images, by their endings; pictures and videos that are left out are told.

    Raises:
        DataError: a folder cannot be read.
    """
    others: Counter[str] = Counter()

    def is_wanted(path: str) -> bool:
        ending = os.path.splitext(path)[1].lower()
        if ending in UNREAD_ENDINGS or is_video(path):
            others[ending] += 1
        return has_image_ending(path)

    yield from walk_files(folder, is_wanted, recursive=recursive)
    if others:
        logger.warning(
            "left out of %s: %s (a folder stands for its images that OpenCV reads; videos have to "
            "be named)",
            *(folder, ", ".join(f"{count} {ending}" for ending, count in others.most_common())),
        )


def walk_files(folder: str, is_wanted: Callable[[str], bool], *, recursive: bool) -> Iterator[str]:
    """Files of a folder and, if asked for, of the folders below it; each folder's in order.

    Hidden files and folders are left out, and so are drawings of `sniper detect`. Links to folders
    are followed after all real folders, and no folder is searched twice: nor is one that holds the
    searched one, which a link may lead to.

    Args:
        folder: where to begin.
        is_wanted: asked about the path of every file.
        recursive: look into folders below folders.

    Raises:
        DataError: a folder cannot be read.
    """
    top = os.path.realpath(folder)
    searched: set[str] = set()
    links = deque([folder])
    while links:
        begin = links.popleft()
        real = os.path.realpath(begin)
        if searched and _holds(real, top):
            if real not in searched:
                logger.info("left out: %s: a link to a folder above", begin)
            continue
        for parent, folders, files in os.walk(begin, onerror=_raise_unreadable):
            real = os.path.realpath(parent)
            if real in searched:
                folders.clear()
                continue
            searched.add(real)
            yield from _wanted(parent, sorted(files), is_wanted)
            below = [name for name in sorted(folders) if _is_input(parent, name)]
            # `os.walk` goes on with what is left in its own list.
            folders[:] = below if recursive else []
            links.extend(
                path
                for path in (os.path.join(parent, name) for name in folders)
                if os.path.islink(path)
            )


def is_drawing(path: str, below: str) -> bool:
    """Whether a file lies in a folder of drawings of `sniper detect` below a folder."""
    base = os.path.abspath(below)
    folder = os.path.dirname(os.path.abspath(path))
    while len(folder) > len(base) and os.path.dirname(folder) != folder:
        if _is_drawings_folder(*os.path.split(folder)):
            return True
        folder = os.path.dirname(folder)
    return False


def _holds(folder: str, top: str) -> bool:
    return os.path.commonpath([folder, top]) == folder


def _wanted(parent: str, names: list[str], is_wanted: Callable[[str], bool]) -> Iterator[str]:
    for name in names:
        path = os.path.join(parent, name)
        if not name.startswith(".") and is_wanted(path):
            yield path


def _is_input(parent: str, name: str) -> bool:
    if _is_drawings_folder(parent, name):
        logger.info("left out: %s: drawings of an earlier run", os.path.join(parent, name))
        return False
    return not name.startswith(".")


def _is_drawings_folder(parent: str, name: str) -> bool:
    return name == DRAWINGS_FOLDER and os.path.isfile(os.path.join(parent, DETECTIONS_FILE))


def _raise_unreadable(error: OSError) -> None:
    raise DataError("a folder cannot be read", where=error.filename, got=error) from error

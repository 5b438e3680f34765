"""What is odd about pictures that are read all the same, told by whoever reads many of them."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

# Hears the kind of what is odd, the file, and a text that goes on behind the file's name.
OnNote = Callable[[str, str, str], None]

# The kind of a note that the decoder has filled a damaged part with anything.
DAMAGE = "damage"


class PictureNotes:
    """Warns of the first file of a kind, and counts the others: a set has thousands of them.

    Whoever reads many pictures, or a picture many times, makes one for them all.
    """

    def __init__(self) -> None:
        self._files: dict[str, set[str]] = {}

    def tell(self, kind: str, path: str, text: str) -> None:
        """Tells the first file, and how many there are at 10, 100, 1000 ... of them."""
        files = self._files.setdefault(kind, set())
        if path in files:
            return
        files.add(path)
        count = len(files)
        if count == 1:
            logger.warning("%s %s", path, text)
        elif set(str(count)[1:]) == {"0"} and str(count)[0] == "1":
            logger.warning("%d files so far, the last one: %s %s", count, path, text)


def tell_each(kind: str, path: str, text: str) -> None:
    """For a single picture: tells it."""
    PictureNotes().tell(kind, path, text)


def keep_quiet(kind: str, path: str, text: str) -> None:
    """For a look at a picture that others read, and tell."""

"""`classes.txt`: the classes of a set whose annotations do not list them."""

from __future__ import annotations

from pathlib import Path

from sniper.data.dataset import BACKGROUND
from sniper.errors import DataError

FILE_NAME = "classes.txt"


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
    """Lines of a UTF-8 text without surrounding blanks; empty lines and `#` lines are skipped.

    Raises:
        DataError: the file cannot be read or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"the {what} cannot be read", where=path, got=error) from error
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


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

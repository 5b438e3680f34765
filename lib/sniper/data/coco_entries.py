"""The entries of a COCO annotation file: what it lists, read one by one, and what is broken."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sniper.data.collector import collector_off
from sniper.data.dataset import BACKGROUND
from sniper.data.ids import FileId, file_id, id_key
from sniper.data.json_text import open_json
from sniper.data.problems import (
    ALIKE_CATEGORIES,
    BROKEN_ENTRY,
    DUPLICATE_CATEGORY,
    DUPLICATE_ID,
    EMPTY_ROOT,
    REPEATED_IMAGE,
    OnProblem,
    Problem,
    ProblemKind,
)
from sniper.errors import DataError
from sniper.progress import LongCall

logger = logging.getLogger(__name__)

# From this size on reading takes seconds, and the log says what is going on.
_LARGE_FILE_BYTES = 50 << 20

# A polygon needs three corners; shorter ones are dropped (2018 behaviour).
MIN_POLYGON_NUMBERS = 6

Entry = dict[str, Any]


def read_annotation_json(
    path: str | Path, object_hook: Callable[[Entry], Entry] | None = None
) -> dict[str, Any]:
    """The content of an annotation file.

    Args:
        path: the file.
        object_hook: changes each object as soon as it has been read, e.g. to save memory.

    Raises:
        DataError: it cannot be read, is no JSON, lacks `images`, or has annotations without
            `categories`.
    """
    try:
        with open_error(path), reading(path), open_json(path) as stream, collector_off():
            content = json.load(stream, object_hook=object_hook)
    except UnicodeError as error:
        raise DataError(
            f"the annotation file is not encoded in {error.encoding}"
            if isinstance(error, UnicodeDecodeError)
            else "the annotation file has a broken encoding",
            where=path,
            got=error,
            expected="JSON in UTF-8 (or UTF-16, UTF-32)",
            fix=f"iconv -f WINDOWS-1252 -t UTF-8 {path} > new.json, with the encoding it has",
        ) from error
    except (ValueError, RecursionError) as error:  # RecursionError: brackets without end
        raise DataError(
            "the annotation file is no valid JSON",
            where=path,
            got=error,
            fix="download or write it again; it may have been cut off",
        ) from error
    return checked_content(content, path)


@contextlib.contextmanager
def open_error(path: str | Path) -> Iterator[None]:
    """Says of a file that cannot be read which one it is.

    Raises:
        DataError: it cannot be read.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("the annotation file cannot be read", where=path, got=error) from error


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Tells of the reading of a large file."""
    size = os.path.getsize(path)
    if size > _LARGE_FILE_BYTES:
        logger.info("reading %s (%d MB)", path, size >> 20)
    with LongCall(f"reading {path}"):
        yield


def checked_content(content: Any, path: str | Path) -> dict[str, Any]:
    """The content of an annotation file, if it is in COCO format.

    Raises:
        DataError: it lacks `images`, or has annotations without `categories`.
    """
    if not isinstance(content, dict):
        raise DataError(
            "the annotation file is not in COCO format",
            where=path,
            got=f"a JSON {type(content).__name__}",
            expected="an object with images, categories and annotations",
        )
    if not isinstance(content.get("annotations"), (list, type(None))):
        raise DataError("`annotations` is no list", where=path)
    if content.get("annotations") is None:
        content.setdefault("categories", [])
    for key in ("images", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"the annotation file has no list `{key}`", where=path)
    return content


class EntryError(ValueError):
    """An entry that cannot be used; `detail` stands behind its label in messages."""

    def __init__(
        self, problem: str, kind: ProblemKind = BROKEN_ENTRY, detail: str | None = None
    ) -> None:
        super().__init__(problem)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class EntryReader:
    """Where the entries come from, and who is told of the broken ones."""

    path: str | Path
    on_problem: OnProblem

    @property
    def where(self) -> str:
        """The file's name."""
        return os.path.basename(self.path)

    def each(
        self, what: str, entries: Any, read: Callable, rows: Iterable[int] | None = None
    ) -> list[int]:
        """Calls `read(entry)` for all or the given rows; rows of entries that it refused."""
        broken = []
        chosen = enumerate(entries) if rows is None else ((row, entries[row]) for row in rows)
        for row, entry in chosen:
            try:
                read(entry)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                self._report(what, entry, row, error)
                broken.append(row)
        return broken

    def _report(self, what: str, entry: object, row: int, error: Exception) -> None:
        problem = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        kind, label = BROKEN_ENTRY, entry_label(what, entry, row)
        if isinstance(error, EntryError):
            kind = error.kind
            label += f" ({error.detail})" if error.detail else ""
        refusal = DataError(
            f"{label} of the annotation file is broken: {problem}",
            where=self.path,
            got=repr(entry)[:200],
        )
        self.on_problem(Problem(kind, self.where, 1, [f"{label}: {problem}"], refusal))


def entry_label(what: str, entry: object, row: int) -> str:
    """How messages call an entry, which may lack its id."""
    if isinstance(entry, Mapping) and "id" in entry:
        return f"{what} {entry['id']}"
    return f"{what} number {row + 1} (no id)"


def is_set(flag: object, name: str) -> bool:
    """Whether a flag is on: tools write numbers, truth values and texts of both."""
    text = str(flag).strip().lower()
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) > 0
    except ValueError:
        raise ValueError(f"its {name} is {flag!r}, not 0 or 1") from None


def flag_of(entry: Mapping[str, Any]) -> int:
    """What an annotation is: 1 for a crowd region, 2 for one that is flagged `ignore`, else 0.

    Raises:
        ValueError: a flag is neither on nor off.
    """
    crowd, ignored = entry.get("iscrowd"), entry.get("ignore")
    if crowd and is_set(crowd, "iscrowd"):
        return 1
    return 2 if ignored and is_set(ignored, "ignore") else 0


def _integer(entry: Mapping[str, Any], key: str) -> int:
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError(f"{key} is {value!r}, not an integer")
    return int(value)


@dataclass(frozen=True)
class Category:
    """A class of the file: its id as it is written there, its name, and its index from 1 on."""

    file_id: FileId
    name: str
    index: int


def read_categories(
    entries: list, used: Callable[[], Iterable[Any]], reader: EntryReader
) -> dict[FileId, Category]:
    """The categories by the key of their id (`sniper.data.ids`), in the order of the file.

    Headings of the others, such as the root that Roboflow writes, are none: left out and told.

    Args:
        entries: of the file.
        used: gives the ids of the categories that have annotations.
        reader: who is told.
    """
    headings = _headings(entries, used)
    if headings:
        texts = [f"{entry_label('category', entry, 0)}: {entry.get('name')}" for entry in headings]
        reader.on_problem(Problem(EMPTY_ROOT, reader.where, len(texts), texts))
        entries = [entry for entry in entries if not any(entry is other for other in headings)]
    categories: dict[FileId, Category] = {}
    names: set[str] = set()

    def read(entry: Mapping[str, Any]) -> None:
        name = entry["name"]
        if not isinstance(name, str):
            raise ValueError(f"its name is {name!r}, not a string")
        if name == BACKGROUND:
            raise ValueError(f"{BACKGROUND} is always there and must not be listed")
        identity = id_key(entry["id"])
        if identity in categories:
            raise EntryError("the id is used before", DUPLICATE_CATEGORY, name)
        if name in names:
            raise EntryError(f"the name {name!r} is used before", DUPLICATE_CATEGORY)
        names.add(name)
        categories[identity] = Category(file_id(entry["id"]), name, len(categories) + 1)

    reader.each("category", entries, read)
    _tell_alike(names, reader)
    return categories


def _tell_alike(names: Iterable[str], reader: EntryReader) -> None:
    """Warns of names that people may have meant to be one."""
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(" ".join(name.replace("_", " ").split()).casefold(), []).append(name)
    texts = [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]
    if texts:
        reader.on_problem(Problem(ALIKE_CATEGORIES, reader.where, len(texts), texts))


def _headings(entries: list, used: Callable[[], Iterable[Any]]) -> list[Entry]:
    """Categories without objects that are no classes.

    Roboflow writes the project as one: it stands at the top and is the supercategory of all others.
    Another one shares its name with a category that has objects.
    """
    if len(entries) < 2 or not all(isinstance(entry, dict) for entry in entries):
        return []
    heads = [row for row in range(len(entries)) if _heads_others(entries, row)]
    uses = Counter(str(entry.get("name")) for entry in entries)
    twins = [row for row, entry in enumerate(entries) if uses[str(entry.get("name"))] > 1]
    if not heads and not twins:
        return []
    trained_ids = set(map(_key_or_none, used()))
    has_objects = [_key_or_none(entry.get("id")) in trained_ids for entry in entries]
    trained = {str(entry.get("name")) for entry, has in zip(entries, has_objects) if has}
    shadowed = [row for row in twins if str(entries[row].get("name")) in trained]
    rows = sorted({*heads, *shadowed})
    return [entries[row] for row in rows if "id" in entries[row] and not has_objects[row]]


def _key_or_none(value: object) -> FileId | None:
    try:
        return id_key(value)
    except ValueError:
        return None


def _heads_others(entries: list[Entry], row: int) -> bool:
    name = entries[row].get("name")
    at_top = str(entries[row].get("supercategory") or "none").strip().lower() in ("none", "null")
    others = (entry.get("supercategory") for at, entry in enumerate(entries) if at != row)
    return at_top and isinstance(name, str) and all(other == name for other in others)


def read_images(
    entries: list, reader: EntryReader
) -> tuple[dict[FileId, tuple[int, int, int, str]], list[FileId]]:
    """The images in the order of the file, and their ids as they are written there.

    Returns:
        key of the id (`sniper.data.ids`) -> (index, width, height, file name), and the ids.
    """
    images: dict[FileId, tuple[int, int, int, str]] = {}
    file_ids: list[FileId] = []
    owners: dict[str, FileId] = {}
    twice: list[str] = []

    def read(entry: Mapping[str, Any]) -> None:
        identity = id_key(entry["id"])
        width, height = _integer(entry, "width"), _integer(entry, "height")
        name = entry.get("file_name", "")
        if width < 1 or height < 1:
            raise ValueError(f"its size is {width}x{height}")
        if not isinstance(name, str):
            raise ValueError(f"its file_name is {name!r}, not a string")
        if identity in images:
            raise EntryError("the id is used before", DUPLICATE_ID, name or "no file_name")
        images[identity] = (len(images), width, height, name)
        file_ids.append(file_id(entry["id"]))
        if name and owners.setdefault(name, identity) != identity:
            twice.append(f"image {identity}: the file {name} is that of image {owners[name]}")

    reader.each("image", entries, read)
    if twice:
        reader.on_problem(Problem(REPEATED_IMAGE, reader.where, len(twice), twice))
    if not images:
        raise DataError(
            "the annotation file has no images",
            where=reader.path,
            got="it lists no usable image",
        )
    return images, file_ids

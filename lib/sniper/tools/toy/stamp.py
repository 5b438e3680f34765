"""The stamp of a generated set: its settings and a digest of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from sniper.errors import DataError
from sniper.files import atomic_write_text
from sniper.tools.toy import openimages
from sniper.tools.toy.settings import Split, ToySettings

STAMP_FILE = "toy_data.json"
_MAKER = "sniper make-toy-data"
# What a folder may hold before a set is made: nothing, this set, or one of ours to be replaced.
EMPTY, COMPLETE, OURS = "empty", "complete", "ours"
# The setting that only sets of other layouts than COCO's have.
LAYOUT = "layout"


def folder_state(
    out: Path,
    settings: dict,
    names: Sequence[str],
    force: bool,
    progress: Callable[[str], None],
) -> str:
    """What there is to do in a folder: `EMPTY`, `COMPLETE` (nothing) or `OURS` (write it anew).

    Args:
        out: the folder.
        settings: of the set to make, plain values.
        names: its files, relative to `out`.
        force: whether sets of other settings may be replaced.
        progress: is told why a set is written again.

    Raises:
        DataError: the folder holds something else.
    """
    stamp = read_stamp(out)
    if stamp is None:
        return EMPTY
    there = stamp["settings"]
    layout = there.get(LAYOUT) if isinstance(there, dict) else None
    if layout != settings.get(LAYOUT):
        # Each writer knows its own files only, and would leave the others beside them.
        raise DataError(
            "this folder holds a generated data set of another kind",
            where=out,
            fix="name another folder, or delete this one",
        )
    if there != settings and not force:
        raise DataError(
            "this folder holds a generated data set with other settings",
            where=out,
            got=difference(there, settings),
            fix="name another folder, or use --force to replace the data set",
        )
    if there == settings:
        if stamp["sha256"] == digest(files_on_disk(out, names)):
            return COMPLETE
        progress(f"{out}: the data set is incomplete or was changed; writing it again")
    return OURS


def read_stamp(out: Path) -> dict | None:
    """The folder's stamp; None for a folder that is missing or empty.

    Raises:
        DataError: the folder holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        stamp = json.loads((out / STAMP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stamp = None
    if not isinstance(stamp, dict) or stamp.get("made_by") != _MAKER or "settings" not in stamp:
        raise DataError(
            "this path holds files that `sniper make-toy-data` did not make; nothing was changed",
            where=out,
            expected=f"a missing or empty folder, or one with our {STAMP_FILE}",
            fix="name another folder",
        )
    return {"sha256": None, **stamp}


def difference(there: object, wanted: dict) -> str:
    """In which settings two sets differ, in words."""
    there = there if isinstance(there, dict) else {}
    keys = [k for k in sorted({*there, *wanted}) if there.get(k) != wanted.get(k)]
    return "; ".join(f"{k}: {there.get(k)} there, {wanted.get(k)} wanted" for k in keys)


def write_stamp(out: Path, settings: dict, digest: str | None) -> None:
    """Notes the settings and, once all is there, the digest.

    Raises:
        TrainingError: the file cannot be written.
    """
    stamp = {"made_by": _MAKER, "settings": settings, "sha256": digest}
    atomic_write_text(out / STAMP_FILE, json.dumps(stamp, indent=1) + "\n")


def digest(sha256_by_file: dict[str, str]) -> str:
    """One SHA-256 of the names and SHA-256 of all files."""
    lines = "".join(f"{name} {sha256_by_file[name]}\n" for name in sorted(sha256_by_file))
    return hashlib.sha256(lines.encode()).hexdigest()


def write_text(path: Path, text: str) -> str:
    """Writes a text of a set and gives its SHA-256.

    Raises:
        TrainingError: the file cannot be written.
    """
    atomic_write_text(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def files_on_disk(out: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of every file that the data set should have, those that are there."""
    there = [name for name in names if (out / name).is_file()]
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in there}


def set_files(settings: ToySettings) -> list[str]:
    """Names of all files of a set in the COCO layout."""
    names = [
        f"annotations/{split.annotation_file}"
        for split in settings.splits
        if settings.count(split) and split.annotation_file
    ]
    return names + table_files(settings) + image_files(settings, settings.splits)


def image_files(settings: ToySettings, splits: Sequence[Split]) -> list[str]:
    """Names of the images of some splits."""
    return [
        settings.file(split, index) for split in splits for index in range(settings.count(split))
    ]


def table_files(settings: ToySettings) -> list[str]:
    """The tables of Open Images, if there are to be some."""
    if not settings.openimages:
        return []
    tables = [openimages.CLASS_FILE, openimages.HIERARCHY_FILE]
    for split in settings.splits:
        if settings.count(split) and split.annotated:
            tables += openimages.table_names(split.name).values()
    return [f"annotations/{name}" for name in tables]

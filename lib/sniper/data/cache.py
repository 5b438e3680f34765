"""Parsed annotations kept as NPZ, valid only for the content they were made from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sniper.data.npz import read_npz, write_npz
from sniper.errors import DataError, TrainingError

logger = logging.getLogger(__name__)

_KEY = "cache_key"
_CHUNK_BYTES = 1 << 20
_SHOWN = 24  # characters of a value in a message: enough to tell two checksums apart


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError("the file cannot be read", where=path, got=error) from error
    return digest.hexdigest()


def cache_file(cache_dir: str | Path, name: str, source: str | Path) -> Path:
    """Where the parsed annotations of a set are kept.

    Sets of one name in two places get two files instead of replacing each other's all the time.

    Args:
        cache_dir: the folder.
        name: the set's name.
        source: the annotation file or list that the set is read from.
    """
    place = hashlib.sha256(str(Path(source).resolve()).encode("utf-8", "surrogateescape"))
    return Path(cache_dir) / f"{name}_{place.hexdigest()[:8]}_gt.npz"


def cached_arrays(
    path: Path,
    key: Mapping[str, str],
    names: Sequence[str],
    build: Callable[[], dict[str, np.ndarray]],
    *,
    also_good: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of `build`, from `path` if it was written under the same key.

    Otherwise the file is rebuilt and the log says why. A cache that cannot be written is no
    error: the run goes on without it. Processes may share a cache: each one writes a file of its
    own and moves it into place.

    Args:
        path: the NPZ file.
        key: what the arrays depend on (content hash, options, format version).
        names: the arrays that the file must have.
        build: makes them.
        also_good: for some entries of the key another value that serves as well, e.g. a file
            with masks where none are wanted.
    """
    arrays, reason = _read(path, key, names, also_good or {})
    if arrays is not None:
        logger.info("annotations as they were read before: %s", path)
        return arrays
    logger.info("annotations are read (%s), and kept for the next start: %s", reason, path)
    arrays = build()
    content = {**arrays, _KEY: np.array(json.dumps(dict(key), sort_keys=True))}
    try:
        write_npz(path, content)
    except TrainingError as error:
        logger.warning("going on without keeping the annotations: %s", error)
    return arrays


def _read(
    path: Path, key: Mapping[str, str], names: Sequence[str], also_good: Mapping[str, str]
) -> tuple[dict[str, np.ndarray] | None, str]:
    """The arrays, or None and the reason why the file cannot serve."""
    if not path.exists():
        return None, "for the first time"
    try:
        # Opened once: the key of one file must not speak for the arrays of its successor.
        with open(path, "rb") as stream:
            changes = _changes(json.loads(str(read_npz(stream, [_KEY])[_KEY])), key, also_good)
            return (None, changes) if changes else (read_npz(stream, names), "")
    except (DataError, OSError, ValueError, AttributeError) as error:
        what = " ".join(str(error).split())
        return None, f"again, since what was kept could not be read: {what}"


def _changes(stored: dict[str, str], key: Mapping[str, str], also_good: Mapping[str, str]) -> str:
    """What differs between the key of a file and the key that is asked for."""
    changes = " and ".join(
        f"{name} changed ({_short(stored.get(name))} -> {_short(value)})"
        for name, value in key.items()
        if stored.get(name) not in (value, also_good.get(name, value))
    )
    return changes and f"again, since {changes}"


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."

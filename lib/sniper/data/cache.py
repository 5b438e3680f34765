"""Parsed annotations kept as NPZ, valid only for the content they were made from."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sniper.errors import DataError, TrainingError
from sniper.files import atomic_write

logger = logging.getLogger(__name__)

_KEY = "cache_key"
_CHUNK_BYTES = 1 << 20


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


def cached_arrays(
    path: Path,
    key: Mapping[str, str],
    names: Sequence[str],
    build: Callable[[], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """The arrays of `build`, from `path` if it was written under the same key.

    Otherwise the file is rebuilt and the log says why. A cache that cannot be written is no
    error: the run goes on without it.

    Args:
        path: the NPZ file.
        key: what the arrays depend on (content hash, options, format version).
        names: the arrays that the file must have.
        build: makes them.
    """
    arrays, reason = _read(path, key, names)
    if arrays is not None:
        logger.info("annotations from the cache %s", path)
        return arrays
    logger.info("cache rebuilt because %s: %s", reason, path)
    arrays = build()
    content = {**arrays, _KEY: np.array(json.dumps(dict(key), sort_keys=True))}
    try:
        atomic_write(path, lambda temporary: np.savez(temporary, **content))
    except TrainingError as error:
        logger.warning("going on without a cache: %s", error)
    return arrays


def _read(
    path: Path, key: Mapping[str, str], names: Sequence[str]
) -> tuple[dict[str, np.ndarray] | None, str]:
    """The arrays, or None and the reason why the file cannot serve."""
    if not path.exists():
        return None, "there was none"
    try:
        # NpzFile checks each member's CRC, so that a damaged file cannot pass for a good one.
        with np.load(path, allow_pickle=False) as archive:
            stored = json.loads(str(archive[_KEY]))
            changed = [name for name in key if stored.get(name) != key[name]]
            if changed:
                return None, f"{' and '.join(changed)} changed"
            return {name: archive[name] for name in names}, ""
    except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        return None, f"the old one could not be read ({error})"

"""The zip file of a model: members and their checksums, whatever engine they are for.

Nothing in it is compressed, and nothing is unpacked to disk. `meta.json` lists all other members.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sniper.errors import DataError
from sniper.files import atomic_write

FORMAT, FORMAT_VERSION = "sniper-model", 1
META = "meta.json"
# Parts of a model.
DETECTOR, MASK_HEAD = "model", "mask"
# Of MXNet: a symbol and its parameters. Of ONNX: the graphs between which our operators stand.
SYMBOL, PARAMS, GRAPH = "{}-symbol.json", "{}-0000.params", "{}-{}.onnx"
_MEMBER = re.compile(rf"({DETECTOR}|{MASK_HEAD})-(symbol\.json|0000\.params|\d+\.onnx)")
_EXPECTED = "model-symbol.json and model-0000.params, or model-0.onnx ..., and meta.json"
# `meta["engine"]` of an archive for ONNX engines; those for MXNet have no such entry.
ONNX = "onnx"
# `meta["precision"]` of a quantised detector; others have no such entry.
INT8 = "int8"
LARGEST_META = 16 << 20
# The first date that a zip archive can hold: the same input gives the same bytes at any time.
EPOCH = (1980, 1, 1, 0, 0, 0)
READABLE_FILE = 0o644 << 16


def write_members(path: str | Path, meta: Mapping[str, Any], contents: Mapping[str, bytes]) -> None:
    """Writes an archive; the old file stays until the new one is complete on disk.

    Args:
        path: the archive.
        meta: what `meta.json` says besides format and members; plain JSON values.
        contents: the other members by name.

    Raises:
        TrainingError: the disk is full or the folder is not writable.
    """
    members = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in contents.items()
    }
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    text = json.dumps({**head, **meta, "members": members}, indent=1)

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, data in {**contents, META: text.encode("utf-8")}.items():
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.external_attr = READABLE_FILE
                archive.writestr(entry, data)

    atomic_write(path, write)


def read_members(path: str | Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Reads and verifies an archive: `meta.json`, and the other members by name.

    Raises:
        DataError: the file is missing, damaged or no such archive, holds other members than those
            of the format, or a member differs from its SHA-256.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            meta = _checked_meta(archive, path)
            listed = meta["members"]
            return meta, {
                name: _read_verified(archive, name, listed[name], path) for name in listed
            }
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_meta(path: str | Path) -> dict[str, Any]:
    """`meta.json` alone, without a look into the other members.

    Raises:
        DataError: the file is missing, damaged or no such archive.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _checked_meta(archive, path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


# What zipfile raises for files that are none, damaged or of a kind that it does not know.
_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError)


def _unreadable(path: Path, error: BaseException) -> DataError:
    return DataError("the model archive cannot be read", where=path, got=error)


def _checked_meta(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    strange = sorted(name for name in set(names) - {META} if not _MEMBER.fullmatch(name))
    # Of two members with one name another reader may take the one that was not verified.
    if strange or len(set(names)) != len(names) or META not in names:
        raise DataError(
            "this is no model archive",
            where=path,
            got=", ".join(map(repr, strange)) or f"{len(names)} members: {', '.join(names)}",
            expected=_EXPECTED,
            fix="`sniper export` makes such archives",
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise DataError("members of a model archive are not compressed", where=path)
    meta = _read_meta(archive, path)
    listed = meta["members"]
    if set(listed) != set(names) - {META}:
        raise DataError(
            "the list of members is another one than the archive's",
            where=f"{META} of {path}",
            got=", ".join(sorted(listed)),
            expected=", ".join(sorted(set(names) - {META})),
        )
    return meta


def _read_meta(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    where = f"{META} of {path}"
    if archive.getinfo(META).file_size > LARGEST_META:
        raise DataError("the description of the model is too large", where=where)
    try:
        meta = json.loads(archive.read(META).decode("utf-8"))
    except ValueError as error:
        raise DataError("the description of the model is broken", where=where, got=error) from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError("this is no model archive", where=where, expected=f"format {FORMAT}")
    if meta.get("format_version") != FORMAT_VERSION:
        raise DataError(
            "another version of the program wrote the archive",
            where=where,
            got=f"format {meta.get('format_version')}",
            expected=f"format {FORMAT_VERSION}",
        )
    if not isinstance(meta.get("members"), dict):
        raise DataError("the description of the model lists no members", where=where)
    return meta


def _read_verified(archive: zipfile.ZipFile, name: str, listed: object, path: Path) -> bytes:
    data = archive.read(name)
    actual = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if listed != actual:
        raise DataError(
            "a member of the archive is damaged",
            where=f"{name} of {path}",
            got=actual,
            expected=listed,
            fix="export the model again, or copy the archive again",
        )
    return data

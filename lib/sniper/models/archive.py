"""A detector in one file: symbols, parameters, classes and configuration.

A zip archive, nothing in it compressed: `model-symbol.json` and `model-0000.params` (what
`mx.model.load_checkpoint` reads once unpacked), for networks with a mask head also
`mask-symbol.json` and `mask-0000.params`, and `meta.json`. Symbols take any image size and batch.
Loading needs MXNet and the operator library, nothing else of this package.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mxnet as mx

from sniper.errors import DataError
from sniper.files import atomic_write
from sniper.models.weights import (
    Params,
    arrays_from_bytes,
    join_params,
    save_arrays,
    split_params,
)
from sniper.ops import load_library

FORMAT, FORMAT_VERSION = "sniper-model", 1
META = "meta.json"
SYMBOL, PARAMS = "{}-symbol.json", "{}-0000.params"
DETECTOR, MASK_HEAD = "model", "mask"
# `meta["precision"]` of a quantised detector; others have no such entry.
INT8 = "int8"
MEMBERS = [form.format(part) for part in (DETECTOR, MASK_HEAD) for form in (SYMBOL, PARAMS)]
LARGEST_META = 16 << 20
# The first date that a zip archive can hold: the same input gives the same bytes at any time.
EPOCH = (1980, 1, 1, 0, 0, 0)
READABLE_FILE = 0o644 << 16


@dataclass(frozen=True)
class WeightedGraph:
    """A symbol with exactly the parameters that it needs."""

    symbol: mx.sym.Symbol
    arg: Params
    aux: Params


@dataclass(frozen=True)
class ModelArchive:
    """Content of an archive.

    Attributes:
        detector: the test network.
        mask_head: see `build_mask_head`; None for networks without masks.
        meta: `classes` (index 0 is the background), `config` (resolved), versions and whatever else
            the writer puts in; plain JSON values.
    """

    detector: WeightedGraph
    mask_head: WeightedGraph | None
    meta: Mapping[str, Any]

    @property
    def is_int8(self) -> bool:
        """The detector's symbol computes in INT8: it cannot be built from the configuration."""
        return self.meta.get("precision") == INT8


def write_archive(path: str | Path, model: ModelArchive) -> None:
    """Writes an archive; the old file stays until the new one is complete on disk.

    Raises:
        TrainingError: the disk is full or the folder is not writable.
    """
    contents = _contents(DETECTOR, model.detector)
    if model.mask_head is not None:
        contents |= _contents(MASK_HEAD, model.mask_head)
    members = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in contents.items()
    }
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    meta = json.dumps({**head, **model.meta, "members": members}, indent=1)
    contents[META] = meta.encode("utf-8")

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, data in contents.items():
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.external_attr = READABLE_FILE
                archive.writestr(entry, data)

    atomic_write(path, write)


def read_archive(path: str | Path) -> ModelArchive:
    """Reads and verifies an archive in memory; nothing is unpacked to disk.

    Raises:
        DataError: the file is missing, damaged or no such archive, holds other members than those
            of the format, or a member differs from its SHA-256.
        OpsError: the operator library does not load.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            meta, contents = _read_members(archive, path)
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError("the model archive cannot be read", where=path, got=error) from error
    load_library()
    masks = SYMBOL.format(MASK_HEAD) in contents
    return ModelArchive(
        _network(DETECTOR, contents, path),
        _network(MASK_HEAD, contents, path) if masks else None,
        meta,
    )


def _contents(part: str, network: WeightedGraph) -> dict[str, bytes]:
    params = io.BytesIO()
    save_arrays(params, join_params(network.arg, network.aux))
    return {
        SYMBOL.format(part): network.symbol.tojson().encode("utf-8"),
        PARAMS.format(part): params.getvalue(),
    }


def _read_members(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    strange = sorted(set(names) - {*MEMBERS, META})
    # Of two members with one name another reader may take the one that was not verified.
    if strange or len(set(names)) != len(names) or META not in names:
        raise DataError(
            "this is no model archive",
            where=path,
            got=", ".join(map(repr, strange)) or f"{len(names)} members: {', '.join(names)}",
            expected=", ".join([*MEMBERS, META]),
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
    return meta, {name: _read_verified(archive, name, listed[name], path) for name in listed}


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


def _network(part: str, contents: Mapping[str, bytes], path: Path) -> WeightedGraph:
    name = SYMBOL.format(part)
    try:
        symbol = mx.sym.load_json(contents[name].decode("utf-8"))
        params = contents[PARAMS.format(part)]
    except (KeyError, ValueError, mx.MXNetError) as error:
        raise DataError("the network is broken", where=f"{name} of {path}", got=error) from error
    where = f"{PARAMS.format(part)} of {path}"
    return WeightedGraph(symbol, *split_params(arrays_from_bytes(params, where), where))

"""A detector in one file: symbols, parameters, classes and configuration.

A zip archive, nothing in it compressed: `model-symbol.json` and `model-0000.params` (what
`mx.model.load_checkpoint` reads once unpacked), for networks with a mask head also
`mask-symbol.json` and `mask-0000.params`, and `meta.json`. Symbols take any image size and batch.
Loading needs MXNet and the operator library, nothing else of this package.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sniper.errors import DataError
from sniper.models.archive_file import (
    DETECTOR,
    INT8,
    MASK_HEAD,
    ONNX,
    PARAMS,
    SYMBOL,
    read_members,
    write_members,
)
from sniper.models.lazy import mx, ops
from sniper.models.weights import (
    Params,
    arrays_from_bytes,
    join_params,
    save_arrays,
    split_params,
)


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
    write_members(path, model.meta, contents)


def read_archive(path: str | Path) -> ModelArchive:
    """Reads and verifies an archive in memory.

    Raises:
        DataError: see `read_members`; or it is one for ONNX engines.
        OpsError: the operator library does not load.
    """
    path = Path(path)
    meta, contents = read_members(path)
    if meta.get("engine") == ONNX:
        raise DataError(
            "this archive holds ONNX graphs, from which MXNet's network cannot be made again",
            where=path,
            expected="weights of MXNet",
            fix="take the .params file, or the archive of `sniper export` without --format",
        )
    ops.load_library()
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


def _network(part: str, contents: Mapping[str, bytes], path: Path) -> WeightedGraph:
    name = SYMBOL.format(part)
    try:
        symbol = mx.sym.load_json(contents[name].decode("utf-8"))
        params = contents[PARAMS.format(part)]
    except (KeyError, ValueError, mx.MXNetError) as error:
        raise DataError("the network is broken", where=f"{name} of {path}", got=error) from error
    where = f"{PARAMS.format(part)} of {path}"
    return WeightedGraph(symbol, *split_params(arrays_from_bytes(params, where), where))

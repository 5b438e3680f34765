"""Reading, writing, preparing and initialising network weights.

Files are dictionaries of `mx.nd.save` with `arg:` and `aux:` names (`<prefix>-%04d.params`), the
2018 layout: old tools read new files and the other way round.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import mxnet as mx
import numpy as np

from sniper.errors import DataError
from sniper.files import atomic_write
from sniper.models.initialisers import LoadReport, initialise, is_parameter

__all__ = [
    "LoadReport",
    "Params",
    "fixed_names",
    "for_test",
    "initialise",
    "read_params",
    "with_test_params",
    "write_arrays",
    "write_params",
]

Params = dict[str, mx.nd.NDArray]

TEST_SUFFIX = "_test"
BOX_STDS = (0.1, 0.1, 0.2, 0.2)
# First word of every file that `mx.nd.save` writes.
LIST_MAGIC = 0x112


def read_params(path: str | Path) -> tuple[Params, Params]:
    """Arguments and auxiliary states of a `.params` file, by name without the prefix.

    Raises:
        DataError: the file is missing, is no MXNet parameter file, or is truncated.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            magic = file.read(8)
    except OSError as error:
        raise DataError(
            "the weights cannot be read",
            where=path,
            got=error.strerror,
            fix="check network.pretrained or the checkpoint's folder and epoch",
        ) from error
    if magic != struct.pack("<Q", LIST_MAGIC):
        raise DataError("this is no MXNet parameter file", where=path, fix="fetch it again")
    try:
        arrays = mx.nd.load(str(path))
    except mx.MXNetError as error:
        raise DataError(
            "the weights are truncated or damaged",
            where=path,
            got=str(error).strip().splitlines()[-1],
            fix="fetch the file again, or use the checkpoint before",
        ) from error
    return _split(arrays, path)


def _split(arrays: object, path: Path) -> tuple[Params, Params]:
    names = list(arrays) if isinstance(arrays, dict) else []
    groups: dict[str, Params] = {"arg": {}, "aux": {}}
    for name in names:
        kind, _, base = name.partition(":")
        if kind not in groups or not base:
            raise DataError(
                "a tensor has no arg: or aux: prefix",
                where=path,
                got=name,
                fix="save the model with Module.save_params or save_checkpoint",
            )
        groups[kind][base] = arrays[name]
    if not names:
        raise DataError("the parameter file holds no named tensors", where=path)
    return groups["arg"], groups["aux"]


def write_params(
    path: str | Path, arg: Mapping[str, mx.nd.NDArray], aux: Mapping[str, mx.nd.NDArray]
) -> None:
    """Writes a `.params` file; the old file stays until the new one is complete on disk.

    Raises:
        TrainingError: the disk is full or the folder is not writable.
    """
    arrays = {f"arg:{name}": value for name, value in arg.items()}
    arrays.update({f"aux:{name}": value for name, value in aux.items()})
    write_arrays(path, arrays)


def write_arrays(path: str | Path, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """Writes what `mx.nd.load` reads, atomically: the same bytes as `mx.nd.save`.

    `mx.nd.save` itself says nothing when the disk is full and leaves a truncated file.

    Raises:
        TrainingError: the disk is full or the folder is not writable.
    """

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            _save(file, arrays)

    atomic_write(path, write)


def _save(file: BinaryIO, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    file.write(struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays)))
    for array in arrays.values():
        file.write(array.as_in_context(mx.cpu()).__getstate__()["handle"])
    file.write(struct.pack("<Q", len(arrays)))
    for name in arrays:
        encoded = name.encode("utf-8")
        file.write(struct.pack("<Q", len(encoded)) + encoded)


def for_test(arg: Mapping[str, mx.nd.NDArray]) -> Params:
    """Arguments for inference: every `X_test` tensor takes the place of `X`.

    Only the exact suffix counts (2018 replaced `_test` anywhere in a name).
    """
    result = {name: value for name, value in arg.items() if not name.endswith(TEST_SUFFIX)}
    for name, value in arg.items():
        if name.endswith(TEST_SUFFIX):
            result[name[: -len(TEST_SUFFIX)]] = value
    return result


def with_test_params(arg: Mapping[str, mx.nd.NDArray], stds: Sequence[float] = BOX_STDS) -> Params:
    """Copy of `arg` with `bbox_pred_weight_test` and `bbox_pred_bias_test`.

    The network learns box deltas divided by `stds`; the test tensors give plain deltas. RPN-only
    weights have no `bbox_pred` and come back as they are.
    """
    result = dict(arg)
    if "bbox_pred_weight" in arg:
        weight, bias = arg["bbox_pred_weight"], arg["bbox_pred_bias"]
        factors = mx.nd.array(np.asarray(stds), ctx=weight.context, dtype=weight.dtype)
        result[f"bbox_pred_weight{TEST_SUFFIX}"] = weight * factors.reshape((-1, 1))
        result[f"bbox_pred_bias{TEST_SUFFIX}"] = bias * factors
    return result


def fixed_names(symbol: mx.sym.Symbol, patterns: Iterable[str]) -> list[str]:
    """Arguments whose name contains any of `patterns`, each once, in the order of the graph.

    As in 2018 a pattern matches anywhere: "bn0" fixes `bn0_gamma`, "beta" every shift.
    """
    patterns = tuple(pattern for pattern in patterns if pattern)
    return [
        name
        for name in symbol.list_arguments()
        if any(pattern in name for pattern in patterns) and is_parameter(name)
    ]

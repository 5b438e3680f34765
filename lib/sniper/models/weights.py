"""Reading, writing, preparing and initialising network weights.

Files are dictionaries of `mx.nd.save` with `arg:` and `aux:` names (`<prefix>-%04d.params`), the
2018 layout: old tools read new files and the other way round.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from sniper.errors import DataError
from sniper.files import atomic_write
from sniper.models.initialisers import LoadReport, initialise, is_parameter
from sniper.models.lazy import mx
from sniper.models.networks import output_scales
from sniper.models.params_layout import layout_problem

__all__ = [
    "LoadReport",
    "Params",
    "arrays_from_bytes",
    "fixed_names",
    "for_test",
    "initialise",
    "join_params",
    "load_arrays",
    "load_optimizer_arrays",
    "read_params",
    "save_arrays",
    "split_params",
    "with_test_params",
    "write_arrays",
    "write_params",
]

if TYPE_CHECKING:
    Params = dict[str, mx.nd.NDArray]
else:
    Params = dict

TEST_SUFFIX = "_test"
# First word of every file that `mx.nd.save` writes.
LIST_MAGIC = 0x112
_MAGIC = struct.pack("<Q", LIST_MAGIC)


def read_params(path: str | Path) -> tuple[Params, Params]:
    """Arguments and auxiliary states of a `.params` file, by name without the prefix.

    Raises:
        DataError: the file is missing, is no MXNet parameter file, or is truncated.
    """
    path = Path(path)
    return split_params(load_arrays(path), path)


def load_arrays(path: str | Path) -> Params:
    """All tensors of a file of `mx.nd.save`, by their full names.

    Raises:
        DataError: the file is missing, is no MXNet parameter file, is truncated or has no names.
    """
    arrays = _load_file(Path(path))
    if not arrays:
        raise DataError("the parameter file holds no named tensors", where=path)
    return arrays


def load_optimizer_arrays(path: str | Path) -> Params:
    """The same for the arrays of an optimizer, which may have none.

    Raises:
        DataError: the file is missing, is no MXNet parameter file, or is truncated.
    """
    return _load_file(Path(path))


def _load_file(path: Path) -> Params:
    try:
        with open(path, "rb") as file:
            magic = file.read(len(_MAGIC))
            _check_magic(magic, path)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _check_layout(content, path)
    except OSError as error:
        raise DataError(
            "the weights cannot be read",
            where=path,
            got=error.strerror,
            fix="check network.pretrained or the checkpoint's folder and epoch",
        ) from error
    return _load(lambda: mx.nd.load(str(path)), path)


def arrays_from_bytes(data: bytes, where: str | Path) -> Params:
    """The same from the content of a file; `where` names it in messages.

    Raises:
        DataError: this is no MXNet parameter file, is truncated or has no names.
    """
    _check_magic(data[: len(_MAGIC)], where)
    _check_layout(data, where)
    arrays = _load(lambda: mx.nd.load_frombuffer(data), where)
    if not arrays:
        raise DataError("the parameter file holds no named tensors", where=where)
    return arrays


def _check_magic(begin: bytes, where: str | Path) -> None:
    if begin != _MAGIC:
        raise DataError(
            "this is no MXNet parameter file",
            where=where,
            got=f"a file that begins with {begin!r}",
            expected="a .params file of `mx.nd.save`, such as training leaves",
            fix="fetch it again, or name another file",
        )


def _check_layout(content: bytes | mmap.mmap, where: str | Path) -> None:
    with memoryview(content) as view:
        problem = layout_problem(view)
    if problem is not None:
        raise _damaged(where, problem)


def _damaged(where: str | Path, got: str) -> DataError:
    return DataError(
        "the weights are truncated or damaged",
        where=where,
        got=got,
        fix="fetch the file again, or use the checkpoint before",
    )


def _load(load: Callable[[], object], where: str | Path) -> Params:
    """Named tensors; none for a list without names."""
    try:
        arrays = load()
    except (mx.MXNetError, ValueError) as error:
        raise _damaged(where, str(error).strip().splitlines()[-1]) from error
    return arrays if isinstance(arrays, dict) else {}


def split_params(arrays: Mapping[str, mx.nd.NDArray], where: str | Path) -> tuple[Params, Params]:
    """Arguments and auxiliary states, without their prefixes `arg:` and `aux:`.

    Raises:
        DataError: a name has neither prefix.
    """
    groups: dict[str, Params] = {"arg": {}, "aux": {}}
    for name, value in arrays.items():
        kind, _, base = name.partition(":")
        if kind not in groups or not base:
            raise DataError(
                "a tensor has no arg: or aux: prefix",
                where=where,
                got=name,
                fix="save the model with Module.save_params or save_checkpoint",
            )
        groups[kind][base] = value
    return groups["arg"], groups["aux"]


def write_params(
    path: str | Path, arg: Mapping[str, mx.nd.NDArray], aux: Mapping[str, mx.nd.NDArray]
) -> None:
    """Writes a `.params` file; the old file stays until the new one is complete on disk.

    Raises:
        TrainingError: the disk is full or the folder is not writable.
    """
    write_arrays(path, join_params(arg, aux))


def join_params(
    arg: Mapping[str, mx.nd.NDArray], aux: Mapping[str, mx.nd.NDArray]
) -> dict[str, mx.nd.NDArray]:
    """One dictionary with the names of the file, `arg:` first."""
    arrays = {f"arg:{name}": value for name, value in arg.items()}
    arrays.update({f"aux:{name}": value for name, value in aux.items()})
    return arrays


def write_arrays(path: str | Path, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """Writes what `mx.nd.load` reads, atomically: the same bytes as `mx.nd.save`.

    `mx.nd.save` itself says nothing when the disk is full and leaves a truncated file.

    Raises:
        TrainingError: the disk is full or the folder is not writable.
    """

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            save_arrays(file, arrays)

    atomic_write(path, write)


def save_arrays(file: BinaryIO, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """Writes to an open file the bytes that `mx.nd.save` would write."""
    file.write(struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays)))
    for array in arrays.values():
        # What MXNet pickles of a tensor are its bytes in the file format.
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


def with_test_params(arg: Mapping[str, mx.nd.NDArray]) -> Params:
    """Copy of `arg` with weights and biases for test: `bbox_pred_weight_test`, ...

    Some layers learn numbers that are divided by constants (`Head.output_scales`); their test
    tensors give the plain numbers. Weights without such layers come back as they are.
    """
    result = dict(arg)
    for layer, scales in output_scales().items():
        if f"{layer}_weight" not in arg:
            continue
        weight, bias = arg[f"{layer}_weight"], arg[f"{layer}_bias"]
        factors = mx.nd.array(np.asarray(scales), ctx=weight.context, dtype=weight.dtype)
        result[f"{layer}_weight{TEST_SUFFIX}"] = weight * factors.reshape((-1, 1))
        result[f"{layer}_bias{TEST_SUFFIX}"] = bias * factors
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

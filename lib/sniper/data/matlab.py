"""MATLAB files, which only the lists of challenges need: SciPy and h5py are imported on demand."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sniper.errors import ConfigError, DataError

# Files of `save -v7.3` are HDF5 behind a block of 512 bytes.
_HDF5_MARK, _HDF5_PLACE = b"\x89HDF\r\n\x1a\n", 512
_CHARACTERS, _CELLS, _IS_EMPTY = b"char", b"cell", "MATLAB_empty"


def read_matlab(path: str | Path) -> dict[str, Any]:
    """The variables of a file.

    Numeric arrays are NumPy arrays, single numbers and texts are plain, an array of structures is a
    list of dicts, one structure a dict (`scipy.io.loadmat(simplify_cells=True)`).

    Raises:
        ConfigError: SciPy is not installed.
        DataError: the file cannot be read, or is no MATLAB file of version 5 (`save -v7` and
            older).
    """
    variables = _load(path, "matlab", simplify_cells=True)
    return {name: value for name, value in variables.items() if not name.startswith("__")}


def read_matlab_arrays(path: str | Path, names: Iterable[str]) -> dict[str, Any]:
    """Some variables of a file of any format from version 5 to 7.3, in one form.

    A cell array is a list of its cells, column by column; characters are a text; numbers are a 2D
    array. A file of version 7.3 is read by h5py, all others by SciPy.

    Args:
        path: the file.
        names: the variables that it must have.

    Raises:
        ConfigError: the library is not installed.
        DataError: the file cannot be read, or has no such variable.
    """
    names = list(names)
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HDF5_PLACE + len(_HDF5_MARK))
    except OSError as error:
        raise DataError("the MATLAB file cannot be read", where=path, got=error) from error
    if _HDF5_MARK in (head[_HDF5_PLACE:], head[: len(_HDF5_MARK)]):
        return _read_hdf5(path, names)
    variables = _load(path, "wider", variable_names=names)
    _check_names(path, names, variables)
    return {name: _plain(variables[name]) for name in names}


def _load(path: str | Path, extra: str, **options: Any) -> dict[str, Any]:
    scipy_io = _imported("scipy.io", "SciPy", "scipy", path, extra)
    try:
        return scipy_io.loadmat(path, appendmat=False, **options)
    # Whatever it stumbles over in a damaged file: it has no error of its own for this.
    except Exception as error:
        raise DataError(
            "the MATLAB file cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a file of MATLAB's version 5 format (save -v6 or -v7)",
        ) from error


def _imported(module: str, name: str, package: str, path: str | Path, extra: str) -> Any:
    try:
        # They have no types, and few need them.
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"MATLAB files are read by {name}, which cannot be imported",
            where=path,
            got=error,
            fix=f'pip install "sniper-mxnet[{extra}]", or pip install {package} "numpy<2"',
        ) from error


def _check_names(path: str | Path, names: list[str], variables: Iterable[str]) -> None:
    present = [name for name in variables if not name.startswith(("__", "#"))]
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(
            f"the MATLAB file has no variable {', '.join(missing)}",
            where=path,
            got=", ".join(present) or "no variable",
        )


def _plain(value: np.ndarray) -> Any:
    """What SciPy read as lists, texts and 2D arrays."""
    if value.dtype == object:
        return [_plain(cell) for cell in value.ravel(order="F")]
    if value.dtype.kind == "U":
        return "".join(value.ravel().tolist())
    return np.atleast_2d(value)


def _read_hdf5(path: str | Path, names: list[str]) -> dict[str, Any]:
    h5py = _imported("h5py", "h5py", "h5py", path, "wider")
    try:
        with h5py.File(path, "r") as file:
            _check_names(path, names, file.keys())
            return {name: _plain_hdf5(file, file[name]) for name in names}
    except DataError:
        raise
    # A damaged file: errors of several kinds come out of the library.
    except Exception as error:
        raise DataError(
            "the MATLAB file cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a file of MATLAB's version 7.3 format (HDF5)",
        ) from error


def _plain_hdf5(file: Any, dataset: Any) -> Any:
    """The same of a version 7.3 file, which has its arrays transposed."""
    kind = dataset.attrs.get("MATLAB_class", b"double")
    if dataset.attrs.get(_IS_EMPTY, 0):
        # What stands there is the shape.
        shape = tuple(np.asarray(dataset[()], np.int64).ravel().tolist())
        return {_CELLS: [], _CHARACTERS: ""}.get(kind, np.zeros(shape))
    content = np.asarray(dataset[()])
    if kind == _CELLS:
        return [_plain_hdf5(file, file[reference]) for reference in content.ravel()]
    if kind == _CHARACTERS:
        return "".join(map(chr, content.ravel().tolist()))
    return np.atleast_2d(content).T

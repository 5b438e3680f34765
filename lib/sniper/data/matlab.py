"""MATLAB files, read by SciPy, which only the lists of challenges need."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from sniper.errors import ConfigError, DataError


def read_matlab(path: str | Path) -> dict[str, Any]:
    """The variables of a file.

    Numeric arrays are NumPy arrays, single numbers and texts are plain, an array of structures is a
    list of dicts, one structure a dict (`scipy.io.loadmat(simplify_cells=True)`).

    Raises:
        ConfigError: SciPy is not installed.
        DataError: the file cannot be read, or is no MATLAB file of version 5 (`save -v7` and
            older).
    """
    try:
        # It has no types, and few need it.
        scipy_io = importlib.import_module("scipy.io")
    except ImportError as error:
        raise ConfigError(
            "MATLAB files are read by SciPy, which cannot be imported",
            where=path,
            got=error,
            fix='pip install "sniper-mxnet[matlab]", or pip install scipy "numpy<2"',
        ) from error
    try:
        variables = scipy_io.loadmat(path, appendmat=False, simplify_cells=True)
    # Whatever it stumbles over in a damaged file: it has no error of its own for this.
    except Exception as error:
        raise DataError(
            "the MATLAB file cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a file of MATLAB's version 5 format (save -v6 or -v7)",
        ) from error
    return {name: value for name, value in variables.items() if not name.startswith("__")}

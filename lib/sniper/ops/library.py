"""Loads the compiled operator library into MXNet, once per process."""

from __future__ import annotations

import threading
from pathlib import Path

import mxnet as mx

from sniper import native
from sniper.errors import OpsError

LIBRARY_NAME = "libsniper_ops.so"
# Present in `mx.nd` exactly when the library is loaded; stock MXNet has only `_contrib_` of it.
MARKER_OPERATOR = "MultiProposal"

_lock = threading.Lock()


def library_path() -> Path:
    """Absolute path where the build places the operator library."""
    return Path(native.__file__).resolve().with_name(LIBRARY_NAME)


def load_library() -> None:
    """Makes the operators known to MXNet; does nothing when they are known already.

    A third load of one library in one process fails in MXNet 1.9.1, hence the guard. Forked
    children inherit the operators, spawned ones load them again.

    Raises:
        OpsError: the library is missing, MXNet cannot load it, or `SNIPER_MAX_ISA` is wrong.
    """
    with _lock:
        if hasattr(mx.nd, MARKER_OPERATOR):
            return
        path = library_path()
        if not path.is_file():
            raise OpsError(
                "the operator library is missing",
                where=path,
                fix="run `bash scripts/compile.sh` in the checkout, or `pip install .` again",
            )
        native.isa()  # refuses a wrong SNIPER_MAX_ISA in clear words
        try:
            mx.library.load(str(path), verbose=False)
        except (OSError, mx.base.MXNetError) as error:
            raise OpsError(
                "MXNet cannot load the operator library",
                where=path,
                got=error,
                expected="a library that was built for MXNet 1.9 on this machine",
                fix="rebuild it with `bash scripts/compile.sh --force`",
            ) from error

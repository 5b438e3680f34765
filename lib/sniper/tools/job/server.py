"""The scheduler and the parameter servers of a job: MXNet's own, without its pickled optimizers.

`import mxnet` in a process with DMLC_ROLE=server never returns: it serves, and unpickles whatever
the network sends as an optimizer. Here the role is set after the import, and such messages are
refused: our servers only add up gradients.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

from sniper.errors import TrainingError
from sniper.tools.cli import run_main
from sniper.training.heartbeat import Heartbeat

ROLE_VARIABLE = "DMLC_ROLE"


def serve(role: str) -> None:
    """Serves as "scheduler" or "server" until the workers have ended.

    Raises:
        TrainingError: the address or port cannot be used.
    """
    os.environ[ROLE_VARIABLE] = "worker"
    import mxnet as mx
    from mxnet.base import _LIB, check_call

    os.environ[ROLE_VARIABLE] = role
    Heartbeat()
    # A local job's sockets are files, which only their owner shall use.
    os.umask(0o077)
    kvstore = mx.kv.create("dist")
    controller = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_refuse)
    try:
        check_call(_LIB.MXKVStoreRunServer(kvstore.handle, controller, None))
    except mx.MXNetError as error:
        raise TrainingError(
            f"the {role} of the job cannot serve",
            where=f"{os.environ['DMLC_PS_ROOT_URI']}:{os.environ['DMLC_PS_ROOT_PORT']}",
            got=str(error).splitlines()[-1],
            fix="if the port is in use, choose another with `sniper launch --port`",
        ) from error


def _refuse(command: int, body: bytes, _: object) -> None:
    print(f"refused: command {command} of {len(body or b'')} bytes", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Serves in the role that the environment says."""
    serve(os.environ[ROLE_VARIABLE])
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

"""What a process needs before MXNet 1.9.1 is imported: one place, run by `import sniper`.

* NumPy 1.24 removed the aliases `np.bool`, `np.object`, ... that MXNet 1.9.1 still reads.
* Extension operators are never told the write request: with 8 or more uses of one variable MXNet
  sums gradients in place and the operator would overwrite them. A high cap turns that off.
* MXNet uses half of the cores that it finds; it is about 1.8x slower when OMP_NUM_THREADS is unset.
"""

from __future__ import annotations

import ctypes
import os
import platform

import numpy as np

GRAD_SUM_CAP = "MXNET_EXEC_INPLACE_GRAD_SUM_CAP"
SAFE_GRAD_SUM_CAP = 1000

# glibc: the numbers of the two options in <malloc.h>, and the variables that choose them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_CHOSEN_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
LARGE_BYTES, KEPT_BYTES = 1 << 20, 8 << 20

_ALIASES = {"bool": bool, "object": object, "int": int, "float": float, "complex": complex}


def prepare_process() -> None:
    """Sets the aliases and the environment; keeps what the user has set, where that is safe."""
    for name, builtin in _ALIASES.items():
        if name not in np.__dict__:
            setattr(np, name, builtin)
    # The one variable that a lower value of the user's would turn into silently wrong gradients.
    cap = os.environ.get(GRAD_SUM_CAP, "")
    if not cap.isdigit() or int(cap) < SAFE_GRAD_SUM_CAP:
        os.environ[GRAD_SUM_CAP] = str(SAFE_GRAD_SUM_CAP)
    os.environ.setdefault("MXNET_CUDNN_AUTOTUNE_DEFAULT", "0")
    # Else every bind of an inference graph prints that oneDNN's fusion is on.
    os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def return_large_memory() -> bool:
    """Makes blocks of 1 MiB and more go back to the system when they are freed.

    By default glibc learns to keep them, in one heap for each of many threads: a process that
    detects for days then grows in steps of some MB although it holds nothing more. The price is
    about 3 % of the time of a small network on the CPU.

    Returns:
        Whether it is in force: with glibc, unless its variables are set (MALLOC_MMAP_THRESHOLD_,
        GLIBC_TUNABLES).
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in _CHOSEN_BY_USER):
        return False
    libc = ctypes.CDLL(None)
    options = ((_M_MMAP_THRESHOLD, LARGE_BYTES), (_M_TRIM_THRESHOLD, KEPT_BYTES))
    return all([libc.mallopt(option, value) == 1 for option, value in options])


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Environment variables of the processes of a job."""

from __future__ import annotations

import os
from pathlib import Path

# What goes along to other machines; all of it goes along on this one.
_TRAVELLING = ("PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_TRAVELLING_PREFIXES = ("MXNET_", "SNIPER_", "PS_", "OPENBLAS_", "CUDA_", "NVIDIA_")
# MXNet's servers would all listen on this port; hosting platforms set it.
NOT_WANTED = ["PORT"]


def initial_environment() -> dict[str, str]:
    """The environment that this process was started with, without what `import sniper` has set.

    The number of threads that is set there suits one process on a machine, not several.
    """
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}


def travelling_variables() -> dict[str, str]:
    """What processes on other machines get of this one's environment."""
    return {
        name: value
        for name, value in initial_environment().items()
        if name in _TRAVELLING or name.startswith(_TRAVELLING_PREFIXES)
    }

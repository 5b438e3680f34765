"""Compiled kernels: `_native` for host code, `libsniper_ops.so` for the MXNet graph.

Both are built from the same sources (one folder per operator), so host and graph agree bit for
bit. `_native` does not import MXNet and releases the GIL.

The kernels run on the best instruction set that the processor has, with equal bits on each. The
environment variable `SNIPER_MAX_ISA` limits it: `avx512`, `avx2` or `baseline`.
"""

from __future__ import annotations


def isa() -> str:
    """The instruction set that the kernels run on: "avx512", "avx2" or "baseline".

    It is settled once, when the kernels are loaded.

    Raises:
        OpsError: `SNIPER_MAX_ISA` names no instruction set.
        ImportError: the kernels have not been built.
    """
    from sniper.native import _native

    return _native.isa()

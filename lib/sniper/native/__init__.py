"""Compiled kernels: `_native` for host code, `libsniper_ops.so` for the MXNet graph.

Both are built from the same sources (one folder per operator), so host and graph agree bit for
bit. `_native` does not import MXNet and releases the GIL.
"""

"""The comparison that all self-tests share."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from sniper.errors import OpsError


def expect(op: str, output: str, got: mx.nd.NDArray, wanted: object) -> None:
    """Raises OpsError unless `got` equals `wanted` (shape and, within 1e-5, values)."""
    values = got.asnumpy()
    target = np.asarray(wanted, np.float32)
    if values.shape != target.shape or not np.allclose(values, target, rtol=1e-5, atol=1e-5):
        raise OpsError(
            f"the self-test of {op} failed: wrong numbers on this machine",
            where=f"output '{output}'",
            got=values.tolist(),
            expected=target.tolist(),
            fix="rebuild the native code with `bash scripts/compile.sh --force`",
        )

"""Front of ReLU6."""

from __future__ import annotations

import mxnet as mx

from sniper.ops.checks import Tensor, call, frontend


def relu6(data: Tensor, *, name: str = "relu6") -> Tensor:
    """min(max(data, 0), 6), as `clip(data, 0, 6)` to the bit, many times faster on the CPU.

    The gradient, too, is that of `clip`: it passes where 0 <= data <= 6, the limits included, and
    where data is NaN.

    Args:
        data: any shape, float32.
        name: the symbol's output is called `<name>_output`.

    Returns:
        Like `data`; NaN stays NaN.

    Raises:
        OpsError: the tensor is wrong, or the library is missing.
    """
    front = frontend("relu6", data=data)
    # The operator is not told to add to a gradient; `identity` in front of it is. Only variables
    # are asked to add: gradients of other nodes are written, and then summed.
    if front is mx.nd or data.get_children() is None:
        data = front.identity(data)
    return call("relu6", front, "ReLU6", [data], {}, name=name)

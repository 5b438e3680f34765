"""Front of convolutions with fewer multiplications, which are for CPUs only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from sniper.ops.checks import Tensor, call, frontend, with_added_gradients


def winograd_convolution(
    data: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    *,
    num_filter: int,
    pad: Sequence[int] = (0, 0),
    relu: bool = False,
    name: str = "winograd_convolution",
) -> Tensor:
    """A 3x3 convolution of stride 1 with a quarter of its multiplications.

    Winograd's F(4x4, 3x3) (Lavin and Gray 2016). The numbers of MXNet's `Convolution` to about
    1e-5 of the largest one; they do not depend on the number of threads, nor (but for gradients of
    weights) on the batch, and are equal to the bit on AVX2 and AVX-512. Differentiable in all
    inputs.

    Args:
        data: (N, channels, H, W).
        weight: (num_filter, channels, 3, 3).
        bias: (num_filter,); None: without.
        num_filter: channels of the output.
        pad: cells of the first window outside of the map, along y and x.
        relu: sums below 0 become 0.
        name: the symbol's output is called `<name>_output`.

    Returns:
        (N, num_filter, H + 2 pad - 2, W + 2 pad - 2).

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "winograd_convolution"
    tensors = {"data": data, "weight": weight}
    if bias is not None:
        tensors["bias"] = bias
    front = frontend(op, **tensors)
    arguments = {
        "num_filter": num_filter,
        "kernel": (3, 3),
        "pad": pad,
        "relu": relu,
        "no_bias": bias is None,
    }
    inputs = with_added_gradients(front, tensors.values())
    return call(op, front, "WinogradConvolution", inputs, arguments, name=name)

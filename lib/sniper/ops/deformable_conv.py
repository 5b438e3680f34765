"""Fronts of deformable convolution, which is for CPUs only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from sniper.ops.checks import Tensor, call, frontend, with_added_gradients


def deformable_convolution(
    data: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    *,
    num_filter: int,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    pad: Sequence[int] = (0, 0),
    dilate: Sequence[int] = (1, 1),
    num_group: int = 1,
    num_deformable_group: int = 1,
    name: str = "deformable_convolution",
) -> Tensor:
    """A convolution whose taps are moved by learned offsets (Dai et al. 2017, section 2.1).

    The same numbers as MXNet's `contrib.DeformableConvolution` but for the order of sums, faster on
    the CPU; GPUs have MXNet's alone. Differentiable in all inputs; results do not depend on the
    number of threads. They are equal to the bit on AVX2 and AVX-512; without either products are
    rounded as well. A sample is 0 outside of the map and where its offset is not finite.

    Args:
        data: (N, channels, H, W).
        offset: (N, num_deformable_group * taps * 2, h, w), y and x of every tap, in cells.
        weight: (num_filter, channels / num_group, *kernel).
        bias: (num_filter,); None: without.
        num_filter: channels of the output.
        kernel: taps along y and x.
        stride: cells from one window to the next, along y and x.
        pad: cells of the first window outside of the map.
        dilate: cells from one tap to the next.
        num_group: of channels and filters that belong together.
        num_deformable_group: of channels that share their offsets.
        name: the symbol's output is called `<name>_output`.

    Returns:
        (N, num_filter, h, w).

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "deformable_convolution"
    tensors = {"data": data, "offset": offset, "weight": weight}
    if bias is not None:
        tensors["bias"] = bias
    front = frontend(op, **tensors)
    arguments = {
        "num_filter": num_filter,
        "kernel": kernel,
        "stride": stride,
        "pad": pad,
        "dilate": dilate,
        "num_group": num_group,
        "num_deformable_group": num_deformable_group,
        "no_bias": bias is None,
    }
    inputs = with_added_gradients(front, tensors.values())
    return call(op, front, "DeformableConvolution", inputs, arguments, name=name)


def deformable_columns(
    data: Tensor,
    offset: Tensor,
    *,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    pad: Sequence[int] = (0, 0),
    dilate: Sequence[int] = (1, 1),
    num_deformable_group: int = 1,
    name: str = "deformable_columns",
) -> Tensor:
    """The samples that a deformable convolution multiplies by its weights; no gradient.

    A 1x1 convolution of them, with the weights as (num_filter, channels * taps, 1, 1), is the
    deformable convolution: for graphs whose products are integers.

    Args:
        data: (N, channels, H, W).
        offset: as for `deformable_convolution`.
        kernel: as there, and so on.
        stride: as there.
        pad: as there.
        dilate: as there.
        num_deformable_group: as there.
        name: the symbol's output is called `<name>_output`.

    Returns:
        (N, channels * taps, h, w), taps of the first channel first.

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "deformable_columns"
    front = frontend(op, data=data, offset=offset)
    arguments = {
        "kernel": kernel,
        "stride": stride,
        "pad": pad,
        "dilate": dilate,
        "num_deformable_group": num_deformable_group,
    }
    inputs = [front.BlockGrad(data), front.BlockGrad(offset)]
    return call(op, front, "DeformableColumns", inputs, arguments, name=name)

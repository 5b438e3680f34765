"""Deformable convolution as in stage 4 of the ResNets: 512 to 512 channels, 3x3, dilated by 2.

Maps of 38x50 cells (an image of 800x608 px, stride 16) and 32x32 cells (a chip of 512 px), four
groups of offsets, without bias; offsets of one cell (standard deviation).

Sides
* ours: `sniper.ops.deformable_convolution` on NDArrays, its argument checks included.
* mxnet: `mx.nd.contrib.DeformableConvolution` of the same MXNet. OpenBLAS multiplies there; how
  fast depends on whether its version knows the processor.

"forward" calls and waits; "forward + backward" records, calls, runs backward with a given head
gradient and waits for the gradients of data, offsets and weights. Compared: all outputs and
gradients to 1e-5 of the largest value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench.case import Arrays, Case, Job, Prepared, Side

CHANNELS, GROUPS, TAPS = 512, 4, 9
ATTRIBUTES = {
    "num_filter": CHANNELS,
    "kernel": (3, 3),
    "pad": (2, 2),
    "dilate": (2, 2),
    "num_deformable_group": GROUPS,
}
NAMES = ("data", "offset", "weight")


def inputs(rng: np.random.Generator, height: int, width: int) -> Arrays:
    shapes = {
        "data": (1, CHANNELS, height, width),
        "offset": (1, 2 * TAPS * GROUPS, height, width),
        "weight": (CHANNELS, CHANNELS, 3, 3),
        "head": (1, CHANNELS, height, width),
    }
    scales = {"weight": 0.02}
    return {
        name: rng.normal(0, scales.get(name, 1), shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx
    from sniper import ops

    def operator(*tensors: Any) -> Any:
        return ops.deformable_convolution(*tensors, **ATTRIBUTES)

    return prepared(mx, operator, arrays, params["backward"])


def mxnet(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx

    def operator(*tensors: Any) -> Any:
        return mx.nd.contrib.DeformableConvolution(*tensors, **ATTRIBUTES, no_bias=True)

    return prepared(mx, operator, arrays, params["backward"])


def prepared(mx: Any, operator: Any, arrays: Arrays, backward: bool) -> Prepared:
    tensors = [mx.nd.array(arrays[name]) for name in NAMES]
    head = mx.nd.array(arrays["head"])
    if backward:
        for tensor in tensors:
            tensor.attach_grad()
    mx.nd.waitall()

    def forward() -> Any:
        output = operator(*tensors)
        output.wait_to_read()
        return {"output": output}

    def forward_backward() -> Any:
        with mx.autograd.record():
            output = operator(*tensors)
        output.backward(head)
        gradients = {f"{name}_gradient": tensor.grad for name, tensor in zip(NAMES, tensors)}
        for gradient in gradients.values():
            gradient.wait_to_read()
        return {"output": output, **gradients}

    return Prepared(
        forward_backward if backward else forward,
        lambda results: {name: tensor.asnumpy() for name, tensor in results.items()},
    )


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    return "; ".join(
        agreement.close_array(ours[key], peer[key], key.replace("_", " "), 1e-5) for key in ours
    )


CASE = Case(
    name="deformable_conv",
    summary="deformable 3x3 convolution, 512 to 512 channels",
    jobs=[
        Job(
            f"{'forward + backward' if backward else 'forward'}, {height}x{width}",
            lambda rng, size=(height, width): inputs(rng, *size),
            {"backward": backward},
            goal={"mxnet": 2.0 if backward else 2.5},
        )
        for backward in (False, True)
        for height, width in ((38, 50), (32, 32))
    ],
    sides={"ours": Side(ours), "mxnet": Side(mxnet)},
    compare=compare,
)

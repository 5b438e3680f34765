"""Deformable PSRoI pooling as in the 2018 heads: 256 channels, 300 RoIs, 7x7 bins of 4x4 samples.

A 32x32 map (512x512 px, stride 16), group size 1, 7x7 offset cells, trans_std 0.1.

Sides
* ours: `sniper.ops.deformable_psroi_pooling` on NDArrays, its argument checks included.
* mxnet: `mx.nd.contrib.DeformablePSROIPooling` of the same MXNet.

"forward" calls and waits; "forward + backward" records, calls, runs backward with a given head
gradient and waits for the gradients of data and offsets. Compared: all outputs (and gradients) to
1e-4 (1e-3) of the largest value; MXNet sums gradients in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, Prepared, Side

CHANNELS, ROIS, BINS, CELLS, IMAGE_PX = 256, 300, 7, 32, 512
ATTRIBUTES = {
    "spatial_scale": 1 / 16,
    "output_dim": CHANNELS,
    "pooled_size": BINS,
    "group_size": 1,
    "part_size": BINS,
    "sample_per_part": 4,
    "trans_std": 0.1,
}


def inputs(rng: np.random.Generator, clustered: bool) -> Arrays:
    """Map, RoIs (of a proposal network, or anywhere), offsets and a head gradient."""
    if clustered:
        boxes = proposals(rng)
    else:
        corners = np.sort(rng.uniform(0, IMAGE_PX, (ROIS, 2, 2)), axis=1)
        boxes = corners.reshape(ROIS, 4)
    return {
        "data": rng.normal(size=(1, CHANNELS, CELLS, CELLS)).astype(np.float32),
        "rois": np.hstack([np.zeros((ROIS, 1)), boxes]).astype(np.float32),
        "trans": rng.normal(0, 0.5, (ROIS, 2, BINS, BINS)).astype(np.float32),
        "head": rng.normal(size=(ROIS, CHANNELS, BINS, BINS)).astype(np.float32),
    }


def proposals(rng: np.random.Generator) -> np.ndarray:
    """300 boxes around a dozen objects."""
    objects = make.objects(rng, IMAGE_PX, IMAGE_PX, 12)[rng.integers(0, 12, ROIS)]
    sides = np.tile(objects[:, 2:] - objects[:, :2], 2)
    return np.clip(objects + rng.normal(0, 0.15, (ROIS, 4)) * sides, 0, IMAGE_PX - 1)


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx
    from sniper import ops

    def operator(*tensors: Any) -> Any:
        return ops.deformable_psroi_pooling(*tensors, **ATTRIBUTES)

    return prepared(mx, operator, arrays, params["backward"])


def mxnet(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx

    def operator(*tensors: Any) -> Any:
        return mx.nd.contrib.DeformablePSROIPooling(*tensors, **ATTRIBUTES)

    return prepared(mx, operator, arrays, params["backward"])


def prepared(mx: Any, operator: Any, arrays: Arrays, backward: bool) -> Prepared:
    data, rois, trans, head = (
        mx.nd.array(arrays[name]) for name in ("data", "rois", "trans", "head")
    )
    if backward:
        data.attach_grad()
        trans.attach_grad()
    mx.nd.waitall()

    def forward() -> Any:
        pooled = operator(data, rois, trans)
        pooled.wait_to_read()
        return {"pooled": pooled}

    def forward_backward() -> Any:
        with mx.autograd.record():
            pooled = operator(data, rois, trans)
        pooled.backward(head)
        data.grad.wait_to_read()
        trans.grad.wait_to_read()
        return {"pooled": pooled, "data_gradient": data.grad, "trans_gradient": trans.grad}

    return Prepared(
        forward_backward if backward else forward,
        lambda results: {name: tensor.asnumpy() for name, tensor in results.items()},
    )


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    tolerance = {"pooled": 1e-4, "data_gradient": 1e-3, "trans_gradient": 1e-3}
    return "; ".join(
        agreement.close_array(ours[key], peer[key], key.replace("_", " "), tolerance[key])
        for key in ours
    )


CASE = Case(
    name="psroi",
    summary="deformable PSRoI pooling, 256 channels, 300 RoIs, 7x7",
    jobs=[
        Job(
            f"{'forward + backward' if backward else 'forward'}, {kind} RoIs",
            lambda rng, clustered=kind == "clustered": inputs(rng, clustered),
            {"backward": backward},
        )
        for backward in (False, True)
        for kind in ("clustered", "random")
    ],
    sides={"ours": Side(ours), "mxnet": Side(mxnet)},
    compare=compare,
    goal={"mxnet": 40.0},
)

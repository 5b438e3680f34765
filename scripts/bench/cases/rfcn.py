"""The two poolings of R-FCN-3000: 300 RoIs of a 32x32 map (512x512 px, stride 16), 7x7 bins.

* score maps: position-sensitive pooling without offsets, 2 x 7 x 7 channels, 4x4 samples.
* fine map: RoI max-pooling and the mean over the bins, one channel per class.

Sides
* ours: `sniper.ops.deformable_psroi_pooling` and `sniper.ops.roi_max_mean_pooling` on NDArrays.
* mxnet: `mx.nd.contrib.DeformablePSROIPooling`; `mx.nd.ROIPooling` and `mean` over its bins.

"forward" calls and waits; "forward + backward" records, calls, runs backward with a given head
gradient and waits for the gradient of the map. Compared to 1e-5 of the largest value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from bench import compare as agreement
from bench.case import Arrays, Case, Job, Prepared, Side
from bench.cases.psroi import BINS, CELLS, ROIS, proposals

SCORES = {
    "spatial_scale": 1 / 16,
    "output_dim": 2,
    "pooled_size": BINS,
    "group_size": BINS,
    "sample_per_part": 4,
}


def inputs(rng: np.random.Generator, channels: int, head: tuple[int, ...]) -> Arrays:
    """Map, RoIs of a proposal network and a head gradient."""
    return {
        "data": rng.normal(size=(1, channels, CELLS, CELLS)).astype(np.float32),
        "rois": np.hstack([np.zeros((ROIS, 1)), proposals(rng)]).astype(np.float32),
        "head": rng.normal(size=(ROIS, *head)).astype(np.float32),
    }


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx
    from sniper import ops

    if params["scores"]:
        return prepared(mx, partial(ops.deformable_psroi_pooling, **SCORES), arrays, params)
    pool = partial(ops.roi_max_mean_pooling, spatial_scale=1 / 16, pooled_size=BINS)
    return prepared(mx, pool, arrays, params)


def mxnet(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx

    def maxima(data: Any, rois: Any) -> Any:
        bins = mx.nd.ROIPooling(data, rois, pooled_size=(BINS, BINS), spatial_scale=1 / 16)
        return bins.mean(axis=(2, 3))

    scores = partial(mx.nd.contrib.DeformablePSROIPooling, no_trans=True, **SCORES)
    return prepared(mx, scores if params["scores"] else maxima, arrays, params)


def prepared(
    mx: Any, operator: Callable[..., Any], arrays: Arrays, params: Mapping[str, Any]
) -> Prepared:
    data, rois, head = (mx.nd.array(arrays[name]) for name in ("data", "rois", "head"))
    if params["backward"]:
        data.attach_grad()
    mx.nd.waitall()

    def forward() -> Any:
        pooled = operator(data, rois)
        pooled.wait_to_read()
        return {"pooled": pooled}

    def forward_backward() -> Any:
        with mx.autograd.record():
            pooled = operator(data, rois)
        pooled.backward(head)
        data.grad.wait_to_read()
        return {"pooled": pooled, "gradient": data.grad}

    return Prepared(
        forward_backward if params["backward"] else forward,
        lambda results: {name: tensor.asnumpy() for name, tensor in results.items()},
    )


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    return "; ".join(agreement.close_array(ours[key], peer[key], key, 1e-5) for key in ours)


def jobs() -> list[Job]:
    sizes = {"score maps": (2 * BINS**2, (2, BINS, BINS))}
    sizes.update(
        {f"fine map of {classes} classes": (classes, (classes,)) for classes in (120, 1000)}
    )
    return [
        Job(
            f"{'forward + backward' if backward else 'forward'}, {name}",
            lambda rng, channels=channels, head=head: inputs(rng, channels, head),
            {"backward": backward, "scores": name == "score maps"},
        )
        for backward in (False, True)
        for name, (channels, head) in sizes.items()
    ]


CASE = Case(
    name="rfcn",
    summary="poolings of R-FCN-3000: score maps, and the map of fine classes; 300 RoIs, 7x7",
    jobs=jobs(),
    sides={"ours": Side(ours), "mxnet": Side(mxnet)},
    compare=compare,
)

"""Proposals of an RPN map: decode all anchors, the best 6000, NMS at 0.7, 300 boxes an image.

Sides
* ours: the operator `mx.nd.MultiProposal` itself, called and waited for (`sniper.ops` adds argument
  checks to it, and in graphs a BlockGrad).
* mxnet: `mx.nd.contrib.MultiProposal` of the same MXNet, same attributes, same call.
* openvino: Proposal (opset 4), framework "". It decodes a box one pixel longer to the right and
  down than everybody else (no -1 in the size). So its deltas are re-encoded, outside of the timing,
  such that it decodes the very boxes that the others have; all that follows is the same by
  definition: clip to the image, +1 sides, least side 3 px.

Compared: the boxes of every image as sets, to 0.05 px. The three round differently (their exp
differs in the last bits, and OpenVINO divides where we multiply), so an IoU next to 0.7 may fall to
the other side, which changes which later boxes survive.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, Prepared, Side

PRE_NMS, POST_NMS, THRESHOLD, MIN_SIZE = 6000, 300, 0.7, 3
SIZES = ((32, 32), (50, 80), (88, 125))
BATCHES = (1, 16)
ATTRIBUTES = {
    "rpn_pre_nms_top_n": PRE_NMS,
    "rpn_post_nms_top_n": POST_NMS,
    "threshold": THRESHOLD,
    "rpn_min_size": MIN_SIZE,
    "scales": make.SCALES,
    "ratios": make.RATIOS,
    "feature_stride": make.STRIDE_PX,
}
# Of 300 boxes of an image.
LEAST_EQUAL = {"clustered": 295, "random": 290}


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx
    from sniper import ops

    ops.load_library()
    return _mxnet_call(mx, mx.nd.MultiProposal, arrays)


def mxnet(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx

    return _mxnet_call(mx, partial(mx.nd.contrib.MultiProposal, output_score=True), arrays)


def _mxnet_call(mx: Any, operator: Any, arrays: Arrays) -> Prepared:
    tensors = [mx.nd.array(arrays[name]) for name in ("cls_prob", "bbox_pred", "im_info")]
    mx.nd.waitall()

    def run() -> Any:
        outputs = operator(*tensors, **ATTRIBUTES)
        outputs[0].wait_to_read()
        return outputs

    return Prepared(run, lambda outputs: {"rois": outputs[0].asnumpy()})


def openvino(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers import openvino as peer

    operators = peer.opset()
    inputs = {
        "cls_prob": arrays["cls_prob"],
        "bbox_pred": reencoded(arrays["bbox_pred"]),
        "im_info": arrays["im_info"][0],
    }
    attributes = {
        "base_size": np.uint(make.STRIDE_PX),
        "feat_stride": np.uint(make.STRIDE_PX),
        "pre_nms_topn": np.uint(PRE_NMS),
        "post_nms_topn": np.uint(POST_NMS),
        "nms_thresh": np.float32(THRESHOLD),
        "min_size": np.uint(MIN_SIZE),
        "ratio": np.array(make.RATIOS, np.float32),
        "scale": np.array(make.SCALES, np.float32),
        "clip_before_nms": True,
        "clip_after_nms": False,
        "normalize": False,
        "framework": "",
    }
    nodes = peer.parameters(inputs)
    node = operators.proposal(*nodes.values(), attributes)
    run = peer.compiled(node, nodes, inputs, threads)
    return Prepared(run, lambda outputs: {"rois": outputs[0]})


def reencoded(bbox_pred: np.ndarray) -> np.ndarray:
    """Deltas with which OpenVINO decodes the same boxes: a size one pixel less, a centre half."""
    base = make.base_anchors()
    sides = (base[:, 2:] - base[:, :2] + 1)[None, :, :, None, None]
    images, _, height, width = bbox_pred.shape
    deltas = bbox_pred.reshape(images, make.NUM_ANCHORS, 4, height, width).astype(np.float64)
    deltas[:, :, :2] -= 0.5 / sides
    # Boxes of less than a pixel have no size that OpenVINO could decode; all drop them anyway.
    deltas[:, :, 2:] = np.log(np.maximum(np.exp(deltas[:, :, 2:]) - 1 / sides, 1e-4 / sides))
    return np.ascontiguousarray(deltas.reshape(bbox_pred.shape).astype(np.float32))


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    images = job.params["images"]
    boxes, others = (side["rois"].reshape(images, POST_NMS, 5) for side in (ours, peer))
    agreement.require(
        bool((boxes[..., 0] == others[..., 0]).all()), "image indices", "the same on both sides"
    )
    least = LEAST_EQUAL[job.params["kind"]] / POST_NMS
    return agreement.same_boxes(boxes[..., 1:], others[..., 1:], least, tolerance=0.05)


def jobs() -> list[Job]:
    return [
        Job(
            f"{height}x{width}, batch {images}, {kind}",
            partial(
                make.rpn_maps,
                height=height,
                width=width,
                images=images,
                clustered=kind == "clustered",
            ),
            {"images": images, "kind": kind},
            goal=None if kind == "clustered" else {},
        )
        for kind in ("clustered", "random")
        for images in BATCHES
        for height, width in SIZES
    ]


CASE = Case(
    name="multi_proposal",
    summary="RPN maps (21 anchors, stride 16) to 300 proposals an image",
    jobs=jobs(),
    sides={"ours": Side(ours), "mxnet": Side(mxnet), "openvino": Side(openvino, foreign=True)},
    compare=compare,
    goal={"mxnet": 8.0, "openvino": 3.0},
)

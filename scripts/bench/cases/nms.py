"""Hard NMS of one class at IoU 0.7, stopped when enough boxes are kept.

Sides
* ours: `sniper.native._native.hard_nms(dets, 0.7, max_output)`.
* onnxruntime: NonMaxSuppression, corner boxes, max_output_boxes_per_class.
* openvino: NonMaxSuppression (opset 9), the same.
* torchvision (when installed): `torchvision.ops.nms`, which has no limit on the kept boxes and
  computes all of them; so it has no goal.

We count inclusive pixels (+1 sides) and the peers do not; they get x2 + 1 and y2 + 1. The corners
lie on a grid of 1/16 px, where both are the same float32 numbers. Compared: the kept rows and their
order, exactly.

The boxes are the best ones of a decoded RPN map of 50x80 cells (6000) or 88x125 cells (12000).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, Prepared, Side

THRESHOLD = 0.7


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from sniper.native._native import hard_nms

    dets, limit = arrays["dets"], params["max_output"]
    return Prepared(
        lambda: hard_nms(dets, THRESHOLD, limit), lambda kept: {"kept": kept.astype(np.int64)}
    )


def exclusive(dets: np.ndarray, columns: tuple[int, ...]) -> np.ndarray:
    """Boxes whose right and bottom edges lie one pixel further, columns reordered."""
    boxes = dets[:, :4] + np.array([0, 0, 1, 1], np.float32)
    return np.ascontiguousarray(boxes[:, columns])


def onnxruntime(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers import onnxruntime as peer

    dets = arrays["dets"]
    run = peer.session(
        "NonMaxSuppression",
        {
            "boxes": exclusive(dets, (1, 0, 3, 2))[None],
            "scores": np.ascontiguousarray(dets[:, 4])[None, None],
        },
        {
            "max_output": np.array([params["max_output"]], np.int64),
            "iou_threshold": np.array([THRESHOLD], np.float32),
            "score_threshold": np.array([0], np.float32),
        },
        {"selected": "INT64"},
        threads,
        center_point_box=0,
    )
    return Prepared(run, lambda outputs: {"kept": outputs[0][:, 2]})


def openvino(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers import openvino as peer

    operators = peer.opset()
    dets = arrays["dets"]
    inputs = {
        "boxes": exclusive(dets, (1, 0, 3, 2))[None],
        "scores": np.ascontiguousarray(dets[:, 4])[None, None],
    }
    nodes = peer.parameters(inputs)
    node = operators.non_max_suppression(
        *nodes.values(),
        operators.constant(np.int64(params["max_output"])),
        operators.constant(np.float32(THRESHOLD)),
        operators.constant(np.float32(0)),
        box_encoding="corner",
        sort_result_descending=False,
    )
    run = peer.compiled(node, nodes, inputs, threads)

    def outputs(results: Any) -> Arrays:
        count = int(results[2].reshape(-1)[0])
        return {"kept": results[0][:count, 2].astype(np.int64)}

    return Prepared(run, outputs)


def torchvision(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers.torchvision_ops import torchvision_ops

    torch, ops = torchvision_ops(threads)
    boxes = torch.from_numpy(exclusive(arrays["dets"], (0, 1, 2, 3)))
    scores = torch.from_numpy(np.ascontiguousarray(arrays["dets"][:, 4]))
    limit = params["max_output"]
    return Prepared(
        lambda: ops.nms(boxes, scores, THRESHOLD), lambda kept: {"kept": kept.numpy()[:limit]}
    )


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    return agreement.same_prefix(ours["kept"], peer["kept"], "kept rows")


def job(boxes: int, max_output: int, kind: str, noise: float) -> Job:
    return Job(
        f"{boxes} to {max_output}, {kind}",
        lambda rng: {"dets": make.top_boxes(rng, boxes, kind == "clustered", noise)},
        {"max_output": max_output},
        goal=None if kind == "clustered" else {},
    )


CASE = Case(
    name="nms",
    summary="hard NMS of one class, IoU 0.7",
    # With more noise in its scores the larger set has 2000 boxes that survive.
    jobs=[
        job(boxes, max_output, kind, noise)
        for boxes, max_output, noise in ((6000, 300, 1.0), (12000, 2000, 2.0))
        for kind in ("clustered", "random")
    ],
    sides={
        "ours": Side(ours),
        "onnxruntime": Side(onnxruntime, foreign=True),
        "openvino": Side(openvino, foreign=True),
        "torchvision": Side(torchvision, foreign=True),
    },
    compare=compare,
    goal={"onnxruntime": 1.5, "openvino": 1.5},
)

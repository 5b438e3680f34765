"""Gaussian soft-NMS of one class: an overlap o multiplies a score by exp(-o^2 / 0.55).

Sides
* ours: `sniper.native._native.soft_nms(dets, 0.55, 0.001)`.
* openvino: NonMaxSuppression (opset 9). It decays by exp(-0.5 o^2 / sigma), so it gets half of our
  sigma; its IoU threshold is 1, which no two different boxes reach; the same least score.

Pixel convention as in the case `nms`. Compared: the sets of boxes that stay, and their scores to
1e-5. A box whose decayed score is within 1e-5 of the least score may be missing on one side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, Prepared, Side

SIGMA, LEAST_SCORE = 0.55, 0.001
TOLERANCE = 1e-5
SIZES = (300, 1000, 3000)
PIXEL = np.array([0, 0, 1, 1, 0], np.float32)


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from sniper.native._native import soft_nms

    dets = arrays["dets"]
    return Prepared(lambda: soft_nms(dets, SIGMA, LEAST_SCORE), lambda rows: {"rows": rows})


def openvino(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers import openvino as peer

    operators = peer.opset()
    dets = arrays["dets"]
    inputs = {
        "boxes": np.ascontiguousarray((dets + PIXEL)[None, :, [1, 0, 3, 2]]),
        "scores": np.ascontiguousarray(dets[:, 4])[None, None],
    }
    nodes = peer.parameters(inputs)
    node = operators.non_max_suppression(
        *nodes.values(),
        operators.constant(np.int64(len(dets))),
        operators.constant(np.float32(1)),
        operators.constant(np.float32(LEAST_SCORE)),
        operators.constant(np.float32(SIGMA / 2)),
        box_encoding="corner",
        sort_result_descending=False,
    )
    run = peer.compiled(node, nodes, inputs, threads)

    def outputs(results: Any) -> Arrays:
        count = int(results[2].reshape(-1)[0])
        chosen = results[0][:count, 2]
        return {"rows": np.hstack([dets[chosen, :4], results[1][:count, 2:]])}

    return Prepared(run, outputs)


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    scores = [{tuple(row[:4]): row[4] for row in side["rows"].tolist()} for side in (ours, peer)]
    common = scores[0].keys() & scores[1].keys()
    alone = [side[box] for side in scores for box in side.keys() - common]
    sentence = f"{len(common)} boxes on both sides, {len(alone)} on one only"
    doubtful = all(score < LEAST_SCORE + TOLERANCE for score in alone)
    agreement.require(doubtful, sentence, "only scores next to the least score alone")
    worst = max((abs(scores[0][box] - scores[1][box]) for box in common), default=0.0)
    return agreement.require(
        worst <= TOLERANCE, f"{sentence}, scores to {worst:.0e}", f"scores to {TOLERANCE:.0e}"
    )


def job(boxes: int, kind: str) -> Job:
    # The best boxes of a map lie on few objects; a sample of more of them is like a class's boxes.
    return Job(
        f"{boxes} boxes, {kind}",
        lambda rng: {"dets": make.top_boxes(rng, 6000, kind == "clustered")[:boxes]},
        goal=None if kind == "clustered" else {},
    )


CASE = Case(
    name="soft_nms",
    summary="Gaussian soft-NMS of one class, sigma 0.55",
    jobs=[job(boxes, kind) for kind in ("clustered", "random") for boxes in SIZES],
    sides={"ours": Side(ours), "openvino": Side(openvino, foreign=True)},
    compare=compare,
    goal={"openvino": 1.2},
)

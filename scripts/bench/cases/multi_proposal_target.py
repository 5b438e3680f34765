"""Training proposals with labels, as a share of the time of our own MultiProposal.

16 chips of 512x512 px, the same scores and deltas, the best 6000 boxes into the NMS, 300 out of it;
100 GT slots, about a dozen used. The valid range holds every box, so that nobody has less to do.

Sides
* MultiProposalTarget: `mx.nd.MultiProposalTarget`.
* MultiProposal: `mx.nd.MultiProposal`.

The ratio is the time of the former divided by that of the latter: labels and targets should be
cheap. Compared: the target operator's areas lack the +1 of the other's (2018 behaviour), so
different boxes survive its NMS. But a box that only one of them keeps overlaps a box of the other
by the threshold: at least 95 % of the target operator's best 200 proposals (for the last ones it
goes deeper down the scores) must have an IoU of 0.65 with one of the other's, in every image. The
GT boxes must be its last RoIs and carry a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, Prepared, Side

CHIPS, CELLS, GT_SLOTS, ROIS = 16, 32, 100, 300
ATTRIBUTES = {
    "rpn_pre_nms_top_n": 6000,
    "rpn_post_nms_top_n": ROIS,
    "threshold": 0.7,
    "rpn_min_size": 3,
    "scales": make.SCALES,
    "ratios": make.RATIOS,
    "feature_stride": make.STRIDE_PX,
}
BEST, LEAST_SHARE, LEAST_IOU = 200, 0.95, 0.65


def inputs(rng: np.random.Generator, clustered: bool) -> Arrays:
    maps = make.rpn_maps(rng, CELLS, CELLS, CHIPS, clustered)
    gt = np.full((CHIPS, GT_SLOTS, 5), -1, np.float32)
    for chip in gt:
        count = int(rng.integers(4, 20))
        chip[:count, :4] = make.objects(rng, 512, 512, count)
        chip[:count, 4] = rng.integers(1, 81, count)
    ranges = np.tile(np.array([0, 1e5], np.float32), (CHIPS, 1))
    return {**maps, "gt_boxes": gt, "valid_ranges": ranges}


def target(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    mx = loaded_mxnet()
    tensors = [mx.nd.array(arrays[name]) for name in ("bbox_pred", "im_info")]
    # The same memory in the layout of the training graph.
    scores = mx.nd.array(arrays["cls_prob"].reshape(CHIPS, 2, -1, CELLS))
    truth = [mx.nd.array(arrays[name]) for name in ("gt_boxes", "valid_ranges")]
    mx.nd.waitall()

    def run() -> Any:
        outputs = mx.nd.MultiProposalTarget(scores, *tensors, *truth, **ATTRIBUTES)
        outputs[0].wait_to_read()
        return outputs

    return Prepared(
        run,
        lambda outputs: {
            "rois": outputs[0].asnumpy(),
            "label": outputs[1].asnumpy(),
            "gt_boxes": arrays["gt_boxes"],
        },
    )


def proposal(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    mx = loaded_mxnet()
    tensors = [mx.nd.array(arrays[name]) for name in ("cls_prob", "bbox_pred", "im_info")]
    mx.nd.waitall()

    def run() -> Any:
        outputs = mx.nd.MultiProposal(*tensors, **ATTRIBUTES)
        outputs[0].wait_to_read()
        return outputs

    return Prepared(run, lambda outputs: {"rois": outputs[0].asnumpy()})


def loaded_mxnet() -> Any:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx
    from sniper import ops

    ops.load_library()
    return mx


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    rois, others = (side["rois"].reshape(CHIPS, ROIS, 5)[..., 1:] for side in (ours, peer))
    labels = ours["label"].reshape(CHIPS, ROIS)
    shares = []
    for boxes, label, truth, proposals in zip(rois, labels, ours["gt_boxes"], others):
        truth = truth[truth[:, 4] != -1]
        appended = boxes[-len(truth) :]
        agreement.require(
            sorted(map(tuple, appended.tolist())) == sorted(map(tuple, truth[:, :4].tolist())),
            "the last RoIs of an image",
            "its GT boxes",
        )
        agreement.require(
            bool((label[-len(truth) :] > 0).all()), "labels of the GT boxes", "their classes"
        )
        found = [make.iou(proposals, box).max() >= LEAST_IOU for box in boxes[:BEST]]
        shares.append(np.mean(found))
    sentence = (
        f"GT in place; {100 * min(shares):.0f} % of the best {BEST} proposals have a partner "
        f"(IoU {LEAST_IOU}) in the worst of {CHIPS} images"
    )
    return agreement.require(
        min(shares) >= LEAST_SHARE, sentence, f"at least {100 * LEAST_SHARE:.0f} %"
    )


CASE = Case(
    name="multi_proposal_target",
    summary="training proposals with labels: 16 chips, as a share of our own MultiProposal's time",
    jobs=[
        Job(f"16 chips, {kind}", lambda rng, clustered=kind == "clustered": inputs(rng, clustered))
        for kind in ("clustered", "random")
    ],
    sides={"MultiProposalTarget": Side(target), "MultiProposal": Side(proposal)},
    compare=compare,
    goal={"MultiProposal": 1.3},
    share=True,
)

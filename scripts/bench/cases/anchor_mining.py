"""Targets of one module of SSH with hard example mining: AnchorMiningTarget on crops and images.

Maps of crops of 640 px (and of one image of 1200x1600 px, as in the paper), two sizes of anchors
a module, at most 256 of them trained in an image, 64 of these positive. Faces of half the smallest
to twice the largest anchor's side, a tenth of them ignored; 100 rows for each kind.

Sides
* ours: the compiled operator, through NumPy.
* numpy: the matrix of all overlaps of an image, and sorts; written for this benchmark.
* loop: one anchor at a time, sniper.targets.mining_reference, which is made to be read; only on one
  map, the smallest.

Compared: labels, numbers of anchors and weights exactly, box targets to 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, Prepared, Side

ROWS = 100
IGNORED_SHARE = 0.1
BATCH_SIZE, POSITIVES = 256, 64
POSITIVE_OVERLAP, NEGATIVE_OVERLAP, IGNORE_OVERLAP = 0.5, 0.3, 0.3
MODULES = {
    1: {"scales": (1, 2), "feature_stride": 8, "border": 0},
    2: {"scales": (4, 8), "feature_stride": 16, "border": 0},
    3: {"scales": (16, 32), "feature_stride": 32, "border": 512},
}


def inputs(
    rng: np.random.Generator, module: int, images: int, size: tuple[int, int], faces: int
) -> Arrays:
    """Probabilities without ties, whole images of `size` (height, width) px, faces and others."""
    settings = MODULES[module]
    height, width = (-(-side // settings["feature_stride"]) for side in size)
    scores = rng.random((images, len(settings["scales"]) * height, width))
    face = make.distinct(scores)
    rows = np.full((2, images, ROWS, 5), -1, np.float32)
    ignored = round(IGNORED_SHARE * faces)
    for image in range(images):
        boxes = squares(rng, settings["scales"], size, faces)
        rows[0, image, : faces - ignored] = boxes[ignored:]
        rows[1, image, :ignored] = boxes[:ignored]
    return {
        "cls_prob": np.stack([1 - face, face], axis=1),
        "im_info": np.tile(np.float32([*size, 1]), (images, 1)),
        "gt_boxes": rows[0],
        "ignore_boxes": rows[1],
    }


def squares(
    rng: np.random.Generator, scales: tuple[int, ...], size: tuple[int, int], count: int
) -> np.ndarray:
    """Faces (count, 5) around the sizes of a module's anchors, cut at the image's border."""
    low, high = 16 * scales[0] / 2, 16 * scales[-1] * 2
    sides = np.exp(rng.uniform(np.log(low), np.log(high), (count, 1)))
    sides = sides * np.exp(rng.normal(0, 0.1, (count, 2)))
    centres = rng.uniform(0, 1, (count, 2)) * size[::-1]
    limits = np.array(size[::-1]) - 1
    first = np.clip(centres - sides / 2, 0, limits)
    last = np.clip(centres + sides / 2, 0, limits)
    return np.hstack([first, last, np.ones((count, 1))]).astype(np.float32)


def named(results: tuple[np.ndarray, ...]) -> Arrays:
    return dict(zip(("label", "target", "weight", "count"), results))


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from sniper.native._native import anchor_mining_target

    return Prepared(lambda: anchor_mining_target(**arrays, **MODULES[params["module"]]), named)


def loop(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from sniper.targets.mining_reference import anchor_mining_target

    return Prepared(lambda: anchor_mining_target(**arrays, **MODULES[params["module"]]), named)


def numpy(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    settings = MODULES[params["module"]]
    count, (rows, width) = len(settings["scales"]), arrays["cls_prob"].shape[2:]
    shape = (count, rows // count, width)
    sides = 16 * np.array(settings["scales"], np.float32)
    near, far = 7.5 - (sides - 1) / 2, 7.5 + (sides - 1) / 2
    base = np.stack([near, near, far, far], axis=1)

    def run() -> tuple[np.ndarray, ...]:
        y, x = np.mgrid[: shape[1], :width].astype(np.float32) * settings["feature_stride"]
        shifts = np.stack([x, y, x, y], axis=-1)
        anchors = (base[:, None, None] + shifts).reshape(-1, 4).astype(np.float32)
        results = [
            of_image(anchors, settings["border"], prob[1].ravel(), size, faces, ignored)
            for prob, size, faces, ignored in zip(
                *(arrays[name] for name in ("cls_prob", "im_info", "gt_boxes", "ignore_boxes"))
            )
        ]
        label, target, weight, counts = (np.stack(parts) for parts in zip(*results))
        # (N, anchors, 4) -> (N, 4A, h, w)
        planes = [
            part.reshape(-1, *shape, 4).transpose(0, 1, 4, 2, 3).reshape(-1, 4 * count, *shape[1:])
            for part in (target, weight)
        ]
        return label, *map(np.ascontiguousarray, planes), counts

    return Prepared(run, named)


def of_image(
    anchors: np.ndarray,
    border: float,
    scores: np.ndarray,
    size: np.ndarray,
    faces: np.ndarray,
    ignored: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Label (n,), box target and weight (n, 4), and numbers (2,) of one image's anchors (n, 4)."""
    faces, ignored = (rows[rows[:, 4] >= 0, :4] for rows in (faces, ignored))
    inside = (anchors[:, :2] >= -border).all(axis=1)
    inside &= (anchors[:, 2:] < size[1::-1] + border).all(axis=1)
    usable = np.flatnonzero(inside) if inside.any() else np.arange(len(anchors))
    near_ignored = overlaps(anchors[usable], ignored).max(axis=1, initial=0) > IGNORE_OVERLAP
    usable = usable[~near_ignored]
    matrix = overlaps(anchors[usable], faces)
    best = matrix.max(axis=1, initial=0)
    positive = np.flatnonzero(best >= POSITIVE_OVERLAP)
    positive = positive[np.argsort(scores[usable[positive]], kind="stable")[:POSITIVES]]
    negative = usable[best < NEGATIVE_OVERLAP]
    order = np.argsort(-scores[negative], kind="stable")
    negative = negative[order[: BATCH_SIZE - len(positive)]]
    label = np.full(len(anchors), -1, np.float32)
    target = np.zeros((len(anchors), 4), np.float32)
    weight = np.zeros_like(target)
    label[negative], label[usable[positive]] = 0, 1
    trained = np.float32(len(positive) + len(negative))
    if len(positive):
        own = anchors[usable[positive]]
        target[usable[positive]] = encode(own, faces[matrix[positive].argmax(axis=1)])
        weight[usable[positive]] = 1 / trained
    return label, target, weight, np.float32([len(positive), trained])


def overlaps(anchors: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU (n, m), sides with +1."""
    anchors, boxes = anchors[:, None], boxes[None]
    sides = np.minimum(anchors[..., 2:], boxes[..., 2:])
    sides = sides - np.maximum(anchors[..., :2], boxes[..., :2]) + 1
    common = np.maximum(sides, 0).prod(axis=2)
    areas = [(part[..., 2:] - part[..., :2] + 1).prod(axis=2) for part in (anchors, boxes)]
    return common / (areas[0] + areas[1] - common)


def encode(anchors: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """dx, dy, dw, dh (n, 4), with centres at x1 + side / 2."""
    sizes, wanted = (part[:, 2:] - part[:, :2] + 1 for part in (anchors, boxes))
    shift = boxes[:, :2] + wanted / 2 - anchors[:, :2] - sizes / 2
    return np.hstack([shift / sizes, np.log(wanted / sizes)])


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    agreement.same_array(ours["count"], peer["count"], "numbers of trained anchors")
    agreement.same_array(ours["label"], peer["label"], "labels")
    agreement.same_array(ours["weight"], peer["weight"], "weights")
    targets = agreement.close_array(ours["target"], peer["target"], "targets", 1e-6)
    positives, trained = ours["count"].sum(axis=0)
    return f"{trained:.0f} anchors ({positives:.0f} positive) and weights identical, {targets}"


def job(
    name: str,
    module: int,
    images: int,
    size: tuple[int, int],
    faces: int,
    peers: tuple[str, ...] = ("numpy",),
) -> Job:
    return Job(
        f"module {module}, {name}, {faces} faces",
        lambda rng: inputs(rng, module, images, size, faces),
        params={"module": module},
        peers=peers,
        goal={"numpy": 12.0} if "numpy" in peers else {},
    )


CASE = Case(
    name="anchor_mining",
    summary="labels and targets of a module of SSH with hard example mining",
    jobs=[
        job("8 crops of 640 px", 1, 8, (640, 640), 10),
        job("8 crops of 640 px", 2, 8, (640, 640), 10),
        job("8 crops of 640 px", 3, 8, (640, 640), 10),
        job("a crop of 640 px", 3, 1, (640, 640), 10, ("loop",)),
        job("an image of 1200x1600 px", 1, 1, (1200, 1600), 90),
    ],
    sides={"ours": Side(ours), "numpy": Side(numpy), "loop": Side(loop)},
    compare=compare,
)

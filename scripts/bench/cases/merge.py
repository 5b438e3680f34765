"""Detections of all levels to the result of an image: valid ranges, soft-NMS per class, cap.

Sides
* ours: `sniper.inference.merge_levels.merge_levels`, one native call for all classes.
* numpy: class after class, soft-NMS as it is usually written in NumPy: the best row, the overlaps
  of all others with it at once, until nothing is left.

Inputs are rows above the score floor of 0.001. *Recorded* ones are those of a test image of the toy
set (10 classes, 3 levels of 300 RoIs, sniper_mobilenetv2_toy_long). The others are made: RoIs
around objects, whose scores are a softmax (a part of the classes of a RoI is above the floor), or
above the floor in all 80 classes, which is the worst that can come; that job has no cap. Compared:
classes and their numbers of rows, boxes, and scores to 1e-5; a row whose score is within 1e-5 of
the floor or of the cap's threshold may be missing on one side.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, Prepared, Side

RECORDED = Path(__file__).resolve().parent.parent / "recorded" / "merge_toy.npz"
SIGMA, LEAST_SCORE = 0.55, 0.001
TOLERANCE = 1e-5
CLASSES, LEVELS, ROIS, OBJECTS = 80, 3, 300, 15
RANGES = np.float32([[-1, 80], [32, 150], [120, -1]])
GOAL, CAPPED = {"numpy": 20.0}, {"cap": 200}


def recorded(rng: np.random.Generator) -> Arrays:
    with np.load(RECORDED) as content:
        return dict(content)


def made(rng: np.random.Generator, *, dense: bool) -> Arrays:
    """Rows of 80 classes at three levels, around the same objects."""
    objects = make.objects(rng, 480, 640, OBJECTS)
    kinds = rng.integers(0, CLASSES, OBJECTS)
    parts = [level_rows(rng, objects, kinds, level, dense) for level in range(LEVELS)]
    rows, classes, levels = (np.concatenate(column) for column in zip(*parts))
    return {"rows": rows, "classes": classes, "levels": levels, "ranges": RANGES}


def level_rows(
    rng: np.random.Generator, objects: np.ndarray, kinds: np.ndarray, level: int, dense: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    owner = rng.integers(0, OBJECTS, ROIS)
    sides = np.tile(objects[owner, 2:] - objects[owner, :2], 2)
    boxes = objects[owner] + rng.normal(0, 0.12, (ROIS, 4)) * sides
    logits = rng.normal(0, 1.5, (ROIS, CLASSES + 1))
    logits[:, -1] += 6  # the background
    logits[np.arange(ROIS), kinds[owner]] += rng.normal(6, 2, ROIS)
    scores = np.exp(logits)
    scores = (scores / scores.sum(axis=1, keepdims=True))[:, :-1]
    if dense:
        others = np.exp(rng.normal(-5, 1.2, scores.shape))
        scores = np.clip(np.maximum(scores, others), 1.01 * LEAST_SCORE, 0.999)
    roi, klass = np.nonzero(scores > LEAST_SCORE)
    rows = np.hstack([boxes[roi], scores[roi, klass][:, None]]).astype(np.float32)
    return rows, (klass + 1).astype(np.int32), np.full(len(rows), level, np.int32)


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from sniper.inference.merge_levels import LevelDetections, MergeSettings, merge_levels

    levels = range(len(arrays["ranges"]))
    own = [arrays["levels"] == level for level in levels]
    parts = [
        [
            LevelDetections(i, 0, arrays["rows"][o], arrays["classes"][o])
            for i, o in zip(levels, own)
        ]
    ]
    ranges = [tuple(pair) for pair in arrays["ranges"].tolist()]
    settings = MergeSettings(sigma=SIGMA, max_per_image=params["cap"])

    def outputs(result: Any) -> Arrays:
        return {"rows": result[0].rows, "classes": result[0].classes}

    return Prepared(lambda: merge_levels(parts, ranges, settings), outputs)


def numpy_side(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    rows, classes = arrays["rows"], arrays["classes"]
    low, high = arrays["ranges"][arrays["levels"]].T
    cap = params["cap"]

    def run() -> tuple[np.ndarray, np.ndarray]:
        area = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
        valid = ((low <= 0) | (area > low**2)) & ((high <= 0) | (area <= high**2))
        kept = [soft_nms(rows[valid & (classes == index)]) for index in range(1, classes.max() + 1)]
        found = np.concatenate(kept)
        numbers = np.repeat(np.arange(1, len(kept) + 1), [len(own) for own in kept])
        if 0 < cap < len(found):
            best = found[:, 4] >= np.partition(found[:, 4], -cap)[-cap]
            found, numbers = found[best], numbers[best]
        return found, numbers

    return Prepared(run, lambda result: {"rows": result[0], "classes": result[1]})


def soft_nms(rows: np.ndarray) -> np.ndarray:
    """Gaussian soft-NMS of one class: (n, 5) -> (k, 5), best first."""
    left = rows.copy()
    areas = (left[:, 2] - left[:, 0] + 1) * (left[:, 3] - left[:, 1] + 1)
    kept = []
    while len(left):
        best = int(np.argmax(left[:, 4]))
        top, area = left[best].copy(), areas[best]
        kept.append(top)
        left[best], areas[best] = left[0], areas[0]
        left, areas = left[1:], areas[1:]
        wide = np.minimum(left[:, 2], top[2]) - np.maximum(left[:, 0], top[0]) + 1
        high = np.minimum(left[:, 3], top[3]) - np.maximum(left[:, 1], top[1]) + 1
        inter = np.maximum(wide, 0) * np.maximum(high, 0)
        overlap = inter / (areas + area - inter)
        left[:, 4] *= np.exp(-(overlap**2) / SIGMA)
        alive = (left[:, 4] >= LEAST_SCORE) | (overlap <= 0)
        left, areas = left[alive], areas[alive]
    return np.array(kept, np.float32).reshape(-1, 5)


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    sides = [
        {(*row[:4], int(k)): row[4] for row, k in zip(side["rows"].tolist(), side["classes"])}
        for side in (ours, peer)
    ]
    common = sides[0].keys() & sides[1].keys()
    alone = [side[key] for side in sides for key in side.keys() - common]
    cap = min(float(side["rows"][:, 4].min(initial=1)) for side in (ours, peer))
    sentence = f"{len(common)} detections on both sides, {len(alone)} on one only"
    doubtful = all(score <= max(cap, LEAST_SCORE) + TOLERANCE for score in alone)
    agreement.require(doubtful, sentence, "only scores next to the least one alone")
    worst = max((abs(sides[0][key] - sides[1][key]) for key in common), default=0.0)
    return agreement.require(
        worst <= TOLERANCE, f"{sentence}, scores to {worst:.0e}", f"scores to {TOLERANCE:.0e}"
    )


CASE = Case(
    name="merge",
    summary="merge of an image's detections: valid ranges, soft-NMS of all classes, cap",
    jobs=[
        Job("recorded toy image, 10 classes", recorded, CAPPED, goal=GOAL),
        Job("80 classes, softmax scores", lambda rng: made(rng, dense=False), CAPPED, goal=GOAL),
        Job(
            "80 classes x 300 RoIs x 3 levels",
            lambda rng: made(rng, dense=True),
            {"cap": -1},
            goal=GOAL,
        ),
    ],
    sides={"ours": Side(ours), "numpy": Side(numpy_side, foreign=True)},
    compare=compare,
)

"""Detections of all levels to the result of an image: valid ranges, NMS per class, cap.

Sides
* ours: `sniper.inference.merge_levels.merge_levels`, one native call for all classes.
* numpy (soft): class after class, soft-NMS as it is usually written in NumPy: the best row, the
  overlaps of all others with it at once, until nothing is left.
* openvino: NonMaxSuppression (opset 9) of all classes at once. Soft as in the case `soft_nms`.
* onnxruntime (hard): NonMaxSuppression of all classes at once; it has no soft one.
* torchvision (hard): `torchvision.ops.batched_nms`; it has no soft one.
* supervision (hard): `supervision.box_non_max_suppression`, with its table of all pairs, which does
  not fit into memory for the largest job.

No other library that we know has a soft-NMS of several classes that does this job. supervision's
`box_soft_non_max_suppression` is another one: it takes the order of the scores as they come, and
decays by boxes that have decayed themselves long ago. SAHI's NMS is in the case `slices`.

Peers get what a network puts out: the graphs boxes and a table of classes x boxes, which holds 0
for scores below the floor; the others the rows. They filter by valid range in NumPy and cap there;
both are timed, as ours are. Pixel convention as in the case `nms`.

Inputs are rows above the score floor of 0.001. *Recorded* ones are those of a test image of the toy
set (10 classes, 3 levels of 300 RoIs, sniper_mobilenetv2_toy_long). The others are made: RoIs
around objects, whose scores are a softmax (a part of the classes of a RoI is above the floor), or
above the floor in all 80 classes, which is the worst that can come; that job has no cap. *Slices*
are windows of 640 px, a fifth of which the next one covers too, with 300 RoIs of 12 weak classes
each: all over an image, without a cap; `slices` makes them for images of any size. Compared:
classes and their numbers of rows, boxes, and scores to 1e-5; a row whose score is within 1e-5 of
the floor or of the cap's threshold may be missing on one side. Hard jobs have corners on a grid of
1/16 px and distinct scores, so that their rows are the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, PeerMissingError, Prepared, Side

Rows = tuple[np.ndarray, np.ndarray]  # (n, 5) x1 y1 x2 y2 score, (n,) classes
RECORDED = Path(__file__).resolve().parent.parent / "recorded" / "merge_toy.npz"
SIGMA, LEAST_SCORE = 0.55, 0.001
TOLERANCE = 1e-5
CLASSES, LEVELS, ROIS, OBJECTS = 80, 3, 300, 15
# From our inclusive corners to the peers'; the same for rows and for corners y1 x1 y2 x2.
PIXEL = np.array([0, 0, 1, 1], np.float32)
RANGES = np.float32([[-1, 80], [32, 150], [120, -1]])
GOAL, CAPPED = {"numpy": 20.0}, {"cap": 200}
HARD = {"hard": 0.5}
SLICE_PX, WEAK_CLASSES = 640, 12


def recorded(rng: np.random.Generator) -> Arrays:
    with np.load(RECORDED) as content:
        return dict(content)


def made(rng: np.random.Generator, *, dense: bool, distinct: bool = False) -> Arrays:
    """Rows of 80 classes at three levels, around the same objects."""
    objects = make.objects(rng, 480, 640, OBJECTS)
    kinds = rng.integers(0, CLASSES, OBJECTS)
    parts = [level_rows(rng, objects, kinds, level, dense) for level in range(LEVELS)]
    rows, classes, levels = (np.concatenate(column) for column in zip(*parts))
    if distinct:
        rows[:, :4] = np.round(rows[:, :4] * 16) / 16
        rows[:, 4] = make.distinct(rows[:, 4])
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


def slices(rng: np.random.Generator, megapixels: float) -> Arrays:
    """Weak rows of all slices of a square image."""
    side_px = 1000 * megapixels**0.5
    starts = np.arange(0, max(side_px - SLICE_PX, 0) + 1, 0.8 * SLICE_PX)
    corners = np.stack(np.meshgrid(starts, starts), axis=-1).reshape(-1, 1, 2)
    centres = (corners + rng.uniform(0, SLICE_PX, (len(corners), ROIS, 2))).reshape(-1, 2)
    sides = np.exp(rng.normal(4, 0.5, centres.shape))
    boxes = np.repeat(np.hstack([centres - sides / 2, centres + sides / 2]), WEAK_CLASSES, axis=0)
    scores = rng.uniform(LEAST_SCORE, 0.05, (len(boxes), 1))
    return {
        "rows": np.hstack([boxes, scores]).astype(np.float32),
        "classes": rng.integers(1, CLASSES + 1, len(boxes)).astype(np.int32),
        "levels": np.zeros(len(boxes), np.int32),
        "ranges": np.float32([[-1, -1]]),
    }


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
    settings = MergeSettings(params.get("hard", -1), SIGMA, params["cap"])

    def outputs(result: Any) -> Arrays:
        return {"rows": result[0].rows, "classes": result[0].classes}

    return Prepared(lambda: merge_levels(parts, ranges, settings), outputs)


def numpy_side(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    rows, classes = arrays["rows"], arrays["classes"]
    ranges = arrays["ranges"][arrays["levels"]]

    def run() -> Rows:
        valid = in_range(rows, ranges)
        kept = [soft_nms(rows[valid & (classes == index)]) for index in range(1, classes.max() + 1)]
        numbers = np.repeat(np.arange(1, len(kept) + 1), [len(own) for own in kept])
        return capped(np.concatenate(kept), numbers, params["cap"])

    return Prepared(run, named)


def in_range(rows: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Which rows (n, 4 or 5) lie in their valid ranges (n, 2)."""
    low, high = ranges.T
    area = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    return ((low <= 0) | (area > low**2)) & ((high <= 0) | (area <= high**2))


def capped(rows: np.ndarray, classes: np.ndarray, cap: int) -> Rows:
    """The best `cap` rows; all of them for a cap of 0 or less."""
    if 0 < cap < len(rows):
        best = rows[:, 4] >= np.partition(rows[:, 4], -cap)[-cap]
        rows, classes = rows[best], classes[best]
    return rows, classes


def named(result: Rows) -> Arrays:
    return {"rows": result[0], "classes": result[1]}


def table_of(arrays: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a network puts out: boxes (n, 4), their ranges (n, 2), scores (classes, n)."""
    places = np.column_stack([arrays["levels"], arrays["rows"][:, :4]])
    unique, of_row = np.unique(places, axis=0, return_inverse=True)
    scores = np.zeros((arrays["classes"].max(), len(unique)), np.float32)
    scores[arrays["classes"] - 1, of_row.reshape(-1)] = arrays["rows"][:, 4]
    boxes = np.ascontiguousarray(unique[:, 1:], np.float32)
    return boxes, arrays["ranges"][unique[:, 0].astype(int)], scores


def graph_inputs(arrays: Arrays) -> tuple[dict[str, np.ndarray], Callable[[], None]]:
    """Inputs of a NonMaxSuppression, and what fills in the scores by valid range."""
    boxes, ranges, scores = table_of(arrays)
    corners = np.ascontiguousarray((boxes + PIXEL)[None, :, [1, 0, 3, 2]])
    inputs = {"boxes": corners, "scores": np.zeros_like(scores)[None]}

    def fill() -> None:
        np.multiply(scores, in_range(boxes, ranges), out=inputs["scores"][0])

    return inputs, fill


def chosen(boxes: np.ndarray, selected: np.ndarray, scores: np.ndarray, cap: int) -> Rows:
    """Rows of what a NonMaxSuppression has selected: (n, 3) image, class, box."""
    rows = np.column_stack([boxes[selected[:, 2]], scores])
    return capped(rows, selected[:, 1] + 1, cap)


def openvino(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers import openvino as peer

    operators = peer.opset()
    boxes, _, scores = table_of(arrays)
    inputs, fill = graph_inputs(arrays)
    nodes = peer.parameters(inputs)
    node = operators.non_max_suppression(
        *nodes.values(),
        operators.constant(np.int64(scores.shape[1])),
        operators.constant(np.float32(params.get("hard", 1))),
        operators.constant(np.float32(LEAST_SCORE)),
        operators.constant(np.float32(0 if "hard" in params else SIGMA / 2)),
        box_encoding="corner",
        sort_result_descending=False,
    )
    infer = peer.compiled(node, nodes, inputs, threads)

    def run() -> Rows:
        fill()
        selected, weights, count = infer()
        last = int(count.reshape(-1)[0])
        return chosen(boxes, selected[:last], weights[:last, 2], params["cap"])

    return Prepared(run, named)


def onnxruntime(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers import onnxruntime as peer

    boxes, _, scores = table_of(arrays)
    inputs, fill = graph_inputs(arrays)
    infer = peer.session(
        "NonMaxSuppression",
        inputs,
        {
            "max_output": np.array([scores.shape[1]], np.int64),
            "iou_threshold": np.array([params["hard"]], np.float32),
            "score_threshold": np.array([LEAST_SCORE], np.float32),
        },
        {"selected": "INT64"},
        threads,
        center_point_box=0,
    )

    def run() -> Rows:
        fill()
        (selected,) = infer()
        weights = scores[selected[:, 1], selected[:, 2]]
        return chosen(boxes, selected, weights, params["cap"])

    return Prepared(run, named)


def torchvision(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers.torchvision_ops import torchvision_ops

    torch, ops = torchvision_ops(threads)
    rows, classes = arrays["rows"], arrays["classes"].astype(np.int64)
    ranges = arrays["ranges"][arrays["levels"]]

    def run() -> Rows:
        valid = in_range(rows, ranges)
        own, numbers = rows[valid], classes[valid]
        kept = ops.batched_nms(
            torch.from_numpy(own[:, :4] + PIXEL),
            torch.from_numpy(np.ascontiguousarray(own[:, 4])),
            torch.from_numpy(numbers),
            params["hard"],
        ).numpy()
        return capped(own[kept], numbers[kept], params["cap"])

    return Prepared(run, named)


def supervision(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    try:
        from supervision import box_non_max_suppression
    except ImportError as error:
        raise PeerMissingError(
            f"supervision is not installed ({error}): pip install -r requirements-bench-peers.txt"
        ) from None
    rows, classes = arrays["rows"], arrays["classes"]
    ranges = arrays["ranges"][arrays["levels"]]

    def run() -> Rows:
        valid = in_range(rows, ranges)
        own, numbers = rows[valid], classes[valid]
        predictions = np.column_stack([own[:, :4] + PIXEL, own[:, 4], numbers])
        kept = box_non_max_suppression(predictions, params["hard"])
        return capped(own[kept], numbers[kept], params["cap"])

    return Prepared(run, named)


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


SOFT_PEERS = ("numpy", "openvino")
HARD_PEERS = ("openvino", "onnxruntime", "torchvision", "supervision")

CASE = Case(
    name="merge",
    summary="merge of an image's detections: valid ranges, NMS of all classes, cap",
    jobs=[
        Job("recorded toy image, 10 classes", recorded, CAPPED, SOFT_PEERS, GOAL),
        Job(
            "80 classes, softmax scores",
            lambda rng: made(rng, dense=False),
            *(CAPPED, SOFT_PEERS, GOAL),
        ),
        Job(
            "80 classes x 300 RoIs x 3 levels",
            lambda rng: made(rng, dense=True),
            *({"cap": -1}, SOFT_PEERS, GOAL),
        ),
        Job(
            "80 classes, softmax scores, hard NMS",
            lambda rng: made(rng, dense=False, distinct=True),
            *({**CAPPED, **HARD}, HARD_PEERS),
        ),
        Job(
            "80 classes x 300 RoIs x 3 levels, hard NMS",
            lambda rng: made(rng, dense=True, distinct=True),
            *({"cap": -1, **HARD}, HARD_PEERS[:-1]),
        ),
        Job(
            "slices of 3 MP, weak scores",
            lambda rng: slices(rng, 3),
            *({"cap": -1}, SOFT_PEERS[:1], GOAL),  # OpenVINO keeps 15 of 30,000 other rows
        ),
    ],
    sides={
        "ours": Side(ours),
        "numpy": Side(numpy_side, foreign=True),
        "openvino": Side(openvino, foreign=True),
        "onnxruntime": Side(onnxruntime, foreign=True),
        "torchvision": Side(torchvision, foreign=True),
        "supervision": Side(supervision, foreign=True),
    },
    compare=compare,
)

"""Mask targets: 128 RoIs of 16 chips, the polygon of each drawn into 28x28 pixels of its RoI.

Sides
* ours: `sniper.native._native.mask_rcnn_target`, which also writes the classes.
* pycocotools: for every RoI the polygon's points are moved into the RoI's 28x28 frame, then
  frPyObjects, merge and decode. It gets (y, x) and its mask is transposed, as in 2018.
* pycocotools-crop: the usual way: frPyObjects, merge and decode at the chip's size, then the RoI is
  cut out and resized to 28x28 by OpenCV.

The peers get their polygons as lists of points, prepared outside of the timing. Compared: the first
peer's masks exactly; of the second's, 97 % of all pixels (it samples at other places).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, PeerMissingError, Prepared, Side

CHIPS, OBJECTS, ROW, ROIS, SIZE, CHIP_PX = 16, 20, 500, 128, 28, 512
LEAST_EQUAL_PIXELS = 0.97


def inputs(rng: np.random.Generator, vertices: tuple[int, int]) -> Arrays:
    """Objects with 1 to 3 segments each, and RoIs as a trained network finds them."""
    polygons = np.full((CHIPS, OBJECTS, ROW), -1, np.float32)
    boxes = [make.objects(rng, CHIP_PX, CHIP_PX, OBJECTS) for _ in range(CHIPS)]
    for chip in range(CHIPS):
        for row in range(OBJECTS):
            polygons[chip, row] = encoded(rng, boxes[chip][row], vertices)
    chips = np.sort(rng.integers(0, CHIPS, ROIS))
    rows = rng.integers(0, OBJECTS, ROIS)
    targets = np.stack([boxes[chip][row] for chip, row in zip(chips, rows)])
    sides = np.tile(targets[:, 2:] - targets[:, :2], 2)
    rois = np.clip(targets + rng.normal(0, 0.08, (ROIS, 4)) * sides, 0, CHIP_PX - 1)
    return {
        "rois": np.hstack([chips[:, None], rois]).astype(np.float32),
        "polygons": polygons,
        "ids": rows[:, None].astype(np.float32),
    }


def encoded(rng: np.random.Generator, box: np.ndarray, vertices: tuple[int, int]) -> np.ndarray:
    """class - 1, number of segments, their lengths, their points; the rest -1."""
    segments = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.8, 0.15, 0.05]))):
        count = int(rng.integers(*vertices))
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        radii = 0.5 * rng.uniform(0.6, 1.0, (count, 1)) * (box[2:] - box[:2])
        outline = (box[:2] + box[2:]) / 2 + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
        segments.append(outline.round(2).ravel())
    head = [rng.integers(0, 80), len(segments), *map(len, segments)]
    row = np.concatenate([head, *segments])
    return np.concatenate([row, np.full(ROW - len(row), -1)]).astype(np.float32)


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from sniper.native._native import mask_rcnn_target

    tensors = [arrays[name] for name in ("rois", "polygons", "ids")]
    return Prepared(lambda: mask_rcnn_target(*tensors, SIZE), lambda results: {"masks": results[0]})


def pycocotools(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from pycocotools import mask

    work = list(zip(arrays["rois"], polygons_of(arrays)))

    def draw(roi: np.ndarray, segments: list[np.ndarray]) -> np.ndarray:
        sides = np.maximum(roi[3:5] - roi[1:3], 1)
        moved = [((points - roi[1:3]) * SIZE / sides)[:, ::-1].ravel() for points in segments]
        runs = mask.frPyObjects([points.tolist() for points in moved], SIZE, SIZE)
        return mask.decode(mask.merge(runs)).T

    def run() -> np.ndarray:
        masks = np.empty((len(work), SIZE, SIZE), np.float32)
        for target, (roi, segments) in zip(masks, work):
            target[:] = draw(roi, segments)
        return masks

    return Prepared(run, lambda masks: {"masks": masks})


def pycocotools_crop(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    try:
        import cv2
        from pycocotools import mask
    except ImportError as error:
        raise PeerMissingError(f"{error}: pip install -r requirements.txt") from None
    cv2.setNumThreads(threads)
    segments = [[points.ravel().tolist() for points in parts] for parts in polygons_of(arrays)]
    work = list(zip(arrays["rois"].tolist(), segments))

    def draw(roi: list[float], parts: list[list[float]]) -> np.ndarray:
        whole = mask.decode(mask.merge(mask.frPyObjects(parts, CHIP_PX, CHIP_PX)))
        x1, y1, x2, y2 = (round(value) for value in roi[1:])
        crop = whole[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)].astype(np.float32)
        return cv2.resize(crop, (SIZE, SIZE)) >= 0.5

    def run() -> np.ndarray:
        masks = np.empty((len(work), SIZE, SIZE), np.float32)
        for target, (roi, parts) in zip(masks, work):
            target[:] = draw(roi, parts)
        return masks

    return Prepared(run, lambda masks: {"masks": masks})


def polygons_of(arrays: Arrays) -> list[list[np.ndarray]]:
    """The segments of each RoI's object, each (n, 2)."""
    found = []
    for chip, row in zip(arrays["rois"][:, 0].astype(int), arrays["ids"][:, 0].astype(int)):
        values = arrays["polygons"][chip, row]
        count = int(values[1])
        ends = np.cumsum(values[2 : 2 + count]).astype(int)
        points = values[2 + count :]
        found.append([part.reshape(-1, 2) for part in np.split(points[: ends[-1]], ends[:-1])])
    return found


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    if name == "pycocotools":
        return agreement.same_array(ours["masks"], peer["masks"], f"{ROIS} masks")
    equal = float((ours["masks"] == peer["masks"]).mean())
    return agreement.require(
        equal >= LEAST_EQUAL_PIXELS,
        f"{100 * equal:.1f} % of the pixels equal",
        f"at least {100 * LEAST_EQUAL_PIXELS:.0f} %",
    )


CASE = Case(
    name="mask_targets",
    summary="mask targets of 28x28 pixels, 128 RoIs",
    jobs=[
        Job(
            f"128 RoIs, {low} to {high} vertices a segment",
            lambda rng, vertices=(low, high + 1): inputs(rng, vertices),
        )
        for low, high in ((8, 60), (4, 12))
    ],
    sides={
        "ours": Side(ours),
        "pycocotools": Side(pycocotools),
        "pycocotools-crop": Side(pycocotools_crop),
    },
    compare=compare,
    goal={"pycocotools-crop": 15.0},
)

"""Chip cover of 640x480 images: pyramid 3, 1.667 and 512/640, chips of 512 px, stride 56.

"positive" covers 8 GT boxes an image by the rules for positive chips (each level gets the boxes in
its valid range that surely fit); "negative" covers 300, 1000 or 2000 proposals by the rules for
negative chips. One job is 16 images (4 for the proposals), every level of each: 48 (12) calls.

Sides
* ours: `sniper.native._native.chip_cover`.
* greedy: `greedy_cover.cc`, the definition in plain C++: a list of candidate rectangles, the IOB of
  every candidate with every box, a std::set of boxes for each; g++ -O2, called through ctypes. It
  is our stand-in for the code of 2018, which is no part of this project.

Both are called from Python, 2 to 4 us a call. Compared: the chips in their order, exactly; both
shuffle the candidates with the same generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Callable

import numpy as np

from bench import compare as agreement
from bench.case import Arrays, Case, Job, Prepared, Side

WIDTH, HEIGHT, CHIP, STRIDE = 640, 480, 512, 56
FACTORS = (3.0, 1.667, 512 / 640)
VALID_RANGES = ((0, 80), (32, 150), (120, np.inf))  # px, square root of the area
IMAGES = {"positive": 16, "negative": 4}


def positive_inputs(rng: np.random.Generator, clustered: bool, boxes: int) -> Arrays:
    return by_level(
        [image_boxes(rng, boxes, clustered, spread=0.35) for _ in range(IMAGES["positive"])],
        needs_positive_chip,
    )


def negative_inputs(rng: np.random.Generator, clustered: bool, boxes: int) -> Arrays:
    return by_level(
        [image_boxes(rng, boxes, clustered, spread=0.1) for _ in range(IMAGES["negative"])],
        may_be_in_negative_chip,
    )


def image_boxes(rng: np.random.Generator, count: int, clustered: bool, spread: float) -> np.ndarray:
    """Boxes of one image, sides log-uniform from 8 to 400 px; clustered: around 3 to 12 places."""
    extent = np.array([WIDTH, HEIGHT])
    centres = rng.uniform(0, extent, (count, 2))
    if clustered:
        places = rng.uniform(0, extent, (int(rng.integers(3, 13)), 2))
        near = places[rng.integers(0, len(places), count)]
        centres = near + rng.normal(0, spread * 200, (count, 2))
    sides = np.exp(rng.uniform(np.log(8), np.log(400), (count, 1)))
    sizes = sides * np.exp(rng.normal(0, 0.3, (count, 2)))
    corners = np.hstack([centres - sizes / 2, centres + sizes / 2])
    return np.clip(corners, 0, np.tile(extent - 1, 2)).astype(np.float32)


def by_level(images: list[np.ndarray], chosen: Callable[[np.ndarray, int], np.ndarray]) -> Arrays:
    """The chosen boxes of every image and level, one after the other, and where each begins."""
    parts = [boxes[chosen(boxes, level)] for boxes in images for level in range(len(FACTORS))]
    return {
        "boxes": np.concatenate(parts),
        "starts": np.cumsum([0, *map(len, parts)]),
    }


def fits(boxes: np.ndarray, level: int) -> np.ndarray:
    """Boxes short enough to lie in some candidate for sure."""
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1) < (CHIP - STRIDE - 1) / FACTORS[level]


def side_px(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def needs_positive_chip(boxes: np.ndarray, level: int) -> np.ndarray:
    low, high = VALID_RANGES[level]
    in_range = (side_px(boxes) >= low) & (side_px(boxes) < high)
    return in_range if level == len(FACTORS) - 1 else in_range & fits(boxes, level)


def may_be_in_negative_chip(boxes: np.ndarray, level: int) -> np.ndarray:
    low, high = VALID_RANGES[level]
    if level == len(FACTORS) - 1:
        return side_px(boxes) >= low
    return (side_px(boxes) < high) & fits(boxes, level)


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from sniper.native._native import chip_cover

    return prepared(chip_cover, arrays)


def greedy(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers.greedy_cover import load

    return prepared(load(), arrays)


def prepared(cover: Callable[..., np.ndarray], arrays: Arrays) -> Prepared:
    calls = list(levels(arrays))

    def run() -> list[np.ndarray]:
        return [cover(*call) for call in calls]

    return Prepared(
        run,
        lambda chips: {
            "chips": np.concatenate(chips),
            "counts": np.array([len(rows) for rows in chips]),
        },
    )


def levels(arrays: Arrays) -> Iterator[tuple[Any, ...]]:
    """Arguments of each cover."""
    starts = arrays["starts"].tolist()
    for call, (start, end) in enumerate(zip(starts, starts[1:])):
        boxes = np.ascontiguousarray(arrays["boxes"][start:end])
        yield boxes, FACTORS[call % len(FACTORS)], WIDTH, HEIGHT, CHIP, STRIDE, call


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    agreement.same_array(ours["counts"], peer["counts"], "numbers of chips")
    return agreement.same_array(ours["chips"], peer["chips"], f"{len(ours['chips'])} chips")


CASE = Case(
    name="chips",
    summary="greedy chip cover, 640x480, 3 scales",
    jobs=[
        *(
            Job(
                f"positive, 16 images of 8 boxes, {kind}",
                lambda rng, clustered=kind == "clustered": positive_inputs(rng, clustered, 8),
                goal={"greedy": 6.0},
            )
            for kind in ("clustered", "random")
        ),
        *(
            Job(
                f"negative, 4 images of {boxes} proposals, {kind}",
                lambda rng, boxes=boxes, clustered=kind == "clustered": negative_inputs(
                    rng, clustered, boxes
                ),
                goal={"greedy": 20.0},
            )
            for kind in ("clustered", "random")
            for boxes in (300, 1000, 2000)
        ),
    ],
    sides={"ours": Side(ours), "greedy": Side(greedy)},
    compare=compare,
    threads=(1,),
)

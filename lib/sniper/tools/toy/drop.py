"""Which objects of a generated set lose their annotation: any, or those far from labelled ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sniper.errors import ConfigError


def drop_any(boxes: Sequence[np.ndarray], share: float, seed: int) -> list[np.ndarray]:
    """Objects drawn from the whole set; every image that has objects keeps one.

    Args:
        boxes: of each image (n, 4) x y width height, px.
        share: of all objects, 0 to 1.
        seed: decides which.

    Returns:
        Of each image (n,) bool: lost; exactly `share` of all, rounded to a whole number of them.

    Raises:
        ConfigError: images with an object or two cannot lose so many.
    """
    rng = np.random.default_rng(seed)
    lost = [np.zeros(len(rows), bool) for rows in boxes]
    wanted = _wanted(boxes, share)
    places = [(image, row) for image, rows in enumerate(boxes) for row in range(len(rows))]
    for place in rng.permutation(len(places)).tolist():
        image, row = places[place]
        if wanted and np.count_nonzero(~lost[image]) > 1:
            lost[image][row] = True
            wanted -= 1
    _need_none(wanted, lost, share, "every image keeps one object with annotation")
    return lost


def drop_far(boxes: Sequence[np.ndarray], share: float, seed: int) -> list[np.ndarray]:
    """The objects that lie farthest from the labelled ones, wherever they are in the set.

    In each image one object is drawn that keeps its annotation, as if somebody had started there
    and gone on from neighbour to neighbour. An object's distance is the widest gap that must be
    crossed to get to it. Objects of one image and one distance keep or lose their annotations
    together, the farthest of all images first. So a lost object is at least its distance away from
    every labelled object.

    Args:
        boxes: of each image (n, 4) x y width height, px.
        share: of all objects, 0 to 1.
        seed: decides where labelling starts.

    Returns:
        As `drop_any`.

    Raises:
        ConfigError: so many objects do not lie apart from others.
    """
    rng = np.random.default_rng(seed)
    lost = [np.zeros(len(rows), bool) for rows in boxes]
    blocks: list[tuple[float, int, np.ndarray]] = []
    for image, rows in enumerate(boxes):
        if not len(rows):
            continue
        distances = reach_px(gaps_px(rows), int(rng.integers(len(rows))))
        for distance in np.unique(distances[distances > 0]).tolist():
            blocks.append((distance, image, distances == distance))
    wanted = _wanted(boxes, share)
    for _, image, block in sorted(blocks, key=lambda block: -block[0]):
        size = int(np.count_nonzero(block))
        if size <= wanted:
            lost[image] |= block
            wanted -= size
    _need_none(wanted, lost, share, "the others touch an object with annotation")
    return lost


def _wanted(boxes: Sequence[np.ndarray], share: float) -> int:
    return round(share * sum(len(rows) for rows in boxes))


def _need_none(missing: int, lost: Sequence[np.ndarray], share: float, why: str) -> None:
    if missing:
        total = sum(len(rows) for rows in lost)
        count = sum(int(np.count_nonzero(rows)) for rows in lost)
        raise ConfigError(
            f"this share of the objects cannot lose its annotation: {why}",
            got=f"{share:g} of {total} objects",
            expected=f"at most {count / total:.2f}",
            fix="a smaller share, or a set with more --objects or smaller --sizes",
        )


def gaps_px(boxes: np.ndarray) -> np.ndarray:
    """(n, n) px between the nearest points of boxes (n, 4) x y width height; 0: they touch."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    gaps = np.maximum(low[:, None], low) - np.minimum(high[:, None], high)
    return np.asarray(np.hypot(*np.moveaxis(np.maximum(gaps, 0), 2, 0)))


def reach_px(gaps: np.ndarray, start: int) -> np.ndarray:
    """(n,) the widest gap on the way from `start` whose widest gap is least; 0 for `start`.

    Source: Prim's algorithm; the way within a minimum spanning tree has that property.
    """
    distances = np.zeros(len(gaps))
    outside = np.ones(len(gaps), bool)
    outside[start] = False
    nearest, widest = gaps[start].copy(), 0.0
    while outside.any():
        row = int(np.where(outside, nearest, np.inf).argmin())
        widest = max(widest, float(nearest[row]))
        distances[row] = widest
        outside[row] = False
        nearest = np.minimum(nearest, gaps[row])
    return distances


def to_labelled_px(boxes: Sequence[np.ndarray], lost: Sequence[np.ndarray]) -> np.ndarray:
    """(k,) px from each object that lost its annotation to the nearest of its image with one."""
    distances = [
        gaps_px(rows)[gone][:, ~gone].min(axis=1)
        for rows, gone in zip(boxes, lost)
        if gone.any() and not gone.all()
    ]
    return np.concatenate([np.zeros(0), *distances])

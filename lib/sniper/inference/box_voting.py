"""Box voting (Gidaris and Komodakis, 2015, section 3.3): kept boxes become means of their likes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sniper import boxes as box_ops

# Pairs of boxes that are compared at once: some tens of MB.
_PAIRS = 1 << 20


def vote(
    kept: np.ndarray,
    kept_groups: np.ndarray,
    voters: np.ndarray,
    voter_groups: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """Kept detections with voted boxes; scores and order stay.

    The new box is the mean of all voters of its group that overlap the old one, each weighted with
    its score; a mean of boxes inside of an image is inside of it.

    Args:
        kept: (K, 5) float32 x1 y1 x2 y2 score, what NMS has left.
        kept_groups: (K,) integers; those of one group are of one image and class.
        voters: (V, 5) float32, what NMS has seen; scores are positive.
        voter_groups: (V,) their groups.
        threshold: least IoU (+1 sides) of a voter with the box, above 0 and at most 1.

    Returns:
        (K, 5) float32. A box that no voter overlaps enough stays as it is.
    """
    result = kept.copy()
    for rows, columns in _same_group(kept_groups, voter_groups):
        of_group = voters[columns]
        step = max(1, _PAIRS // max(1, len(of_group)))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            weights = box_ops.iou(kept[part, :4], of_group[:, :4]) >= threshold
            weights = weights * of_group[:, 4].astype(np.float64)
            total = weights.sum(axis=1)
            has_voters = total > 0
            means = weights[has_voters] @ of_group[:, :4].astype(np.float64)
            result[part[has_voters], :4] = means / total[has_voters, None]
    return result


def _same_group(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per group of `one` the indices of both that belong to it."""
    order_one, order_other = (np.argsort(groups, kind="stable") for groups in (one, other))
    groups = np.unique(one)
    spans_one, spans_other = (
        (np.searchsorted(of[order], groups, "left"), np.searchsorted(of[order], groups, "right"))
        for of, order in ((one, order_one), (other, order_other))
    )
    for begin, end, other_begin, other_end in zip(*spans_one, *spans_other):
        yield order_one[begin:end], order_other[other_begin:other_end]

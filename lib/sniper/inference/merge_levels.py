"""Merging raw detections over chips and pyramid levels (paper, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper.data.detections import DetectionTable
from sniper.inference.box_voting import vote
from sniper.inference.decode import ChipDetections
from sniper.models.class_scores import above_floor
from sniper.native._native import multi_scale_nms_parts

# Below it a cap on the detections of an image costs noise only.
_OBJECT_SCORE = 0.1


@dataclass(frozen=True)
class MergeSettings:
    """How detections of all levels become the result.

    Attributes:
        nms_threshold: hard NMS when > 0.
        sigma: Gaussian soft-NMS otherwise.
        max_per_image: cap over all classes; <= 0 is unlimited.
        box_voting: after NMS a box becomes the mean of those that overlap it at this IoU or more,
            weighted with their scores (`sniper.inference.box_voting`); <= 0: off.
    """

    nms_threshold: float = -1.0
    sigma: float = 0.55
    max_per_image: int = 200
    box_voting: float = 0.0


@dataclass(frozen=True, eq=False)
class LevelDetections:
    """Rows of one chip at one level: what is left of `ChipDetections` above the score floor.

    Attributes:
        level: number of the level.
        chip_index: which chip of the image.
        rows: (n, 5) float32 x1 y1 x2 y2 score in image px.
        classes: (n,) int32, never 0.
    """

    level: int
    chip_index: int
    rows: np.ndarray
    classes: np.ndarray


def keep_confident(
    detections: ChipDetections, level: int, origin: tuple[float, float] = (0.0, 0.0)
) -> LevelDetections:
    """Rows of all foreground classes above the score floor, moved to image coordinates."""
    roi, classes, scores = above_floor(detections.scores)
    boxes = detections.boxes[roi] + np.array([*origin, *origin], np.float32)
    rows = np.concatenate([boxes, scores[:, None]], axis=1, dtype=np.float32)
    return LevelDetections(level, detections.chip_index, rows, classes)


def join_detections(detections: LevelDetections, more: LevelDetections) -> LevelDetections:
    """The rows of both, of one chip at one level."""
    return LevelDetections(
        *(detections.level, detections.chip_index),
        np.concatenate([detections.rows, more.rows]),
        np.concatenate([detections.classes, more.classes]),
    )


def merge_levels(
    parts: Sequence[Sequence[LevelDetections]],
    valid_ranges: Sequence[tuple[float, float]],
    settings: MergeSettings,
) -> tuple[DetectionTable, np.ndarray]:
    """Final detections of several images, and where each was found, in one native call.

    Args:
        parts: per image, its rows of all levels and chips in any order.
        valid_ranges: (low, high) of sqrt(area) in image px for each level; <= 0 is unbounded.
        settings: NMS and cap.

    Returns:
        The detections, and (D, 2) int32 level and chip index of each.
    """
    # Ordered by level and chip, so that the result does not depend on how images were batched.
    ordered = [
        (index, part)
        for index, image_parts in enumerate(parts)
        for part in sorted(image_parts, key=lambda part: (part.level, part.chip_index))
    ]
    found = [part.rows for _, part in ordered]
    found_classes = [part.classes for _, part in ordered]
    places = [(part.level, part.chip_index) for _, part in ordered]
    place_of_part = np.array(places, np.int32).reshape(-1, 2)
    image_of_part = np.array([index for index, _ in ordered], np.int32)
    ranges = np.array(valid_ranges, np.float32).reshape(-1, 2)
    rows, classes, images, part_of_row = multi_scale_nms_parts(
        *(found, found_classes, np.ascontiguousarray(place_of_part[:, 0]), image_of_part, ranges),
        settings.sigma,
        settings.nms_threshold,
        max_per_image=settings.max_per_image,
    )
    if settings.box_voting > 0 and len(rows):
        voters, voter_groups = _voters(ordered, ranges)
        rows = vote(rows, _groups(images, classes), voters, voter_groups, settings.box_voting)
    offsets = np.searchsorted(images, np.arange(len(parts) + 1)).astype(np.int64)
    return DetectionTable(offsets, rows, classes), place_of_part.take(part_of_row, axis=0)


def _voters(
    ordered: Sequence[tuple[int, LevelDetections]], ranges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What NMS looks at: rows (n, 5) and the group of each."""
    lengths = [len(part.rows) for _, part in ordered]
    found = np.concatenate([part.rows for _, part in ordered])
    levels = np.repeat([part.level for _, part in ordered], lengths)
    images = np.repeat([index for index, _ in ordered], lengths)
    classes = np.concatenate([part.classes for _, part in ordered])
    used = np.isfinite(found).all(axis=1) & _in_range(found, ranges[levels])
    return found[used], _groups(images, classes)[used]


def _in_range(rows: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Whether NMS looks at rows (n, 5), whose valid ranges are (n, 2)."""
    low, high = np.maximum(ranges.T, 0)
    area = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    return ((low == 0) | (area > low * low)) & ((high == 0) | (area <= high * high))


def _groups(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """One number for each image and class, (n,) int64."""
    return (images.astype(np.int64) << 32) | classes


def first_cut_image(table: DetectionTable, max_per_image: int) -> int | None:
    """The first image whose cap may have cost objects: it is reached by likely ones.

    Args:
        table: the result of `merge_levels`.
        max_per_image: of its settings.
    """
    if max_per_image <= 0:
        return None
    counts = np.diff(table.offsets)
    for index in np.flatnonzero(counts >= max_per_image).tolist():
        if table[index].rows[:, 4].min() >= _OBJECT_SCORE:
            return index
    return None

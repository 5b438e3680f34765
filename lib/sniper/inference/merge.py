"""Merging raw detections over chips and pyramid levels (spec: pipeline 7.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper.inference.forward import MIN_SCORE, ChipDetections
from sniper.native._native import multi_scale_nms

# Hard NMS has no sigma (the configuration says -1), but the function wants a valid one.
UNUSED_SIGMA = 1.0


@dataclass(frozen=True)
class MergeSettings:
    """How detections of all levels become the result.

    Attributes:
        valid_ranges: one (low, high) pair of sqrt(area) in image px per level; <= 0 is unbounded.
        nms_threshold: hard NMS when > 0.
        sigma: Gaussian soft-NMS otherwise.
        max_per_image: cap over all classes; <= 0 is unlimited.
    """

    valid_ranges: tuple[tuple[float, float], ...]
    nms_threshold: float = -1.0
    sigma: float = 0.55
    max_per_image: int = 200


@dataclass(frozen=True)
class LevelDetections:
    """Rows of one chip at one level: what is left of `ChipDetections` above the score floor.

    Attributes:
        level: pyramid level, in the order of TEST.SCALES.
        chip_index: which chip of the image.
        rows: (n, 5) float32 x1 y1 x2 y2 score in image px.
        classes: (n,) int32, never 0.
    """

    level: int
    chip_index: int
    rows: np.ndarray
    classes: np.ndarray


def keep_confident(
    found: ChipDetections, level: int, origin: tuple[float, float] = (0.0, 0.0)
) -> LevelDetections:
    """Rows of all foreground classes above the score floor, moved to image coordinates."""
    roi, klass = np.nonzero(found.scores[:, 1:] > MIN_SCORE)
    boxes = found.boxes[roi] + np.float32([*origin, *origin])
    scores = found.scores[roi, klass + 1]
    rows = np.concatenate([boxes, scores[:, None]], axis=1, dtype=np.float32)
    return LevelDetections(level, found.chip_index, rows, (klass + 1).astype(np.int32))


def merge_images(
    parts: Sequence[Sequence[LevelDetections]], num_classes: int, settings: MergeSettings
) -> list[list[np.ndarray]]:
    """Final detections of several images.

    Args:
        parts: per image, its rows of all levels and chips in any order.
        num_classes: with background.
        settings: valid ranges and NMS.

    Returns:
        Per image, per class (index 0 empty) an (n, 5) float32 array.
    """
    return merge_with_origins(parts, num_classes, settings)[0]


def merge_with_origins(
    parts: Sequence[Sequence[LevelDetections]], num_classes: int, settings: MergeSettings
) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Final detections of several images, and where each was found.

    Args:
        parts: per image, its rows of all levels and chips in any order.
        num_classes: with background.
        settings: valid ranges and NMS.

    Returns:
        Per image, per class (index 0 empty) an (n, 5) float32 array of detections; the same with
        (n, 2) int32 level and chip index of each.
    """
    # Ordered by level and chip, so that the result does not depend on how images were batched.
    ordered = [
        (index, part)
        for index, image_parts in enumerate(parts)
        for part in sorted(image_parts, key=lambda part: (part.level, part.chip_index))
    ]
    result = [[np.zeros((0, 5), np.float32)] * num_classes for _ in parts]
    origins = [[np.zeros((0, 2), np.int32)] * num_classes for _ in parts]
    if not ordered:
        return result, origins
    lengths = [len(part.rows) for _, part in ordered]
    found_at = np.int32([(part.level, part.chip_index) for _, part in ordered])
    found_at = np.repeat(found_at, lengths, axis=0)  # (all rows, 2)
    rows, classes, images, sources = multi_scale_nms(
        np.ascontiguousarray(np.concatenate([part.rows for _, part in ordered])),
        found_at[:, 0],
        np.concatenate([part.classes for _, part in ordered]),
        np.repeat(np.int32([index for index, _ in ordered]), lengths),
        np.float32(settings.valid_ranges).reshape(-1, 2),
        settings.sigma if settings.nms_threshold <= 0 else UNUSED_SIGMA,
        settings.nms_threshold,
        max_per_image=settings.max_per_image,
        with_rows=True,
    )
    for image, klass, start, stop in _groups(images, classes):
        result[image][klass] = rows[start:stop]
        origins[image][klass] = found_at[sources[start:stop]]
    return result, origins


def _groups(images: np.ndarray, classes: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(image, class, start, stop) of every run of equal (image, class)."""
    if not len(images):
        return []
    change = np.flatnonzero((np.diff(images) != 0) | (np.diff(classes) != 0)) + 1
    starts = np.concatenate([[0], change])
    stops = np.concatenate([change, [len(images)]])
    return [(int(images[a]), int(classes[a]), int(a), int(b)) for a, b in zip(starts, stops)]

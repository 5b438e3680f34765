"""The metric of WIDER FACE: faces of three difficulties, precision and recall at 1000 scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sniper import boxes as box_math
from sniper.evaluation.voc import average_precision

IOU_THRESHOLD = 0.5
NUM_THRESHOLDS = 1000
# Rows of an overlap matrix: a detector may write ten thousands of boxes beside two thousand faces.
_MOST_ROWS = 4096


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """D detections of n images: image i owns rows offsets[i]:offsets[i + 1].

    Attributes:
        offsets: (n + 1,) int64.
        boxes: (D, 4) float64 x y width height, px.
        scores: (D,) float64.
    """

    offsets: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class LevelCurve:
    """One level of difficulty.

    Attributes:
        faces: that must be found.
        images: that have some.
        precision: (1000,) float64 at falling scores; 0 where nothing is counted.
        recall: (1000,) float64, rising; NaN where the level has no face.
        ap: area under the falling envelope, as a fraction of 1; NaN where the level has no face.
    """

    faces: int
    images: int
    precision: np.ndarray
    recall: np.ndarray
    ap: float


@dataclass(frozen=True, eq=False)
class _Matches:
    """The D detections of images that have boxes, in the order of images and falling scores.

    Attributes:
        scores: (D,) from 0 to 1: the lowest and the highest score of the whole set.
        faces: (D,) int64 the face that each overlaps most; -1 for less than the least overlap.
    """

    scores: np.ndarray
    faces: np.ndarray


def evaluate_levels(
    boxes: np.ndarray,
    offsets: np.ndarray,
    counted: Mapping[str, np.ndarray],
    found: FoundFaces,
) -> dict[str, LevelCurve]:
    """Precision, recall and average precision by the rules of the official evaluation.

    * Scores of the whole set are stretched to 0 ... 1; equal ones all become 1.
    * A detection belongs to the face of its image that it overlaps most, the first of equal ones,
      from IoU 0.5 on. Corners are x, y, x + width, y + height, and sides have one px more.
    * If that face counts at the level, the best detection of it is right and all others are wrong.
      If it does not, the detection is neither. Detections of no face are wrong.
    * Precision and recall are taken at the scores 0.999, 0.998 ... 0. Images without any annotated
      box are left out.

    Args:
        boxes: (N, 4) all annotated faces, x y width height, px.
        offsets: (n + 1,) int64 rows of each image.
        counted: level -> (N,) bool faces that must be found.
        found: detections of the same n images.
    """
    matches = _match(boxes, offsets, found)
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.argsort(-matches.scores, kind="stable")
    falling = -matches.scores[order]
    thresholds = 1 - np.arange(1, NUM_THRESHOLDS + 1) / NUM_THRESHOLDS
    # Scores of an image fall: all that are counted up to its last detection above a threshold are
    # those above it.
    ends = np.searchsorted(falling, -thresholds, "right")
    curves = {}
    for level, counts in counted.items():
        right, wrong = _judge(matches.faces, counts)
        hits, misses = (
            np.concatenate([[0], np.cumsum(flags[order])])[ends] for flags in (right, wrong)
        )
        curves[level] = _curve(hits, misses, counts, owners)
    return curves


def _judge(faces: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) bool each: detections that find a counted face first, and those that are wrong."""
    has_face = faces >= 0
    is_counted = has_face.copy()
    is_counted[has_face] = counts[faces[has_face]]
    right = np.zeros(len(faces), bool)
    rows = np.flatnonzero(is_counted)
    right[rows[np.unique(faces[rows], return_index=True)[1]]] = True
    return right, (is_counted & ~right) | ~has_face


def _curve(
    hits: np.ndarray, misses: np.ndarray, counts: np.ndarray, owners: np.ndarray
) -> LevelCurve:
    faces = int(np.count_nonzero(counts))
    precision = hits / np.maximum(hits + misses, 1)
    recall = hits / faces if faces else np.full(len(hits), np.nan)
    ap = average_precision(recall, precision, eleven_points=False) if faces else math.nan
    return LevelCurve(faces, len(np.unique(owners[counts])), precision, recall, ap)


def _match(boxes: np.ndarray, offsets: np.ndarray, found: FoundFaces) -> _Matches:
    scores = found.scores
    if len(scores):
        least, most = scores.min(), scores.max()
        scores = (scores - least) / (most - least) if most > least else np.ones_like(scores)
    kept_scores, faces = [np.zeros(0)], [np.zeros(0, np.int64)]
    corners, found_corners = _corners(boxes), _corners(found.boxes)
    for image in range(len(offsets) - 1):
        start, end = offsets[image : image + 2].tolist()
        rows = np.arange(*found.offsets[image : image + 2])
        if start == end or not len(rows):
            continue
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        kept_scores.append(scores[rows])
        for part in range(0, len(rows), _MOST_ROWS):
            with np.errstate(divide="ignore", invalid="ignore"):
                # Annotations have inverted boxes too, of negative area: nothing overlaps them.
                ious = box_math.iou(
                    found_corners[rows[part : part + _MOST_ROWS]], corners[start:end]
                )
            ious[~np.isfinite(ious)] = 0
            best = ious.argmax(axis=1)
            is_match = ious[np.arange(len(best)), best] >= IOU_THRESHOLD
            faces.append(np.where(is_match, start + best, -1))
    return _Matches(np.concatenate(kept_scores), np.concatenate(faces))


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

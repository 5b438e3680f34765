"""Which detection finds which object, and what is wrong with the others.

The causes are those of TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object
Detection Errors", ECCV 2020, section 2.2), with its two overlaps; a detection that fits several of
them gets the first of `Verdict`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.evaluation.evaluators import MAX_DETECTIONS
from sniper.evaluation.protocol import Objects
from sniper.evaluation.result_rows import best_of_groups, result_rows

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1


class Verdict(IntEnum):
    """What becomes of a detection, in the order in which the causes are tried."""

    RIGHT = 0
    IGNORED = 1  # in a crowd region or on a difficult object
    LOCALISATION = 2
    CLASS = 3
    DUPLICATE = 4
    BACKGROUND = 5
    BOTH = 6


@dataclass(frozen=True, eq=False)
class Matches:
    """D detections, ordered by image and falling score, and M objects.

    Attributes:
        images: (D,) int64 index into the records, rising.
        image_ids: (D,) int64, which order equal scores of different images (COCO).
        classes: (D,) int32.
        scores: (D,) float64.
        boxes: (D, 4) float64 x y width height, image px.
        verdicts: (D,) int8 of `Verdict`.
        targets: (D,) int64, the object that was found, or that a detection with an error of class
            or localisation should have found; -1 for all others.
        found_by: (M,) int64, the detection that found each object, or -1.
        missed: (M,) bool: objects that are not found, and that no other class and no better box of
            a detection would find.
        objects: the objects.
    """

    images: np.ndarray
    image_ids: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    verdicts: np.ndarray
    targets: np.ndarray
    found_by: np.ndarray
    missed: np.ndarray
    objects: Objects

    def __len__(self) -> int:
        return len(self.images)

    def of_image(self, index: int) -> slice:
        """Where the detections of an image stand."""
        start, stop = np.searchsorted(self.images, [index, index + 1])
        return slice(int(start), int(stop))


def match_detections(dataset: Dataset, table: DetectionTable, objects: Objects) -> Matches:
    """Matches by the rule of COCO at IoU 0.50 and looks for the causes of all other detections.

    The best hundred detections of a class in an image count. Best scores choose first; each takes
    the free object of its class that it overlaps most.

    Raises:
        DataError: the detections do not fit the set, or are not finite.
    """
    rows = result_rows(dataset, table)
    groups = rows.images * len(dataset.class_names) + rows.classes
    counted = np.flatnonzero(best_of_groups(groups, rows.scores, MAX_DETECTIONS[-1]))
    order = counted[np.lexsort((-rows.scores[counted], rows.images[counted]))]
    image_ids = np.array([record.image_id for record in dataset.records], np.int64)
    matches = Matches(
        images=rows.images[order],
        image_ids=image_ids[rows.images[order]],
        classes=rows.classes[order],
        scores=rows.scores[order],
        boxes=rows.boxes[order],
        verdicts=np.full(len(order), Verdict.BACKGROUND, np.int8),
        targets=np.full(len(order), -1, np.int64),
        found_by=np.full(len(objects), -1, np.int64),
        missed=np.zeros(len(objects), bool),
        objects=objects,
    )
    for image in range(len(dataset.records)):
        _match_image(matches, matches.of_image(image), objects.of_image(image))
    repairable = np.isin(matches.verdicts, [Verdict.LOCALISATION, Verdict.CLASS])
    matches.missed[:] = (matches.found_by < 0) & ~objects.ignored
    matches.missed[matches.targets[repairable]] = False
    return matches


def overlaps(boxes: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(D, M) IoU; for crowd regions the share of the detection that lies inside.

    Args:
        boxes: (D, 4) float64 x y width height.
        objects: (M, 4) the same.
        crowd: (M,) bool.
    """
    low = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (objects[:, :2] + objects[:, 2:]))
    inter = np.maximum(high - low, 0).prod(axis=2)
    areas = boxes[:, 2:].prod(axis=1)[:, None]
    union = np.where(crowd, areas, areas + objects[:, 2:].prod(axis=1) - inter)
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def _match_image(matches: Matches, rows: slice, of_image: slice) -> None:
    """Fills in the detections and objects of one image."""
    objects = matches.objects
    if rows.start == rows.stop or of_image.start == of_image.stop:
        return
    iou = overlaps(matches.boxes[rows], objects.boxes[of_image], objects.crowd[of_image])
    same = matches.classes[rows, None] == objects.classes[of_image]
    ignored, crowd = objects.ignored[of_image], objects.crowd[of_image]
    found_by = np.full(len(ignored), -1)  # rows of this image
    verdicts, targets = matches.verdicts[rows], matches.targets[rows]
    verdicts[:], targets[:] = _causes(iou, same, ignored)
    fits = same & (iou >= FOREGROUND_IOU)
    for row in np.flatnonzero(fits.any(axis=1)).tolist():
        chosen = _best_free(iou[row], fits[row] & ((found_by < 0) | crowd), ignored)
        if chosen >= 0:
            found_by[chosen] = row
            verdicts[row] = Verdict.IGNORED if ignored[chosen] else Verdict.RIGHT
            targets[row] = -1 if ignored[chosen] else of_image.start + chosen
    # The targets of errors still count from the first object of the image.
    wrong = (verdicts != Verdict.RIGHT) & (targets >= 0)
    targets[wrong] += of_image.start
    matches.found_by[of_image] = np.where(found_by >= 0, found_by + rows.start, -1)


def _best_free(iou: np.ndarray, free: np.ndarray, ignored: np.ndarray) -> int:
    """The free object with the largest overlap, an ignored one only if there is no other; or -1."""
    for kind in (free & ~ignored, free & ignored):
        if kind.any():
            return int(np.argmax(np.where(kind, iou, -1)))
    return -1


def _causes(
    iou: np.ndarray, same: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is wrong with each detection if it finds nothing, and the object that it was meant for.

    Args:
        iou: (D, M) overlaps.
        same: (D, M) detection and object have one class.
        ignored: (M,) objects that need not be found: these explain no error.

    Returns:
        (D,) of `Verdict`; (D,) columns, -1 where no single object was meant.
    """
    real = ~ignored
    same_class, other_class = np.where(same & real, iou, 0), np.where(~same & real, iou, 0)
    same_best, other_best = same_class.max(axis=1), other_class.max(axis=1)
    cases = [
        (same_best >= BACKGROUND_IOU) & (same_best < FOREGROUND_IOU),
        other_best >= FOREGROUND_IOU,
        same_best >= FOREGROUND_IOU,
        np.maximum(same_best, other_best) < BACKGROUND_IOU,
    ]
    kinds = [Verdict.LOCALISATION, Verdict.CLASS, Verdict.DUPLICATE, Verdict.BACKGROUND]
    verdicts = np.select(cases, kinds, Verdict.BOTH)
    meant = np.select(cases[:2], [same_class.argmax(axis=1), other_class.argmax(axis=1)], -1)
    return verdicts, meant

"""How many objects the proposals of a region proposal network find."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.proposals import ProposalSet
from sniper.errors import DataError

LIMITS = (10, 100, 300, 1000)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# Squared sides in px^2, as COCO divides objects.
_SIZES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
_SIZE_TEXTS = {
    "all": "all",
    "small": "small (below 32^2 px)",
    "medium": "medium (32^2 to 96^2 px)",
    "large": "large (above 96^2 px)",
}


@dataclass(frozen=True)
class ProposalReport:
    """Average recall of proposals as fractions of 1; NaN where the set has no such object.

    Attributes:
        dataset: name of the data set.
        num_images: images that were evaluated.
        num_proposals: of these images.
        num_objects: `all`, `small`, `medium`, `large` -> objects.
        recall: the same names -> limit of proposals per image -> recall, mean over IoU 0.50:0.95.
        recall_50: the same at IoU 0.50.
    """

    dataset: str
    num_images: int
    num_proposals: int
    num_objects: Mapping[str, int]
    recall: Mapping[str, Mapping[int, float]]
    recall_50: Mapping[str, Mapping[int, float]]

    def as_dict(self) -> dict[str, object]:
        """All numbers, ready for JSON: NaN becomes None, limits become texts."""
        return {
            "dataset": self.dataset,
            "num_images": self.num_images,
            "num_proposals": self.num_proposals,
            "num_objects": dict(self.num_objects),
            "ar": _for_json(self.recall),
            "recall_50": _for_json(self.recall_50),
        }

    def table(self) -> str:
        """Average recall by size and number of proposals; in percent, '-' for NaN."""
        width = max(map(len, _SIZE_TEXTS.values()))
        limits = "".join(f"{f'AR@{limit}':>9}" for limit in LIMITS)
        limits += "".join(f"{f'R50@{limit}':>9}" for limit in LIMITS)
        lines = [
            f"{self.dataset}: {self.num_images} images, {self.num_proposals} proposals, "
            "recall in percent",
            f"{'size of the objects':<{width}} {'number':>7}{limits}",
        ]
        for size, text in _SIZE_TEXTS.items():
            values = [self.recall[size][limit] for limit in LIMITS]
            values += [self.recall_50[size][limit] for limit in LIMITS]
            cells = "".join(f"{_percent(value):>9}" for value in values)
            lines.append(f"{text:<{width}} {self.num_objects[size]:>7}{cells}")
        return "\n".join(lines)


def proposal_recall(dataset: Dataset, proposals: ProposalSet) -> ProposalReport:
    """Average recall of proposals, whatever the class (as COCO and detectron2 report it).

    Of the best 10, 100, 300 or 1000 proposals of an image the closest pairs of a proposal and an
    object are made first; a proposal finds one object. Objects are the ground truth boxes of the
    records: crowd regions are none, and neither are VOC's difficult objects. Their boxes decide
    about small, medium and large.

    Args:
        dataset: a set with annotations.
        proposals: of the same set, in any order.

    Raises:
        DataError: the set has no annotations, or an image has no entry in the proposals.
    """
    if not dataset.has_annotations:
        raise DataError(
            "the recall of proposals needs annotations, and this set has none", where=dataset.name
        )
    areas, overlaps, count = [np.zeros(0)], [np.zeros((0, len(LIMITS)))], 0
    for record in dataset.records:
        boxes, scores = proposals.for_image(record.image_id)
        count += len(boxes)
        truth = record.gt_boxes.astype(np.float64)
        best = np.argsort(-scores, kind="stable")[: max(LIMITS)]
        iou = _iou(boxes[best].astype(np.float64), truth)
        areas.append(_areas(truth))
        overlaps.append(np.stack([_pair(iou[:limit]) for limit in LIMITS], axis=1))
    return _report(dataset, np.concatenate(areas), np.concatenate(overlaps), count)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)


def _iou(proposals: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(P, G) overlaps of inclusive boxes."""
    low = np.maximum(proposals[:, None, :2], objects[None, :, :2])
    high = np.minimum(proposals[:, None, 2:], objects[None, :, 2:])
    inter = np.maximum(high - low + 1, 0).prod(axis=2)
    return inter / (_areas(proposals)[:, None] + _areas(objects)[None] - inter)


def _pair(iou: np.ndarray) -> np.ndarray:
    """(G,) overlap of each object with its proposal, closest pairs first; 0 without one."""
    overlaps = np.zeros(iou.shape[1])
    free = iou.copy()
    for _ in range(min(iou.shape)):
        proposal, thing = np.unravel_index(np.argmax(free), free.shape)
        if free[proposal, thing] <= 0:
            break
        overlaps[thing] = free[proposal, thing]
        free[proposal], free[:, thing] = -1, -1
    return overlaps


def _report(
    dataset: Dataset, areas: np.ndarray, overlaps: np.ndarray, count: int
) -> ProposalReport:
    inside = {size: (areas >= low) & (areas <= high) for size, (low, high) in _SIZES.items()}
    hits = overlaps[:, :, None] >= IOU_THRESHOLDS  # (objects, limits, thresholds)
    every, first = hits.mean(axis=2), hits[:, :, 0]
    return ProposalReport(
        dataset=dataset.name,
        num_images=len(dataset.records),
        num_proposals=count,
        num_objects={size: int(of_size.sum()) for size, of_size in inside.items()},
        recall={size: _by_limit(every[of_size]) for size, of_size in inside.items()},
        recall_50={size: _by_limit(first[of_size]) for size, of_size in inside.items()},
    )


def _by_limit(values: np.ndarray) -> dict[int, float]:
    if not len(values):
        return dict.fromkeys(LIMITS, math.nan)
    return dict(zip(LIMITS, values.mean(axis=0).tolist()))


def _for_json(recall: Mapping[str, Mapping[int, float]]) -> dict[str, dict[str, float | None]]:
    return {
        size: {str(limit): None if math.isnan(v) else v for limit, v in by_limit.items()}
        for size, by_limit in recall.items()
    }


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"

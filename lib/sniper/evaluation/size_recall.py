"""Which share of the objects of each size is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.evaluation.analysis.matching import match_detections
from sniper.evaluation.protocols import objects_of

# Square roots of areas, image px.
SIZE_EDGES_PX = (0.0, 16.0, 32.0, 64.0, 96.0, 160.0, 256.0, np.inf)


@dataclass(frozen=True, eq=False)
class SizeRecall:
    """Recall of objects by size.

    Attributes:
        edges_px: (K + 1,) bounds of the square root of an object's area, image px.
        objects: (K,) objects of each size that should be found.
        found: (K,) those that are, by the best hundred detections of a class at IoU 0.5.
    """

    edges_px: tuple[float, ...]
    objects: np.ndarray
    found: np.ndarray

    @property
    def recall(self) -> np.ndarray:
        """(K,) shares; NaN for sizes without objects."""
        none = self.objects == 0
        return np.where(none, np.nan, self.found / np.where(none, 1, self.objects))

    def names(self) -> list[str]:
        """Sizes in words: `16-32`, and `256+` for the last."""
        pairs = zip(self.edges_px, self.edges_px[1:])
        return [f"{low:g}+" if np.isinf(high) else f"{low:g}-{high:g}" for low, high in pairs]


def recall_by_size(
    dataset: Dataset, table: DetectionTable, edges_px: Sequence[float] = SIZE_EDGES_PX
) -> SizeRecall:
    """Recall by the sizes of objects; crowd regions and difficult objects do not count.

    Args:
        dataset: with annotations.
        table: its detections.
        edges_px: rising.

    Raises:
        DataError: the detections do not fit the set.
    """
    objects = objects_of(dataset)
    matches = match_detections(dataset, table, objects)
    sides = np.sqrt(objects.boxes[:, 2:].prod(axis=1))
    counted, found = ~objects.ignored, matches.found_by >= 0
    edges = np.asarray(edges_px, np.float64)
    return SizeRecall(
        tuple(edges_px),
        np.histogram(sides[counted], edges)[0],
        np.histogram(sides[counted & found], edges)[0],
    )

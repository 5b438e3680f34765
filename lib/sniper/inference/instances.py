"""Masks of the final detections of a block of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sniper.data import Record
from sniper.inference.forward import ChipDetections
from sniper.inference.mask_forward import MaskJob
from sniper.inference.paste import MaskPaster

MaskNetwork = Callable[[Sequence[MaskJob]], Iterable[np.ndarray]]


@dataclass(frozen=True, eq=False)
class _Map:
    """RoI map of a chip, and how its px relate to those of the image."""

    roi_map: np.ndarray  # (K, h, w)
    factor: float
    origin: np.ndarray  # (4,) x y x y, image px


class BlockMaps:
    """The RoI maps of a block of images, by image, level and chip."""

    def __init__(self) -> None:
        self._maps: dict[tuple[int, int, int], _Map] = {}

    def keep(
        self, level: int, found: ChipDetections, origin: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """Keeps the map of a chip whose upper left corner lies at `origin`, image px."""
        key = (found.image_index, level, found.chip_index)
        self._maps[key] = _Map(found.roi_map, found.factor, np.array([*origin, *origin]))

    def job(
        self, image: int, level: int, chip: int, boxes: np.ndarray, classes: np.ndarray
    ) -> MaskJob:
        """What the mask head needs for boxes (n, 4), image px, that were found there."""
        own = self._maps[image, level, chip]
        boxes_net = (boxes.astype(np.float64) - own.origin) * own.factor
        return MaskJob(own.roi_map, boxes_net.astype(np.float32), classes)


def block_masks(
    network: MaskNetwork,
    maps: BlockMaps,
    records: Sequence[Record],
    detections: Sequence[Sequence[np.ndarray]],
    origins: Sequence[Sequence[np.ndarray]],
    step: Callable[[], None] = lambda: None,
) -> list[list[list[bytes]]]:
    """The masks of all detections of a block, each read at the level and chip that found it.

    Args:
        network: probabilities of jobs.
        maps: RoI maps of the block.
        records: the images of the block.
        detections: per image and class (n, 5) float32 x1 y1 x2 y2 score, image px.
        origins: per image and class (n, 2) level and chip index.
        step: called after each image.

    Returns:
        Per image and class a list with the compressed run lengths of each mask.
    """
    tables = [_Table(*pair) for pair in zip(detections, origins)]
    jobs = [
        maps.job(image, *table.origins[rows[0]], table.boxes[rows], table.classes[rows])
        for image, table in enumerate(tables)
        for rows in table.groups
    ]
    probabilities = iter(network(jobs))
    result = []
    for record, table in zip(records, tables):
        paster = MaskPaster(record.height, record.width)
        counts = [b""] * len(table.boxes)
        for rows in table.groups:
            for row, probability in zip(rows, next(probabilities)):
                counts[row] = paster.encode(probability, table.boxes[row])
        result.append(table.by_class(counts))
        step()
    return result


class _Table:
    """All detections of one image in one table, class after class.

    Attributes:
        boxes: (n, 4) float32, image px.
        classes: (n,) int64.
        origins: (n, 2) int32, level and chip index.
        groups: rows of each level and chip, ascending.
    """

    def __init__(self, detections: Sequence[np.ndarray], origins: Sequence[np.ndarray]) -> None:
        self._lengths = [len(rows) for rows in detections]
        self.boxes = np.concatenate([rows[:, :4] for rows in detections])
        self.classes = np.repeat(np.arange(len(detections)), self._lengths)
        self.origins = np.concatenate(origins)
        different, group = np.unique(self.origins, axis=0, return_inverse=True)
        self.groups = [np.flatnonzero(group.ravel() == k) for k in range(len(different))]

    def by_class(self, values: list[bytes]) -> list[list[bytes]]:
        """A value for each row as one list for each class."""
        ends = np.cumsum(self._lengths).tolist()
        return [values[end - length : end] for end, length in zip(ends, self._lengths)]

"""Masks of the final detections of a block of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sniper.data import Record
from sniper.data.detections import DetectionTable
from sniper.inference.decode import ChipDetections
from sniper.inference.executor import MaskJob
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


def table_with_masks(
    network: MaskNetwork,
    maps: BlockMaps,
    records: Sequence[Record],
    table: DetectionTable,
    origins: np.ndarray,
    step: Callable[[], None] = lambda: None,
) -> DetectionTable:
    """A table with the masks of its detections, each read at the level and chip that found it.

    Args:
        network: probabilities of jobs.
        maps: RoI maps of the block.
        records: the images of the block.
        table: their detections.
        origins: (D, 2) level and chip index of each.
        step: called after each image.
    """
    groups = [_groups(table, origins, image) for image in range(len(records))]
    jobs = [
        maps.job(image, *origins[rows[0]], table.rows[rows, :4], table.classes[rows])
        for image, own in enumerate(groups)
        for rows in own
    ]
    probabilities = iter(network(jobs))
    masks = [b""] * table.num_detections
    for record, own in zip(records, groups):
        paster = MaskPaster(record.height, record.width)
        for rows in own:
            for row, probability in zip(rows, next(probabilities)):
                masks[row] = paster.encode(probability, table.rows[row, :4])
        step()
    return table.with_masks(masks)


def _groups(table: DetectionTable, origins: np.ndarray, image: int) -> list[np.ndarray]:
    """Rows of an image, those of each level and chip together, ascending."""
    first, last = table.offsets[image : image + 2]
    different, group = np.unique(origins[first:last], axis=0, return_inverse=True)
    return [first + np.flatnonzero(group.ravel() == k) for k in range(len(different))]

"""Masks of the final detections of a block of images, from the network's cells to whole images.

The frame is that of the targets in training (`sniper.ops.mask_rcnn_target`): a map of m x m cells
covers the box from its corner x1, y1 to its corner x2, y2, in coordinates where pixel p reaches
from p to p + 1. The centre of pixel p lies at p + 0.5, so it falls on cell
(p + 0.5 - x1) m / w - 0.5 with w = max(x2 - x1, 1), and there the map is interpolated between the
centres of its cells. The pixels of the box are round(x1) ... round(x2), both included, as its width
is x2 - x1 + 1 elsewhere; pixels behind the outermost centres repeat the outermost cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sniper.boxes import LAST_PX
from sniper.data import Record
from sniper.data.detections import DetectionTable
from sniper.data.rle import encode_mask
from sniper.inference.decode import ChipDetections
from sniper.inference.executor import MaskJob

THRESHOLD = 0.5

MaskNetwork = Callable[[Sequence[MaskJob]], Iterable[np.ndarray]]


@dataclass(frozen=True, eq=False)
class _Map:
    """RoI map of a chip, and how its px relate to those of the image."""

    roi_map: np.ndarray  # (K, h, w)
    factor: float
    origin: np.ndarray  # (4,) x y x y, image px


class BlockMaps:
    """The RoI maps of a block of images, by image, level and chip.

    Args:
        legacy: boxes as the network was trained with, see `sniper.targets.gt.boxes_in_chip`.
    """

    def __init__(self, *, legacy: bool = False) -> None:
        self._end = np.zeros(4) if legacy else LAST_PX.astype(np.float64)
        self._maps: dict[tuple[int, int, int], _Map] = {}

    def keep(
        self, level: int, detections: ChipDetections, origin: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """Keeps the map of a chip whose upper left corner lies at `origin`, image px."""
        if detections.roi_map is None:
            raise ValueError("the network did not put out its RoI map")
        key = (detections.image_index, level, detections.chip_index)
        self._maps[key] = _Map(detections.roi_map, detections.factor, np.array([*origin, *origin]))

    def job(
        self, image: int, level: int, chip: int, boxes: np.ndarray, classes: np.ndarray
    ) -> MaskJob:
        """What the mask head needs for boxes (n, 4), image px, that were found there."""
        chip_map = self._maps[image, level, chip]
        end = self._end
        boxes_net = (boxes.astype(np.float64) + end - chip_map.origin) * chip_map.factor - end
        return MaskJob(chip_map.roi_map, boxes_net.astype(np.float32), classes)


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
    jobs = []
    for image, groups_of_image in enumerate(groups):
        for rows in groups_of_image:
            level, chip = origins[rows[0]].tolist()
            jobs.append(maps.job(image, level, chip, table.rows[rows, :4], table.classes[rows]))
    probabilities = iter(network(jobs))
    masks = [b""] * table.num_detections
    for record, groups_of_image in zip(records, groups):
        paster = MaskPaster(record.height, record.width)
        for rows in groups_of_image:
            for row, probability in zip(rows, next(probabilities)):
                masks[row] = paster.encode(probability, table.rows[row, :4])
        step()
    return table.with_masks(masks)


def _groups(table: DetectionTable, origins: np.ndarray, image: int) -> list[np.ndarray]:
    """Rows of an image, those of each level and chip together, ascending."""
    first, last = table.offsets[image : image + 2]
    different, group = np.unique(origins[first:last], axis=0, return_inverse=True)
    return [first + np.flatnonzero(group.ravel() == k) for k in range(len(different))]


class MaskPaster:
    """Encodes the masks of one image, one after the other, in one buffer of the image's size."""

    def __init__(self, height: int, width: int) -> None:
        # Run lengths of COCO go down the columns.
        self._frame = np.zeros((height, width), np.uint8, order="F")

    def encode(self, probability: np.ndarray, box: np.ndarray) -> bytes:
        """Compressed run lengths of the pixels with a probability of 0.5 or more.

        Args:
            probability: (m, m) float32, m >= 2.
            box: (4,) x1 y1 x2 y2, image px, finite; what lies outside the image is cut off.
        """
        height, width = self._frame.shape
        columns = pixels_of_side(box[0], box[2], width)
        rows = pixels_of_side(box[1], box[3], height)
        values = interpolate(
            probability,
            cells_of_pixels(rows, box[1], box[3], len(probability)),
            cells_of_pixels(columns, box[0], box[2], len(probability)),
        )
        window = self._frame[rows.start : rows.stop, columns.start : columns.stop]
        np.greater_equal(values, THRESHOLD, out=window, casting="unsafe")
        counts = encode_mask(self._frame)
        window[:] = 0  # for the next mask; the rest was never touched
        return counts


def pixels_of_side(start: float, end: float, limit: int) -> range:
    """Pixels round(start) ... round(end), at least one, those from 0 to `limit` - 1."""
    first = np.floor(float(start) + 0.5)
    last = max(np.floor(float(end) + 0.5), first)
    begin = int(np.clip(first, 0, limit))
    return range(begin, max(begin, int(np.clip(last + 1, 0, limit))))


def cells_of_pixels(pixels: range, start: float, end: float, cells: int) -> np.ndarray:
    """(n,) float64 positions of pixel centres on a map of `cells`, 0 being its first centre."""
    side = max(float(end) - float(start), 1.0)
    return (np.arange(pixels.start, pixels.stop) + 0.5 - float(start)) * cells / side - 0.5


def interpolate(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear interpolation on a grid; positions outside take the border's value.

    Args:
        values: (m, m) float32.
        rows: (h,) positions, 0 ... m - 1.
        columns: (w,) positions.

    Returns:
        (h, w) float64.
    """
    top, down = _taps(rows, len(values))
    left, right = _taps(columns, len(values))
    lines = values[top] * (1 - down)[:, None] + values[top + 1] * down[:, None]  # (h, m)
    return lines[:, left] * (1 - right) + lines[:, left + 1] * right


def _taps(positions: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower neighbour of each position, and the weight of the upper one."""
    inside = np.clip(positions, 0, count - 1)
    lower = np.minimum(inside.astype(np.int64), count - 2)
    return lower, inside - lower

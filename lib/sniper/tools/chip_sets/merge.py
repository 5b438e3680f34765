"""From detections on exported chips to detections on the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sniper.boxes import LAST_PX, flip
from sniper.chips.focus import inside_borders
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.detections import DetectionTable, join_tables
from sniper.data.ids import FileId
from sniper.data.record import Record, image_record
from sniper.inference.merge_levels import LevelDetections, merge_levels
from sniper.progress import Progress
from sniper.tools.chip_sets.table import ChipFiles

# Images that are merged in one call: more would only take more memory.
_BLOCK = 1024


def chips_as_set(table: ChipFiles, where: str) -> Dataset:
    """The pictures of the chips as a data set without annotations, for readers of results."""
    sizes = table.sizes.tolist()
    records = [
        image_record(name, number, width, height)
        for number, (name, (width, height)) in enumerate(zip(table.names, sizes), start=1)
    ]
    return _dataset("chips", records, table, table.chip_ids, where)


def images_as_set(table: ChipFiles, where: str) -> Dataset:
    """The images as a data set without annotations, for writers of results."""
    records = [
        replace(image_record(str(identity), number, width, height), file_id=identity)
        for number, (identity, width, height) in enumerate(table.images)
    ]
    return _dataset("images", records, table, [i for i, _ in table.categories], where)


def _dataset(
    name: str, records: Sequence[Record], table: ChipFiles, ids: Sequence[FileId], where: str
) -> Dataset:
    names = (BACKGROUND, *(name for _, name in table.categories))
    return Dataset(name, name, names, (0, *ids), tuple(records), where, has_annotations=False)


def image_boxes(table: ChipFiles, chip: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes of chips in image px: the way back of `sniper.targets.gt.boxes_in_chip`.

    Args:
        table: the chips.
        chip: (n,) index of the chip of each box.
        boxes: (n, 4) inclusive corners, px of the chip's picture.

    Returns:
        (n, 4) float64 inclusive corners; those of mirrored chips are mirrored back.
    """
    last = np.zeros(4) if table.legacy else LAST_PX.astype(np.float64)
    moved = (boxes + last) / table.factors[chip, None] + table.rects[chip][:, [0, 1, 0, 1]] - last
    widths = np.array([width for _, width, _ in table.images], np.float64)
    mirrored = np.flatnonzero(table.flipped[chip])
    # Each has a width of its own: mirrored at 0, then moved by the width.
    moved[mirrored] = flip(moved[mirrored], 0)
    moved[mirrored[:, None], [0, 2]] += widths[table.image[chip[mirrored]], None]
    return moved


def merge_chips(
    table: ChipFiles, detections: DetectionTable, *, prune: bool = False
) -> DetectionTable:
    """The detections of all images.

    Args:
        table: the chips, and how their detections are merged.
        detections: of each chip, px of its picture.
        prune: drop what a border of its chip inside the image cuts off.

    Returns:
        Detections in image px, ordered by image, class and rank.
    """
    chip_of_row = detections.image_of_row
    moved = image_boxes(table, chip_of_row, detections.rows[:, :4].astype(np.float64))
    rows = np.concatenate([moved, detections.rows[:, 4:]], axis=1).astype(np.float32)
    by_image = np.argsort(table.image, kind="stable")
    starts = np.searchsorted(table.image[by_image], np.arange(len(table.images) + 1))
    progress = Progress("merged images", len(table.images))
    merged = []
    for first in range(0, len(table.images), _BLOCK):
        last = min(first + _BLOCK, len(table.images))
        parts = [
            _parts(table, detections, rows, by_image[starts[image] : starts[image + 1]], prune)
            for image in range(first, last)
        ]
        plan = table.plan
        merged.append(merge_levels(parts, plan.valid_ranges, plan.settings)[0])
        progress.tell(last)
    return join_tables(merged)


def _parts(
    table: ChipFiles, detections: DetectionTable, rows: np.ndarray, chips: np.ndarray, prune: bool
) -> list[LevelDetections]:
    """The detections of one image, chip by chip."""
    parts = []
    for chip in chips.tolist():
        of_chip = slice(int(detections.offsets[chip]), int(detections.offsets[chip + 1]))
        if of_chip.start == of_chip.stop:
            continue
        boxes, classes = rows[of_chip], detections.classes[of_chip]
        if prune:
            kept = _whole(table, chip, boxes)
            boxes, classes = boxes[kept], classes[kept]
        parts.append(LevelDetections(int(table.levels[chip]), chip, boxes, classes))
    return parts


def _whole(table: ChipFiles, chip: int, boxes: np.ndarray) -> np.ndarray:
    """(n,) bool: which boxes no border of the chip cuts off."""
    _, width, height = table.images[table.image[chip]]
    x1, y1, x2, y2 = table.rects[chip].tolist()
    # A chip ends where its last px does.
    x2, y2 = x2 + 1 / table.factors[chip], y2 + 1 / table.factors[chip]
    if table.flipped[chip]:
        x1, x2 = width - x2, width - x1
    return inside_borders(boxes[:, :4], (x1, y1, x2, y2), (width, height))

"""The picture of FocusChips in `sniper show-chips`: coarse to fine, as far as the labels allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from easydict import EasyDict
from matplotlib.figure import Figure

from sniper.chips.focus import (
    FocusSettings,
    focus_chips,
    inside_borders,
    on_whole_pixels,
    unique_chips,
)
from sniper.chips.pyramid import level_size, test_factor
from sniper.data.image import read_image
from sniper.data.record import Record
from sniper.targets.focus_map import FOCUS, FocusRanges, focus_labels
from sniper.targets.gt import boxes_in_chip
from sniper.tools.explain.chip_sheets import crowd_boxes
from sniper.vis.chip_pictures import IGNORED, NEVER, VALID, ChipOutline, LevelPanel, draw_levels

_TEXTS = {
    VALID: "box for this level, whole in a window",
    IGNORED: "box for other levels",
    NEVER: "box that no level sees whole",
}


@dataclass(frozen=True, eq=False)
class FocusLevel:
    """What one level of the test sees of an image if the network marks exactly the labels.

    Attributes:
        index: of the level.
        factor: image px -> network px.
        chips: (K, 4) windows, image px.
        focus: per window (h, w) bool, the cells that are labelled as FocusPixels.
        found: (N,) bool, boxes in the level's valid range that lie whole in a window.
    """

    index: int
    factor: float
    chips: np.ndarray
    focus: list[np.ndarray]
    found: np.ndarray

    @property
    def network_px(self) -> float:
        """Pixels that the network computes on."""
        sides = (self.chips[:, 2:] - self.chips[:, :2]) * self.factor
        return float(sides.prod(axis=1).sum())


def focus_levels(cfg: EasyDict, record: Record) -> list[FocusLevel]:
    """The levels of the test, each on the windows that the level before it leaves.

    Args:
        cfg: a configuration with the FocusPixel branch.
        record: the image; its ground truth takes the place of the network.

    Raises:
        ConfigError: the test's keys do not fit together.
    """
    train, test, stride = cfg.TRAIN, cfg.TEST, cfg.network.RPN_FEAT_STRIDE
    ranges = FocusRanges(
        train.AUTO_FOCUS_DC_LOW, train.AUTO_FOCUS_SMALL_THRESH, train.AUTO_FOCUS_DC_HIGH
    )
    legacy = bool(train.LEGACY_BOXES)
    pruned = [*test.DO_PRUNING, False]
    whole = np.array([[0, 0, record.width, record.height]], np.float64)
    chips, levels = whole, []
    for index, scale in enumerate(test.SCALES):
        factor = test_factor(record.width, record.height, scale)
        focus = [_labels(record, chip, factor, ranges, stride, legacy) for chip in chips]
        found = _found(record, chips, test.VALID_RANGES[index], prune=pruned[index])
        levels.append(FocusLevel(index, factor, chips, focus, found))
        if pruned[index + 1]:
            settings = FocusSettings(*test.CHIP_HYPERPARAMS[index])
            chips = _next_chips(record, chips, focus, settings, factor, stride)
    return levels


def _labels(
    record: Record,
    chip: np.ndarray,
    factor: float,
    ranges: FocusRanges,
    stride: int,
    legacy: bool,
) -> np.ndarray:
    """(h, w) bool, the FocusPixels of a window, as training labels them."""
    width, height = ((chip[2:] - chip[:2]) * factor / stride).tolist()
    cells = math.ceil(max(width, height))
    side = cells * stride
    boxes = boxes_in_chip(record.gt_boxes, tuple(chip), factor, side, legacy=legacy)
    labels = focus_labels(boxes, ranges, stride, cells).reshape(cells, cells)
    return labels[: math.ceil(height), : math.ceil(width)] == FOCUS


def _next_chips(
    record: Record,
    chips: np.ndarray,
    focus: Sequence[np.ndarray],
    settings: FocusSettings,
    factor: float,
    stride: int,
) -> np.ndarray:
    """(K, 4) FocusChips of all windows, image px."""
    chips_of_level = [np.zeros((0, 4))]
    for chip, cells in zip(chips, focus):
        size_px = tuple((chip[2:] - chip[:2]) * factor)
        chips_of_level.append(focus_chips(cells, settings, size_px, factor, chip, stride=stride))
    return unique_chips(
        on_whole_pixels(np.concatenate(chips_of_level), (record.width, record.height))
    )


def _found(
    record: Record, chips: np.ndarray, valid_range: Sequence[float], *, prune: bool
) -> np.ndarray:
    boxes = record.gt_boxes.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    sizes = np.sqrt(sides.prod(axis=1))
    low, high = valid_range
    in_range = (sizes > low) & ((sizes <= high) | (high <= 0))
    whole = np.zeros(len(boxes), bool)
    for chip in chips:
        inside = (boxes[:, :2] >= chip[:2]).all(axis=1) & (boxes[:, 2:] <= chip[2:]).all(axis=1)
        if prune:
            inside &= inside_borders(boxes, chip, (record.width, record.height))
        whole |= inside
    return in_range & whole


def focus_summary(record: Record, levels: Sequence[FocusLevel]) -> str:
    """Windows and pixels of each level, and what is missed, in words."""
    windows = " + ".join(str(len(level.chips)) for level in levels)
    pixels = sum(level.network_px for level in levels)
    pyramid = sum(level.factor**2 for level in levels) * record.width * record.height
    missed = int(np.sum(~np.any([level.found for level in levels], axis=0)))
    return (
        f"{windows} windows, {100 * pixels / pyramid:.0f} % of the full pyramid's pixels, "
        f"{missed} of {record.num_gt} boxes in no window"
    )


def focus_sheet(cfg: EasyDict, record: Record, levels: Sequence[FocusLevel]) -> Figure:
    """The image once per level: its windows, FocusPixels and what becomes of the boxes."""
    anywhere = np.any([level.found for level in levels], axis=0)
    panels = []
    for level in levels:
        states = [
            VALID if here else IGNORED if there else NEVER
            for here, there in zip(level.found, anywhere)
        ]
        panels.append(
            LevelPanel(
                title=_title(cfg, record, level),
                chips=[ChipOutline(n, tuple(rect)) for n, rect in enumerate(level.chips, 1)],
                boxes=record.gt_boxes,
                states=states,
                crowd=crowd_boxes(record),
                focus=_focus_picture(record, level, cfg.network.RPN_FEAT_STRIDE),
            )
        )
    heading = (
        f"{Path(record.image_path).name}{' (mirrored)' if record.flipped else ''}, id "
        f"{record.original_id}: coarse to fine, if the network marks the labels: "
        f"{focus_summary(record, levels)}"
    )
    image = read_image(record.image_path, record.flipped, frame=record.frame)
    return draw_levels(image, heading, panels, texts=_TEXTS)


def _title(cfg: EasyDict, record: Record, level: FocusLevel) -> str:
    width, height = level_size(record.width, record.height, level.factor)
    low, high = cfg.TEST.VALID_RANGES[level.index]
    area = record.width * record.height * level.factor**2
    return (
        f"level {level.index}, {width}x{height} px: finds sqrt(area) "
        f"{max(low, 0):g} to {f'{high:g} px' if high > 0 else 'any size'}\n"
        f"{len(level.chips)} window(s), {100 * level.network_px / area:.0f} % of its pixels, "
        f"{int(level.found.sum())} box(es)"
    )


def _focus_picture(record: Record, level: FocusLevel, stride: int) -> np.ndarray:
    """(H, W) bool, image px that are FocusPixels in some window."""
    picture = np.zeros((record.height, record.width), bool)
    for chip, cells in zip(level.chips, level.focus):
        x1, y1, x2, y2 = chip.astype(int)
        rows = ((np.arange(y2 - y1) + 0.5) * level.factor / stride).astype(int)
        columns = ((np.arange(x2 - x1) + 0.5) * level.factor / stride).astype(int)
        picture[y1:y2, x1:x2] |= cells[np.ix_(rows, columns)]
    return picture

"""The numbers of `sniper chip-stats`, as values, JSON and a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sniper.chips.measures import TRAINED, Measures, Pixels
from sniper.runs.resolve import chip_settings, scales_by_rule
from sniper.runs.start_up_report import (
    NEGATIVES_REMEDY,
    lacks_negatives,
    level_name,
    range_text,
    side_text,
)
from sniper.tools.explain.training_set import TrainingSet


@dataclass(frozen=True)
class LevelRow:
    """One level of the pyramid.

    Attributes:
        level: 0 is the finest.
        scale: the level's entry of TRAIN.SCALES in words.
        valid_range: sizes of the boxes that its chips are made for, in words, px.
        boxes_in_range: ground truth of these sizes.
        boxes_trained: ground truth that a chip of this level is trained on.
        images: images with positive chips.
        positive: positive chips.
        negative: negative chips, those at random places included.
        background: of these, those at random places.
        area_unseen: share of the level's area that no chip shows, 0 to 1.
        others: objects of other levels.
        others_unseen: of these, objects that no chip of this level shows.
    """

    level: int
    scale: str
    valid_range: str
    boxes_in_range: int
    boxes_trained: int
    images: int
    positive: int
    negative: int
    background: int
    area_unseen: float
    others: int
    others_unseen: int


@dataclass(frozen=True)
class FateRow:
    """Boxes that share a fate: its name, the same in words, how many, what to change."""

    name: str
    text: str
    boxes: int
    fix: str


@dataclass(frozen=True)
class ChipStatistics:
    """Numbers of one epoch.

    Attributes:
        config: name of the run.
        image_set: training sets.
        epoch: number of the epoch.
        coco_override: TRAIN.SCALES comes from the 2018 rule for COCO.
        images: training images, mirrored ones included.
        mirrored: of these.
        boxes: ground truth boxes.
        levels: one row per level, finest first.
        fates: what becomes of the boxes, trained ones first.
        chips: all chips.
        negative_chips: of these.
        images_without_chips: images that this epoch leaves out.
        chips_per_image: mean.
        chips_per_image_median: median.
        chips_per_image_most: largest number.
        pixels: millions per image.
        fullest_chip: most boxes in a chip.
        max_gt: TRAIN.MAX_GT.
        chips_over_max_gt: chips with more boxes.
    """

    config: str
    image_set: str
    epoch: int
    coco_override: bool
    images: int
    mirrored: int
    boxes: int
    levels: tuple[LevelRow, ...]
    fates: tuple[FateRow, ...]
    chips: int
    negative_chips: int
    images_without_chips: int
    chips_per_image: float
    chips_per_image_median: float
    chips_per_image_most: int
    pixels: Pixels
    fullest_chip: int
    max_gt: int
    chips_over_max_gt: int

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain types; `tool` and `version` come first."""
        content = {"tool": "chip-stats", "version": 1, **asdict(self)}
        content["pixels"]["share_of_pyramid"] = self.pixels.share_of_pyramid
        content["pixels"]["times_single_scale"] = self.pixels.times_single_scale
        return content


def statistics(data: TrainingSet, measures: Measures, epoch: int = 0) -> ChipStatistics:
    """Counts the chips of an epoch.

    Args:
        data: the training set.
        measures: its chips (`sniper.chips.measures.measure`).
        epoch: number of the epoch.
    """
    chips = measures.epoch.chips
    per_image = chips_per_image(measures)
    return ChipStatistics(
        config=data.cfg.name,
        image_set=data.cfg.dataset.image_set,
        epoch=epoch,
        coco_override=scales_by_rule(data.cfg),
        images=len(data.records),
        mirrored=sum(record.flipped for record in data.records),
        boxes=len(measures.levels.boxes),
        levels=_level_rows(data, measures),
        fates=tuple(FateRow(f.name, f.text, len(f.boxes), f.fix) for f in measures.fates),
        chips=chips.num_chips,
        negative_chips=int(chips.negative.sum()),
        images_without_chips=int((per_image == 0).sum()),
        chips_per_image=float(per_image.mean()),
        chips_per_image_median=float(np.median(per_image)),
        chips_per_image_most=int(per_image.max()),
        pixels=measures.pixels,
        fullest_chip=measures.epoch.stats.most_gt,
        max_gt=data.cfg.TRAIN.MAX_GT,
        chips_over_max_gt=measures.epoch.chips_over(data.cfg.TRAIN.MAX_GT),
    )


def chips_per_image(measures: Measures) -> np.ndarray:
    """Chips of each image: (R,) int64."""
    return np.diff(measures.epoch.chips.offsets)


def _level_rows(data: TrainingSet, measures: Measures) -> tuple[LevelRow, ...]:
    settings, pairs = chip_settings(data.cfg), measures.pairs
    trained_at = measures.epoch.chips.level[pairs.chip[pairs.survives]]
    stats = measures.epoch.stats.levels
    return tuple(
        LevelRow(
            level=level,
            scale=level_name(settings.scales, level),
            valid_range=range_text(settings.size_ranges, level) + side_text(settings, level),
            boxes_in_range=int(measures.levels.in_range[:, level].sum()),
            boxes_trained=int((trained_at == level).sum()),
            images=stats[level].images,
            positive=stats[level].positive,
            negative=stats[level].negative,
            background=stats[level].background,
            area_unseen=measures.unseen[level].area,
            others=measures.unseen[level].others,
            others_unseen=measures.unseen[level].others_unseen,
        )
        for level in range(len(settings.scales))
    )


def table(numbers: ChipStatistics) -> list[str]:
    """The numbers as lines of text."""
    images = max(numbers.images, 1)
    lines = [
        f"{numbers.config}, {numbers.image_set}: {numbers.images} images "
        f"({numbers.mirrored} mirrored), {numbers.boxes} boxes, epoch {numbers.epoch}",
    ]
    if numbers.coco_override:
        lines.append("TRAIN.SCALES comes from the 2018 rule for COCO (TRAIN.COCO_SCALE_OVERRIDE)")
    width = max(12, *(len(row.valid_range) for row in numbers.levels))
    lines += ["", _ROW.format(*_HEAD, width=width)]
    for row in numbers.levels:
        lines.append(
            _ROW.format(
                f"{row.level}: {row.scale}",
                row.valid_range,
                row.boxes_in_range,
                row.boxes_trained,
                row.images,
                row.positive,
                row.negative,
                f"{(row.positive + row.negative) / images:.2f}",
                width=width,
            )
        )
    if any(row.boxes_trained > row.boxes_in_range for row in numbers.levels):
        lines.append(
            "(trained may be above in range: a box counts in each chip that shows it, and chips "
            "also train the boxes of other sizes that lie in them)"
        )
    lines += ["", *_unseen_lines(numbers), "", *_fate_lines(numbers), "", *_chip_lines(numbers)]
    return lines


_HEAD = (
    "level", "valid px", "in range", "trained", "images", "chips +", "chips -", "per image",
)  # fmt: skip
_ROW = "{:<24} {:<{width}} {:>10} {:>10} {:>8} {:>8} {:>8} {:>10}"


def _unseen_lines(numbers: ChipStatistics) -> list[str]:
    """What test meets for the first time."""
    lines = ["never shown to training in this epoch:"]
    lines += [
        f"  level {row.level}: {row.area_unseen:.0%} of the area, {row.others_unseen} of "
        f"{row.others} objects of other levels"
        for row in numbers.levels
    ]
    bare = [
        str(row.level) for row in numbers.levels if lacks_negatives(row.negative, row.area_unseen)
    ]
    if bare:
        lines.append(f"  -> no negative chips at level {', '.join(bare)}: {NEGATIVES_REMEDY}")
    return lines


def _fate_lines(numbers: ChipStatistics) -> list[str]:
    total = max(numbers.boxes, 1)
    width = max(len(row.text) for row in numbers.fates) + len("boxes ")
    lines = []
    for row in numbers.fates:
        if row.boxes or row.name == TRAINED:
            fix = f"   -> {row.fix}" if row.fix and row.boxes else ""
            head = f"boxes {row.text}"
            lines.append(f"{head:<{width}}  {row.boxes:>9}  {row.boxes / total:>6.1%}{fix}")
    return lines


def _chip_lines(numbers: ChipStatistics) -> list[str]:
    pixels, chips = numbers.pixels, max(numbers.chips, 1)
    lines = [
        f"chips per image: {numbers.chips_per_image:.2f} on average, "
        f"{numbers.chips_per_image_median:g} in the median, {numbers.chips_per_image_most} at "
        f"most; {numbers.images_without_chips} images have none",
        f"negative chips: {numbers.negative_chips} of {numbers.chips} "
        f"({numbers.negative_chips / chips:.1%})",
        f"pixels per image: {pixels.chips:.3f} million = {pixels.share_of_pyramid:.0%} of the full "
        f"pyramid's {pixels.pyramid:.3f}, {pixels.times_single_scale:.2f} times one 800x1333 image",
        f"fullest chip: {numbers.fullest_chip} boxes",
    ]
    if numbers.chips_over_max_gt:
        lines.append(
            f"{numbers.chips_over_max_gt} chips hold more than TRAIN.MAX_GT {numbers.max_gt} "
            "boxes: the surplus is dropped"
        )
    return lines

"""The pictures of `sniper show-chips`: an image with its chips, and the tensors of the chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sniper.chips.chip_settings import ChipSettings
from sniper.chips.chip_table import NEGATIVE, Chip
from sniper.chips.measures import evenly
from sniper.chips.pyramid import level_size
from sniper.chips.streams import stream_seeds
from sniper.data.image import read_image
from sniper.data.record import Record
from sniper.loader.sample import BatchSettings, make_sample
from sniper.models.assembly import anchor_grids
from sniper.runs.resolve import batch_settings, chip_settings, detector_spec
from sniper.runs.start_up_report import level_name, range_text, side_text
from sniper.targets.gt import crowd_in_chip, gt_in_chip
from sniper.tools.explain.training_set import TrainingSet
from sniper.vis.chip_pictures import (
    IGNORED,
    NEVER,
    VALID,
    ChipOutline,
    LevelPanel,
    TensorPanel,
    draw_levels,
    draw_tensors,
)


@dataclass(frozen=True, eq=False)
class ImageChips:
    """A training image and its chips.

    Attributes:
        name: what its pictures are called.
        record: the image.
        chips: its chips, positive ones level by level, then the negative ones.
    """

    name: str
    record: Record
    chips: list[Chip]


def summary(item: ImageChips) -> str:
    """How many chips, boxes and crowd regions an image has, in words."""
    negative = sum(chip.kind == NEGATIVE for chip in item.chips)
    text = (
        f"{len(item.chips) - negative} positive and {negative} negative chips, "
        f"{item.record.num_gt} boxes"
    )
    crowds = len(crowd_boxes(item.record))
    return f"{text}, {crowds} group or crowd regions" if crowds else text


def crowd_boxes(record: Record) -> np.ndarray:
    """(M, 4) float32 regions of many objects, image px; none where the format has none."""
    return np.zeros((0, 4), np.float32) if record.crowd_boxes is None else record.crowd_boxes


def level_sheet(data: TrainingSet, item: ImageChips) -> Figure:
    """The image once per level, with the level's chips and what becomes of the boxes."""
    record = item.record
    image = read_image(record.image_path, record.flipped, frame=record.frame)
    heading = (
        f"{Path(record.image_path).name}{' (mirrored)' if record.flipped else ''}, "
        f"id {record.original_id}, {record.width}x{record.height} px: {summary(item)}"
    )
    return draw_levels(image, heading, level_panels(data, item))


def level_panels(data: TrainingSet, item: ImageChips) -> list[LevelPanel]:
    """What `level_sheet` draws of each level."""
    record, settings = item.record, chip_settings(data.cfg)
    trained = {row for chip in item.chips for row in _trained_rows(record, chip, settings)}
    panels = []
    for level in range(len(settings.scales)):
        numbered = [pair for pair in enumerate(item.chips, 1) if pair[1].level == level]
        chips = [chip for _, chip in numbered]
        here = {row for chip in chips for row in _trained_rows(record, chip, settings)}
        states = [
            VALID if row in here else IGNORED if row in trained else NEVER
            for row in range(record.num_gt)
        ]
        panels.append(
            LevelPanel(
                title=_level_title(data, item, level, len(here)),
                chips=[ChipOutline(n, chip.rect, chip.kind == NEGATIVE) for n, chip in numbered],
                boxes=record.gt_boxes,
                states=states,
                alarms=_false_alarms(record, chips),
                crowd=crowd_boxes(record),
            )
        )
    return panels


def _trained_rows(record: Record, chip: Chip, settings: ChipSettings) -> list[int]:
    """Ground truth that a chip is trained on; negative chips may have some too (as in 2018)."""
    gt = gt_in_chip(
        *(record, chip.rect, chip.factor, chip.rows, settings.chip_size),
        legacy=settings.legacy_boxes,
    )
    return gt.rows[gt.valid].tolist()


def _false_alarms(record: Record, chips: Sequence[Chip]) -> np.ndarray:
    rows = [chip.rows[chip.rows >= record.num_gt] for chip in chips if chip.kind == NEGATIVE]
    return record.boxes[np.concatenate([np.zeros(0, np.int32), *rows])]


def _level_title(data: TrainingSet, item: ImageChips, level: int, trained: int) -> str:
    settings, record = chip_settings(data.cfg), item.record
    chips = [chip for chip in item.chips if chip.level == level]
    negative = sum(chip.kind == NEGATIVE for chip in chips)
    counts = f"{len(chips) - negative} chip(s), {trained} box(es) trained"
    if negative:
        counts += f", {negative} negative chip(s)"
    size = ""
    if chips:
        width, height = level_size(record.width, record.height, chips[0].factor)
        size = f" = {width}x{height} px"
    return (
        f"level {level}, {level_name(settings.scales, level)}{size}: sqrt(area) "
        f"{range_text(settings.size_ranges, level)} px{side_text(settings, level)}\n{counts}"
    )


def tensor_sheet(data: TrainingSet, item: ImageChips, epoch: int, most: int) -> Figure:
    """What the network gets of the image's chips; of many chips an even selection is drawn."""
    settings = batch_settings(data.cfg)
    shown = evenly(np.arange(len(item.chips)), most).tolist()
    panels = [tensor_panel(data, item, settings, index, epoch) for index in shown]
    part = "" if len(shown) == len(item.chips) else f"{len(shown)} of "
    heading = (
        f"id {item.record.original_id}: {part}{len(item.chips)} chips as the network gets them"
    )
    return draw_tensors(heading, panels, settings.pixel_means)


def tensor_panel(
    data: TrainingSet, item: ImageChips, settings: BatchSettings, index: int, epoch: int
) -> TensorPanel:
    """The arrays of one chip (`index` into `item.chips`), as the loader makes them."""
    record, chip = item.record, item.chips[index]
    seed = int(stream_seeds(data.cfg.seed, epoch, record.image_id, int(record.flipped), index))
    sample = make_sample(record, chip, settings, seed)
    stride = data.cfg.network.RPN_FEAT_STRIDE
    cells = settings.contract.chip_size // stride
    anchors = _anchors(data, sample, chip, settings)
    boxes, classes, states = _boxes_of(sample, record, chip, settings)
    focus = None
    if "scale_label" in sample:
        focus = (sample["scale_label"].reshape(cells, cells), stride)
    title = (
        f"chip {index + 1}: level {chip.level}, x{chip.factor:.3g}{_size_text(chip, settings)}, "
        f"{chip.kind}{_valid_range_text(sample)}\n"
        f"boxes {states.count(VALID)} valid, {states.count(IGNORED)} ignored; "
        f"anchors {_anchor_text(anchors)}"
    )
    return TensorPanel(
        title=title,
        data=sample["data"],
        size_hw=(chip.height, chip.width),
        boxes=boxes,
        states=states,
        labels=[data.class_names[index] for index in classes],
        anchors=anchors,
        focus=focus,
        negative=chip.kind == NEGATIVE,
        crowd=crowd_in_chip(
            *(record, chip.rect, chip.factor, settings.contract.chip_size),
            legacy=settings.legacy_boxes,
        ),
    )


def _anchors(
    data: TrainingSet, sample: dict[str, np.ndarray], chip: Chip, settings: BatchSettings
) -> list[tuple[np.ndarray, int]]:
    """Labels (A, H, W) of the anchors, and px per cell, of each map that has some.

    Networks that choose their anchors while they train (SSH) get no label: then those are told that
    can be positive.
    """
    cfg, side = data.cfg, settings.contract.chip_size
    stride = cfg.network.RPN_FEAT_STRIDE
    if "label" in sample:
        return [(sample["label"].reshape(-1, side // stride, side // stride), stride)]
    spec = detector_spec(cfg, train=True, batch_images=1, fp16=False)
    gt, ignored = (
        sample[name][sample[name][:, 4] >= 0, :4] for name in ("gt_boxes", "ignore_boxes")
    )
    content = min(chip.height, side), min(chip.width, side)
    overlap = spec.targets.rpn_positive_overlap
    return [
        (grid.positives(gt, ignored, content, side, overlap), grid.stride)
        for grid in anchor_grids(spec)
    ]


def _anchor_text(anchors: list[tuple[np.ndarray, int]]) -> str:
    if len(anchors) == 1:
        ((label, _),) = anchors
        return f"{int((label == 1).sum())} positive, {int((label == 0).sum())} negative"
    counts = "/".join(str(int((label == 1).sum())) for label, _ in anchors)
    return f"{counts} (stride {'/'.join(str(stride) for _, stride in anchors)})"


def _size_text(chip: Chip, settings: BatchSettings) -> str:
    """The part of a chip that holds the image, where that is not all of it."""
    side = settings.contract.chip_size
    width, height = min(chip.width, side), min(chip.height, side)
    return "" if width == height == side else f", {width}x{height} px"


def _boxes_of(
    sample: dict[str, np.ndarray], record: Record, chip: Chip, settings: BatchSettings
) -> tuple[np.ndarray, list[int], list[str]]:
    """Boxes, classes and states, those of the tensor where it has some."""
    gt = gt_in_chip(
        *(record, chip.rect, chip.factor, chip.rows, settings.contract.chip_size),
        legacy=settings.legacy_boxes,
    )
    valid = {tuple(box) for box in gt.boxes[gt.valid].tolist()}
    boxes, classes = gt.boxes, gt.classes
    if "gt_boxes" in sample:
        rows = sample["gt_boxes"][sample["gt_boxes"][:, 4] >= 0]
        boxes, classes = rows[:, :4], rows[:, 4].astype(np.int32)
    states = [VALID if tuple(box) in valid else IGNORED for box in boxes.tolist()]
    return boxes, classes.tolist(), states


def _valid_range_text(sample: dict[str, np.ndarray]) -> str:
    if "valid_ranges" not in sample:
        return ""
    low, high = sample["valid_ranges"].tolist()
    return f", valid {low:.0f} to {high:.0f} px"

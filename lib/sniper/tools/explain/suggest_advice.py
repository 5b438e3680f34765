"""Finds pyramid, anchors and GT limit for a training set, and measures what they give."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from easydict import EasyDict

from sniper.chips.anchor_fit import AnchorFit, anchor_fit
from sniper.chips.measures import Measures, evenly, measure
from sniper.data.record import Record
from sniper.errors import OpsError
from sniper.models.assembly import DetectorSpec, anchor_grids
from sniper.runs.resolve import chip_settings, detector_spec
from sniper.tools.explain.suggest_anchors import suggest_anchor_scales, suggest_max_gt
from sniper.tools.explain.suggest_fragment import Suggestion
from sniper.tools.explain.suggest_pyramid import BoxSizes, InputLimits, box_sizes, suggest_pyramid
from sniper.tools.explain.suggest_test import suggest_test
from sniper.tools.explain.training_set import TrainingSet

logger = logging.getLogger(__name__)

MAX_LEVELS = 4
_SAMPLE_IMAGES = 2000


@dataclass(frozen=True)
class Quality:
    """How a configuration suits the boxes, from the chips of an epoch.

    Attributes:
        trained: share of the boxes that are trained.
        comfortable: share of the trained boxes whose size at the network's input is learned well.
        anchors: share of the trained boxes with an anchor of IoU >= 0.5.
        chips_per_image: mean.
        pixels_of_pyramid: share of the pixels of the full pyramid.
    """

    trained: float
    comfortable: float
    anchors: float
    chips_per_image: float
    pixels_of_pyramid: float


@dataclass(frozen=True, eq=False)
class Advice:
    """A suggestion with what it was made from and what it gives.

    Attributes:
        sizes: sizes of boxes and images.
        suggestion: the values.
        suggested: their quality.
        current: quality of the configuration as it is; None where it makes no chips.
        measures: chips of the suggestion, for the plot.
        writes_test: whether the TEST section is suggested as well: AutoFocus goes from coarse to
            fine with thresholds of its own.
    """

    sizes: BoxSizes
    suggestion: Suggestion
    suggested: Quality
    current: Quality | None
    measures: Measures
    writes_test: bool


def advise(data: TrainingSet, limits: InputLimits, levels: int | None = None) -> Advice:
    """Finds pyramid, anchors and GT limit, and measures them on a sample of the images.

    Args:
        data: the training set, without mirrored copies.
        limits: what the network can work with.
        levels: number of levels; None chooses, at most 4.

    Raises:
        DataError: there are no boxes.
    """
    cfg = data.cfg
    sizes = box_sizes(data.records)
    pyramid = suggest_pyramid(sizes, limits, levels)
    if levels is None and len(pyramid.factors) > MAX_LEVELS:
        pyramid = suggest_pyramid(sizes, limits, MAX_LEVELS)
    records = _sample(data.records)
    stride = cfg.network.RPN_FEAT_STRIDE
    measures = measure(records, pyramid.chip_settings(limits.chip_size), seed=cfg.seed, epoch=0)
    strides = _sharing_strides(data)
    sides = box_sides(measures.trained_boxes_chip)
    scales = suggest_anchor_scales(sides, stride, limits, max(1, len(strides)))
    suggestion = Suggestion(
        pyramid=pyramid,
        limits=limits,
        anchor_scales=scales,
        stride=stride,
        max_gt=suggest_max_gt(measures.epoch.stats.most_gt),
        fullest_chip=measures.epoch.stats.most_gt,
        test=suggest_test(pyramid, limits, sizes),
        batch=_batch(cfg.TRAIN, limits.chip_size),
        shared_by=strides,
    )
    return Advice(
        sizes=sizes,
        suggestion=suggestion,
        suggested=_quality(data, measures, scales, limits.chip_size, limits),
        current=_current(data, records, limits),
        measures=measures,
        writes_test=not cfg.TEST.AUTO_FOCUS,
    )


def _batch(train: EasyDict, chip_size: int) -> tuple[int, float] | None:
    """Chips of a batch and learning rate that keep the memory of a batch where chips grow."""
    if chip_size <= train.CHIP_SIZE:
        return None
    images = max(1, int(train.BATCH_IMAGES * (train.CHIP_SIZE / chip_size) ** 2))
    # Every loss is a mean over the chips of a device: fewer of them, smaller steps.
    return images, train.lr * images / train.BATCH_IMAGES


def _current(data: TrainingSet, records: Sequence[Record], limits: InputLimits) -> Quality | None:
    """How the configuration is as it is; None where no chips can be made with it."""
    cfg = data.cfg
    try:
        measures = measure(records, chip_settings(cfg), seed=cfg.seed, epoch=0)
    except OpsError as error:
        logger.warning("the configuration as it is makes no chips: %s", error)
        return None
    return _quality(data, measures, cfg.network.ANCHOR_SCALES, cfg.TRAIN.CHIP_SIZE, limits)


def _sample(records: Sequence[Record]) -> list[Record]:
    return [records[i] for i in evenly(np.arange(len(records)), _SAMPLE_IMAGES).tolist()]


def box_sides(boxes_chip: np.ndarray) -> np.ndarray:
    """Square roots of the areas of boxes: (n, 4) -> (n,) float64, px."""
    sides = (boxes_chip[:, 2:] - boxes_chip[:, :2] + 1).astype(np.float64)
    return np.sqrt(sides[:, 0] * sides[:, 1])


def _quality(
    data: TrainingSet,
    measures: Measures,
    anchor_scales: Sequence[float],
    chip_size: int,
    limits: InputLimits,
) -> Quality:
    sides = box_sides(measures.trained_boxes_chip)
    good = (sides >= limits.min_side) & (sides <= limits.max_side)
    return Quality(
        trained=measures.trained_share,
        comfortable=float(good.mean()) if len(good) else 0.0,
        anchors=_anchor_fit(data, measures, anchor_scales, chip_size).share,
        chips_per_image=measures.epoch.chips.num_chips / len(measures.levels.factors),
        pixels_of_pyramid=measures.pixels.share_of_pyramid,
    )


def _anchor_fit(
    data: TrainingSet, measures: Measures, scales: Sequence[float], chip_size: int
) -> AnchorFit:
    grids = anchor_grids(replace(_spec(data), anchor_scales=tuple(scales)))
    return anchor_fit(measures.trained_boxes_chip, grids, chip_size)


def _sharing_strides(data: TrainingSet) -> tuple[int, ...]:
    """Strides of the maps that have a part of the anchor scales each; none where all have all."""
    spec = _spec(data)
    grids = anchor_grids(spec)
    is_shared = len(grids) > 1 and sum(len(grid.base) for grid in grids) == spec.num_anchors
    return tuple(grid.stride for grid in grids) if is_shared else ()


def _spec(data: TrainingSet) -> DetectorSpec:
    return detector_spec(data.cfg, train=True, batch_images=1, fp16=False)

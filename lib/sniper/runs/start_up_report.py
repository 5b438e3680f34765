"""The start-up report: what a run is going to train on, in a few lines."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sniper.chips.account import Account
from sniper.chips.anchor_fit import AnchorFit, anchor_fit
from sniper.chips.chip_settings import ChipSettings
from sniper.chips.measures import TOO_SMALL, Measures, evenly, measure
from sniper.chips.pyramid import Scale, is_long_side
from sniper.chips.stats import EpochStats, GtFate
from sniper.data.problems import AMBIGUOUS_TURN, TURNED
from sniper.data.record import Record
from sniper.data.turned import count_turns
from sniper.models.assembly import anchor_grids
from sniper.runs.device_report import device_line, device_warnings
from sniper.runs.plan import TrainPlan
from sniper.runs.rate_report import batch_line, rate_line, update_replicas
from sniper.runs.rates import COSINE
from sniper.targets.anchors import AnchorGrid

if TYPE_CHECKING:
    from sniper.models.assembly import DetectorSpec

logger = logging.getLogger(__name__)

MAX_LINES = 15
# Levels beyond these share a line.
_MAX_LEVEL_LINES = 5
_MAX_SIZE_LINES = 4
# Image headers that are read for their orientation.
_HEADERS = 5000
# Chips are looked at closely in this many images.
_SAMPLE_IMAGES = 300

# Share of a level's area that no chip shows, above which its lack of negative chips is told.
_MUCH_UNSEEN = 0.4
NEGATIVES_REMEDY = (
    "expect false alarms there; --set TRAIN.USE_NEG_CHIPS mine adds negative chips around them, "
    "TRAIN.BACKGROUND_CHIPS 1 chips at random places"
)

# Shares of the ground truth above which a warning is worth its line.
_MANY_UNCOVERED = 0.02
_MANY_TOO_SMALL = 0.05
_FEW_WITH_ANCHOR = 0.8
_MANY_CROWDED = 0.001


@dataclass(frozen=True)
class StartUpReport:
    """What a run trains on.

    Attributes:
        lines: what everybody should see, in everyday words.
        details: the same with all figures, for --verbose and the log file.
        warnings: sentences that say what to change; at most 15 with the lines.
    """

    lines: tuple[str, ...]
    details: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Sample:
    """What is known of some images only: it costs too much to look at all of them."""

    measures: Measures
    anchors: AnchorFit
    grids: Sequence[AnchorGrid]


def log_start_up(
    plan: TrainPlan,
    records: Sequence[Record],
    stats: EpochStats,
    account: Account,
    num_workers: int = 1,
) -> None:
    """Logs the start-up report of a run (see `start_up_report`)."""
    report = start_up_report(plan, records, stats, account, num_workers)
    for line in report.details:
        logger.debug("%s", line)
    for line in report.lines:
        logger.info("%s", line)
    for warning in report.warnings:
        logger.warning("%s", warning)


def start_up_report(
    plan: TrainPlan,
    records: Sequence[Record],
    stats: EpochStats,
    account: Account,
    num_workers: int = 1,
) -> StartUpReport:
    """Says what a run trains on: pyramid, chips, coverage, anchors, batch and learning rate.

    Args:
        plan: of the run.
        records: the training images, at least one.
        stats: counts of the first epoch's chips.
        account: of the annotations.
        num_workers: processes that train together.

    Returns:
        The report; pixels, anchors and crowded chips come from a sample of the images.
    """
    sample = _look_at_some(plan, records)
    lines = list(_short_lines(plan, records, stats, account, sample, num_workers))
    details = [
        _pyramid_line(plan),
        *_level_lines(plan.chips, stats),
        _chip_line(stats, sample),
        _coverage_line(stats),
        _unseen_line(sample),
        _anchor_line(plan.detector, sample),
        device_line(plan),
        batch_line(plan, stats.samples, num_workers),
        rate_line(plan, num_workers),
    ]
    warnings = list(_warnings(plan, stats, sample))[: MAX_LINES - len(lines)]
    return StartUpReport(tuple(lines), tuple(details), tuple(warnings))


def _turn_line(records: Sequence[Record]) -> str:
    """What EXIF orientation does to the images; nothing where none has one."""
    first = [record for record in records if not record.flipped]
    looked_at = [first[index] for index in evenly(np.arange(len(first)), _HEADERS)]
    turns = count_turns(looked_at)
    if not turns:
        return ""
    turned, unsure = turns[TURNED.name], turns[AMBIGUOUS_TURN.name]
    of = "" if len(looked_at) == len(first) else f" of {len(looked_at)} that were looked at"
    text = f"EXIF orientation: {turned} images{of} are turned, as their annotated size says"
    both = f"; the size of {unsure} fits both ways: look at some (dataset.EXIF)"
    return text + (both if unsure else "")


def _short_lines(
    plan: TrainPlan,
    records: Sequence[Record],
    stats: EpochStats,
    account: Account,
    sample: _Sample,
    num_workers: int,
) -> Iterator[str]:
    mirrored = sum(record.flipped for record in records)
    copies = f" ({mirrored} of them mirrored copies)" if mirrored else ""
    classes, supers = plan.detector.num_classes - 1, len(plan.detector.fine.super_classes)
    grouped = f" in {supers} super-class(es)" if supers else ""
    yield f"images: {len(records)}{copies} with {stats.gt} objects of {classes} class(es){grouped}"
    turns = _turn_line(records)
    if turns:
        yield turns
    side = plan.chips.chip_size
    share = sample.measures.pixels.share_of_pyramid
    yield (
        f"chips, the {side}x{side} px windows that are trained: {stats.chips} an epoch, "
        f"{stats.chips / max(stats.records, 1):.2g} an image; {share:.0%} of the pixels of all "
        "image sizes"
    )
    yield from _size_lines(plan, stats)
    yield from account.lines()
    step, batch = plan.step, update_replicas(plan, num_workers) * plan.batch_images
    warmup = f", rising from {step.warmup_lr:g} in {step.warmup_step}" if step.warmup_step else ""
    falling = f", falling along a {COSINE}" if plan.lr_schedule == COSINE else ""
    yield (
        f"updates: {stats.samples // batch} an epoch, of {batch} chips each; {plan.loop.end_epoch} "
        f"epoch(s); learning rate {step.lr:g}{warmup}{falling}"
    )
    yield device_line(plan)
    yield f"all details: --verbose, or the log in {plan.folder}"


def _size_lines(plan: TrainPlan, stats: EpochStats) -> Iterator[str]:
    """Which objects are trained at which size of the image."""
    shown = stats.levels if len(stats.levels) <= _MAX_SIZE_LINES else stats.levels[:_MAX_SIZE_LINES]
    for index, level in enumerate(shown):
        sizes = range_text(plan.chips.size_ranges, index)
        around = level.negative - level.background
        kinds = ((around, "around false alarms"), (level.background, _random_places(plan.chips)))
        negative = "".join(f" and {count} {what}" for count, what in kinds if count)
        what = "of all sizes" if sizes == "all" else f"{sizes} px in size"
        what += side_text(plan.chips, index)
        yield (
            f"  level {index}, images at {level_name(plan.chips.scales, index)}: objects {what}, "
            f"{level.positive} chips{negative}"
        )
    if len(shown) < len(stats.levels):
        yield f"  and {len(stats.levels) - len(shown)} more"
    if len(stats.levels) > 1:
        yield "  (size: side of a square as large as an object's box, in px of the image)"


def _random_places(settings: ChipSettings) -> str:
    """How chips without objects were placed; random crops are all placed so."""
    return "without an object" if settings.random_crops else "at random places"


def level_name(scales: Sequence[Scale], level: int) -> str:
    """How people call a level of the training pyramid: `x3`, `long side 512`, `800x1280`."""
    scale = scales[level]
    if isinstance(scale, Sequence):
        low, high = scale
        if low <= 0:
            return f"long side {high:g}"
        return f"short side {low:g}" + (f", long at most {high:g}" if high > 0 else "")
    number = float(scale)
    is_last = level == len(scales) - 1
    return f"long side {number:g}" if is_last and is_long_side(number) else f"x{number:g}"


def range_text(valid_ranges: Sequence[Sequence[float]], level: int) -> str:
    """The valid range of a level in words: `below 80`, `32 to 150`, `from 120`, `all`."""
    low, high = valid_ranges[level]
    is_open = level == len(valid_ranges) - 1 or high < 0
    if is_open:
        return f"from {low:g}" if low > 0 else "all"
    return f"{low:g} to {high:g}" if low > 0 else f"below {high:g}"


def side_text(settings: ChipSettings, level: int) -> str:
    """What `TRAIN.SIDE_LIMITS` adds to the sizes of a level, in words; often empty."""
    limits = settings.upper_sides
    finer = limits[level - 1] if level else math.inf
    takes = f" or a side of {finer:g} px and more" if finer < math.inf else ""
    leaves = f", no side of {limits[level]:g} px or more" if limits[level] < math.inf else ""
    return takes + leaves


def _look_at_some(plan: TrainPlan, records: Sequence[Record]) -> _Sample:
    picked = evenly(np.arange(len(records)), _SAMPLE_IMAGES).tolist()
    sampled = [records[index] for index in picked]
    settings, spec = plan.chips, plan.detector
    measures = measure(sampled, settings, seed=plan.seed, epoch=0)
    boxes = measures.trained_boxes_chip
    grids = anchor_grids(spec, rpn_only=plan.rpn_only)
    return _Sample(measures, anchor_fit(boxes, grids, settings.chip_size), grids)


def _pyramid_line(plan: TrainPlan) -> str:
    scales = ", ".join(_scale_text(scale) for scale in plan.chips.scales)
    if plan.scales_by_rule:
        return (
            f"pyramid: TRAIN.SCALES is [{scales}] by the 2018 rule for COCO, whatever the recipe "
            "says (TRAIN.COCO_SCALE_OVERRIDE)"
        )
    return f"pyramid: TRAIN.SCALES is [{scales}] as configured"


def _scale_text(scale: object) -> str:
    return f"({scale[0]:g}, {scale[1]:g})" if isinstance(scale, Sequence) else f"{scale:g}"


def _level_lines(settings: ChipSettings, stats: EpochStats) -> Iterator[str]:
    last = len(stats.levels) - 1
    shown = last + 1 if last < _MAX_LEVEL_LINES else _MAX_LEVEL_LINES - 1
    for index, level in enumerate(stats.levels[:shown]):
        yield (
            f"level {index} ({level_name(settings.scales, index)}), sqrt(area) "
            f"{range_text(settings.size_ranges, index)} px{side_text(settings, index)}: "
            f"{level.gt_in_range} GT in range, "
            f"{level.gt_covered} covered by {level.positive} chips of {level.images} images"
            + (f", {level.negative} negative chips" if level.negative else "")
        )
    if shown <= last:
        rest = stats.levels[shown:]
        positive, negative = (sum(getattr(x, name) for x in rest) for name in _KINDS)
        yield f"levels {shown} to {last}: {positive} positive and {negative} negative chips"


_KINDS = ("positive", "negative")


def _chip_line(stats: EpochStats, sample: _Sample) -> str:
    used = stats.records - stats.records_without_chips
    return (
        f"chips: {stats.chips} an epoch, {stats.chips / max(stats.records, 1):.2f} an image, from "
        f"{used} of {stats.records} images; {sample.measures.pixels.share_of_pyramid:.0%} of the "
        "pixels of the full pyramid"
    )


def _coverage_line(stats: EpochStats) -> str:
    gt = max(stats.gt, 1)
    missing = [
        f"{count} ({count / gt:.1%}) {fate.text}"
        for fate, count in stats.gt_uncovered.items()
        if count
    ]
    head = f"GT: {stats.gt_covered} of {stats.gt} boxes covered ({stats.gt_covered / gt:.1%})"
    return f"{head}; the others: {', '.join(missing)}" if missing else head


def _unseen_line(sample: _Sample) -> str:
    parts = [
        f"level {index} {level.area:.0%} of its area, {level.others_unseen} of {level.others} "
        "objects of other levels"
        for index, level in enumerate(sample.measures.unseen[:_MAX_LEVEL_LINES])
    ]
    return f"never shown in this epoch: {'; '.join(parts)}"


def lacks_negatives(negative_chips: int, area_unseen: float) -> bool:
    """Whether a level meets most of what it sees at test for the first time there."""
    return negative_chips == 0 and area_unseen > _MUCH_UNSEEN


def _anchor_line(spec: DetectorSpec, sample: _Sample) -> str:
    fit = sample.anchors
    stride, scales = spec.feature_stride, spec.anchor_scales
    mean = float(fit.num_positive.mean()) if len(fit.num_positive) else 0.0
    return (
        f"anchors of {stride * min(scales):g} to {stride * max(scales):g} px: {fit.share:.0%} of "
        f"the trained GT has one with IoU >= {fit.threshold:g}, {mean:.1f} on average "
        f"({len(fit.side)} boxes looked at)"
    )


def _warnings(plan: TrainPlan, stats: EpochStats, sample: _Sample) -> Iterator[str]:
    """Most important first."""
    measures = sample.measures
    yield from device_warnings(plan)
    for fate in GtFate:
        share = stats.gt_uncovered.get(fate, 0) / max(stats.gt, 1)
        if share > _MANY_UNCOVERED:
            fix = measures.fate(fate.name.lower()).fix
            yield f"{share:.1%} of the GT is {fate.text}: {fix} (sniper suggest-scales)"
    crowded = measures.epoch.chips_over(plan.detector.max_gt)
    if crowded > _MANY_CROWDED * measures.epoch.chips.num_chips:
        yield (
            f"{crowded} of {measures.epoch.chips.num_chips} chips looked at hold more than "
            f"TRAIN.MAX_GT {plan.detector.max_gt} boxes, up to {measures.epoch.stats.most_gt}: the "
            "surplus is dropped; raise TRAIN.MAX_GT or take a smaller TRAIN.CHIP_SIZE"
        )
    small = measures.fate(TOO_SMALL)
    share = len(small.boxes) / max(len(measures.levels.boxes), 1)
    if share > _MANY_TOO_SMALL:
        yield f"{share:.1%} of the GT is {small.text} and is not trained: {small.fix}"
    if sample.anchors.share < _FEW_WITH_ANCHOR:
        yield (
            f"only {sample.anchors.share:.0%} of the trained GT has an anchor with IoU >= "
            f"{sample.anchors.threshold:g}: change network.ANCHOR_SCALES (sniper suggest-scales)"
        )
    yield from _starving_maps(sample)
    yield from _bare_levels(plan, stats, sample)


def _starving_maps(sample: _Sample) -> Iterator[str]:
    """Maps whose anchors no box fits, where there are several (SSH)."""
    if len(sample.grids) < 2 or not len(sample.anchors.side):
        return
    for grid, counts in zip(sample.grids, sample.anchors.by_grid):
        if not counts.any():
            sides = grid.base[:, 2] - grid.base[:, 0] + 1
            yield (
                f"none of the trained GT looked at fits the anchors of stride {grid.stride} "
                f"({sides.min():g} to {sides.max():g} px wide): that part of the network learns to "
                "find nothing; change network.ANCHOR_SCALES (sniper suggest-scales), or the chips"
            )


def _bare_levels(plan: TrainPlan, stats: EpochStats, sample: _Sample) -> Iterator[str]:
    """Levels without negative chips."""
    unseen = sample.measures.unseen
    if plan.chips.random_crops:
        return
    bare = [
        index
        for index, level in enumerate(stats.levels)
        if lacks_negatives(level.negative, unseen[index].area)
    ]
    if not bare:
        return
    levels = f"level{'s' if len(bare) > 1 else ''} {', '.join(map(str, bare))}"
    if not plan.chips.use_neg_chips:
        areas = ", ".join(f"{unseen[index].area:.0%}" for index in bare)
        others = ", ".join(f"{unseen[index].others_unseen}" for index in bare)
        yield (
            f"no negative chips at {levels}: {areas} of the images there, with {others} objects of "
            f"other sizes, are in no chip and never trained as background; {NEGATIVES_REMEDY}"
        )
        return
    rule, remedies = plan.chips.min_false_alarms, ["set TRAIN.BACKGROUND_CHIPS 1"]
    if rule is not None:
        now = f"now {rule[0]:g} and {rule[1]:g}; null goes with the number of proposals"
        remedies.insert(0, f"lower TRAIN.MIN_FALSE_ALARMS ({now})")
    yield (
        f"TRAIN.USE_NEG_CHIPS is on, but the proposals gave no negative chip at {levels}: expect "
        f"false alarms there, or {' or '.join(remedies)}"
    )

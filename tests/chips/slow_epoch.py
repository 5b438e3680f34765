"""The rules of chip generation in NumPy, box by box: slow, and the measure of the compiled code.

The same draws (`stream_seeds`, `chip_permutation`), so the results must be the same bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sniper import boxes as box_ops
from sniper.chips.chip_table import NEGATIVE, POSITIVE, Chip
from sniper.chips.pyramid import level_factors, level_size
from sniper.chips.sampler import (
    CHIP_SHARES_2018,
    MIN_FALSE_ALARMS_2018,
    PROPOSALS_2018,
    draw_stride,
)
from sniper.chips.stats import GtFate
from sniper.chips.streams import stream_seeds
from sniper.native._native import chip_permutation
from sniper.targets.gt import gt_in_chip

ORDER, POSITIVE_COVER, NEGATIVE_COVER, NEGATIVE_PICK, BACKGROUND, CROP = 1, 2, 3, 4, 5, 6


@dataclass
class Level:
    index: int
    coarsest: bool
    low: float
    high: float
    factor: float
    chip_size: int
    stride: int
    margin: int = 0  # px between the border and what boxes are clipped to
    side_limit: float = math.inf  # longer sides from here on belong to the next level
    side_from: float = math.inf  # the limit of the level before

    @property
    def size_limit(self):
        return (self.chip_size - self.stride - 1) / self.factor


def levels_of(record, settings, stride):
    factors = level_factors(record.width, record.height, settings.scales)
    last = len(factors) - 1
    ranges = settings.chip_ranges if len(settings.chip_ranges) else settings.valid_ranges
    limits = [x if x >= 0 else math.inf for x in settings.side_limits] or [math.inf] * (last + 1)
    margin = int(settings.legacy_boxes)
    return [
        Level(
            *(i, i == last, *pair, factor, settings.chip_size, stride, margin, limits[i]),
            side_from=limits[i - 1] if i else math.inf,
        )
        for i, (pair, factor) in enumerate(zip(ranges, factors))
    ]


def lattice(width, height, size, stride):
    """All candidates of a level, scaled px."""
    right, bottom = width - 1, height - 1
    chips = [
        [max(width - size, 0), 0, right, min(size, bottom)],
        [0, max(height - size, 0), min(size, right), bottom],
        [max(width - size, 0), max(height - size, 0), right, bottom],
    ]
    columns, rows = range(0, max(width - size, 0), stride), range(0, max(height - size, 0), stride)
    chips += [[i, j, i + size - 1, j + size - 1] for i in columns for j in rows]
    chips += [[max(width - size - 1, 0), j, right, j + size - 1] for j in rows]
    chips += [[i, max(height - size - 1, 0), i + size - 1, bottom] for i in columns]
    return np.array(chips, np.float32)


def iob(chips, boxes):
    """Fraction of each box inside each chip, (C, N); exactly 1 for a contained box."""
    chips, boxes = chips[:, None].astype(np.float64), boxes.astype(np.float64)
    low = np.maximum(chips[..., :2], boxes[:, :2])
    high = np.minimum(chips[..., 2:], boxes[:, 2:])
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    return np.prod(np.maximum(high - low + 1, 0), axis=-1) / np.prod(sides, axis=-1)


def covers_of(record, boxes, level):
    """Which candidate contains which box, and the candidates: (K, N) bool, (K, 4)."""
    width, height = level_size(record.width, record.height, level.factor)
    margin = level.margin
    scaled = box_ops.clip(boxes * np.float32(level.factor), height - margin, width - margin)
    chips = lattice(width, height, level.chip_size, level.stride)
    with np.errstate(invalid="ignore"):  # a box without an area is in no candidate
        return iob(chips, scaled) == 1.0, chips


def greedy_cover(record, boxes, level, seed):
    """Chips in image px, in the order of selection."""
    if not len(boxes):
        return np.zeros((0, 4))
    covers, chips = covers_of(record, boxes, level)
    order = chip_permutation(len(chips), seed)
    covers, chips = covers[order], chips[order]
    chosen = []
    while covers.sum(axis=1).max() > 0:
        best = covers.sum(axis=1).argmax()
        chosen.append(chips[best].astype(np.float64) / level.factor)
        covers = covers & ~covers[best]
    return np.array(chosen, np.float64).reshape(-1, 4)


class Measures:
    """Truncated sizes of the boxes of a record."""

    def __init__(self, record):
        boxes = record.boxes
        with np.errstate(invalid="ignore", over="ignore"):
            self.width = (boxes[:, 2] - boxes[:, 0]).astype(np.int64)
            self.height = (boxes[:, 3] - boxes[:, 1]).astype(np.int64)
            self.side = np.sqrt(np.maximum(self.width * self.height, 0))
        self.longer = np.maximum(self.width, self.height)
        self.thick = (self.width >= 2) & (self.height >= 2)
        self.finite = np.isfinite(boxes).all(axis=1)

    def eligible(self, level):
        if level.coarsest:
            return self.finite & self.large(level)
        fits = self.longer < level.size_limit
        small = (self.side < level.high) & (self.longer < level.side_limit)
        return self.finite & small & fits & self.thick

    def large(self, level):
        return (self.side >= level.low) | (self.longer >= level.side_from)

    def in_range(self, level):
        if level.coarsest:
            return self.large(level)
        large = self.large(level) | (level.index == 0)
        return large & (self.side < level.high) & (self.longer < level.side_limit)

    def wanted(self, level, is_gt):
        if level.coarsest or level.index == 0:
            return is_gt & self.eligible(level)
        fits = self.longer < level.size_limit
        return is_gt & self.finite & self.in_range(level) & fits


def overlap_sides(boxes, rects):
    """Width and height of the overlap of each pair, without +1; negative if there is none."""
    return np.minimum(boxes[:, 2:], rects[:, 2:]) - np.maximum(boxes[:, :2], rects[:, :2])


def assign(boxes, candidates, rects, level, kind):
    """The chip that holds the largest part of each candidate box, or -1: (N,) int64."""
    assigned = np.full(len(boxes), -1, np.int64)
    for row in np.flatnonzero(candidates):
        box = boxes[row].astype(np.float64)[None]
        if not len(rects):
            continue
        area = (box[0, 2] - box[0, 0] + 1) * (box[0, 3] - box[0, 1] + 1)
        sides = np.maximum(overlap_sides(box, rects) + 1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = sides[:, 0] * sides[:, 1] / area
        if np.isnan(shares).any():
            continue
        best = int(shares.argmax())
        dx, dy = overlap_sides(box, rects[best : best + 1])[0]
        size = np.sqrt(abs(dx * dy))
        small = size <= level.high if kind == POSITIVE else size < level.high
        large = size >= level.low or max(dx, dy) >= level.side_from
        if dx >= 1 and dy >= 1 and (large if level.coarsest else small):
            assigned[row] = best
    return assigned


def chips_of(record, rects, keep, assigned, level, kind):
    width = height = level.chip_size
    if level.coarsest:
        width, height = level_size(record.width, record.height, level.factor)
    return [
        Chip(
            tuple(rect),
            level.factor,
            height,
            width,
            level.index,
            np.flatnonzero(assigned == k).astype(np.int32),
            kind,
        )
        for k, rect in enumerate(rects.tolist())
        if keep[k]
    ]


def record_chips(record, settings, seed, epoch, stride):
    """Chips of a record, its negative candidates, and whether each box is in a positive chip."""
    keys = (seed, epoch, record.image_id, int(record.flipped))
    if settings.random_crops:
        return random_crops(record, settings, stride, keys)
    measures = Measures(record)
    positives, negatives = [], []
    covered = np.zeros(len(record.boxes), bool)
    for level in levels_of(record, settings, stride):

        def cover(chosen, kind, level=level):
            draws = int(stream_seeds(*keys, kind, level.index))
            return greedy_cover(record, record.boxes[chosen], level, draws)

        eligible = measures.eligible(level)
        rects = cover(measures.wanted(level, record.is_gt), POSITIVE_COVER)
        assigned = assign(record.boxes, eligible, rects, level, POSITIVE)
        covered |= assigned >= 0
        keep = np.ones(len(rects), bool)
        positives += chips_of(record, rects, keep, assigned, level, POSITIVE)
        if not settings.use_neg_chips:
            continue
        rest = eligible & (assigned < 0)
        rects = cover(rest, NEGATIVE_COVER)
        assigned = assign(record.boxes, rest, rects, level, NEGATIVE)
        too_few = most_without_alarm(record, settings, level)
        keep = np.bincount(assigned[assigned >= 0], minlength=len(rects)) > too_few
        negatives += chips_of(record, rects, keep, assigned, level, NEGATIVE)
    picked = negatives
    if len(negatives) > settings.max_neg_chips:
        draws = stream_seeds(*keys, NEGATIVE_PICK, np.arange(len(negatives)))
        picked = [negatives[i] for i in np.argsort(draws)[: settings.max_neg_chips]]
    background = background_chips(
        record, settings, stride, positives, stream_seeds(*keys, BACKGROUND, 0)
    )
    return positives + picked + background, len(negatives), covered


def most_without_alarm(record, settings, level):
    """A negative chip is kept with more boxes than this."""
    if settings.min_false_alarms is not None:
        return settings.min_false_alarms[min(level.index, 1)]
    proposals = len(record.boxes) - record.num_gt
    usual = CHIP_SHARES_2018[min(level.index, 1)]
    on_level = record.width * level.factor * record.height * level.factor
    share = settings.chip_size**2 / on_level
    numbers = MIN_FALSE_ALARMS_2018[min(level.index, 1)] * proposals / PROPOSALS_2018
    return numbers * min(share / usual, 1.0)


class SplitMix:
    """The generator of the compiled code (Steele et al., 2014)."""

    def __init__(self, state):
        self.state = int(state)

    def number(self):
        mask = 2**64 - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def below(self, count):
        return (self.number() >> 32) * count >> 32


def background_chips(record, settings, stride, positives, seed):
    """Chips at random places of which other chips of their level show half at most."""
    random = SplitMix(seed)
    chance = (random.number() >> 11) / 2**53
    levels = levels_of(record, settings, stride)
    count = int(settings.background_chips * max(len(positives), len(levels)) + chance)
    chips = []
    for _ in range(count):
        chip = next(
            (
                chip
                for chip in (random_chip(record, levels, random) for _ in range(16))
                if is_new(chip, [*positives, *chips])
            ),
            None,
        )
        if chip is None:
            break
        chips.append(chip)
    return chips


def random_chip(record, levels, random):
    weights = [
        max(math.ceil(record.width * lv.factor / lv.chip_size), 1)
        * max(math.ceil(record.height * lv.factor / lv.chip_size), 1)
        for lv in levels
    ]
    place = random.below(sum(weights))
    level = levels[int(np.searchsorted(np.cumsum(weights), place, side="right"))]
    width, height = level_size(record.width, record.height, level.factor)
    candidates = lattice(width, height, level.chip_size, level.stride)
    rect = candidates[random.below(len(candidates))].astype(np.float64) / level.factor
    nothing = np.full(len(record.boxes), -1)
    return chips_of(record, rect[None], [True], nothing, level, NEGATIVE)[0]


def random_crops(record, settings, stride, keys):
    """Windows of levels drawn by chance; none is a negative candidate."""
    levels = levels_of(record, settings, stride)
    covered = np.zeros(len(record.boxes), bool)
    chips = []
    for k in range(settings.random_crops):
        random = SplitMix(stream_seeds(*keys, CROP, k))
        level = levels[random.below(len(levels))]
        for _ in range(25):
            rect = random_window(record, level, random)
            inside = centres_inside(record.gt_boxes, rect)
            if inside.any() or not len(inside):
                break
        assigned = np.full(len(record.boxes), -1)
        assigned[: len(inside)][inside] = 0
        covered |= assigned == 0
        kind = POSITIVE if inside.any() else NEGATIVE
        rows = np.flatnonzero(assigned == 0).astype(np.int32)
        sides = level_size(record.width, record.height, level.factor)
        width, height = (min(side, level.chip_size) for side in sides)
        chips.append(Chip(tuple(rect), level.factor, height, width, level.index, rows, kind))
    return chips, 0, covered


def random_window(record, level, random):
    """Corners in image px."""
    sides = level_size(record.width, record.height, level.factor)
    first = [random.below(max(side - level.chip_size, 0) + 1) for side in sides]
    last = [min(begin + level.chip_size, side) - 1 for begin, side in zip(first, sides)]
    return np.array([*first, *last], np.float64) / level.factor


def centres_inside(boxes, rect):
    centres = (boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2
    return ((centres >= rect[:2]) & (centres <= rect[2:])).all(axis=1)


def is_new(chip, others):
    rects = np.array([other.rect for other in others if other.level == chip.level]).reshape(-1, 4)
    sides = overlap_sides(np.array([chip.rect]), rects).clip(0)
    x1, y1, x2, y2 = chip.rect
    return sides.prod(axis=1).sum() <= 0.5 * ((x2 - x1) * (y2 - y1))


def fates_of(record, settings, stride, covered):
    """Why each ground truth box was left out."""
    measures = Measures(record)
    levels = levels_of(record, settings, stride)
    fates = []
    for row in range(record.num_gt):
        box = record.boxes[row : row + 1]
        ranges = [level for level in levels if measures.in_range(level)[row]]
        wanting = [level for level in levels if measures.wanted(level, record.is_gt)[row]]
        held = any(covers_of(record, box, level)[0].any() for level in wanting)
        fits = any(measures.longer[row] * lv.factor < lv.chip_size for lv in wanting)
        if covered[row]:
            fates.append(GtFate.COVERED)
        elif settings.random_crops:
            fates.append(GtFate.NOT_DRAWN)
        elif wanting:
            missing = GtFate.NO_CANDIDATE if fits else GtFate.TOO_LONG
            fates.append(GtFate.NOT_HELD if held else missing)
        elif not ranges:
            fates.append(GtFate.NO_RANGE)
        else:
            fates.append(GtFate.TOO_LONG if measures.thick[row] else GtFate.TOO_THIN)
    return fates


def training_order(counts, seed, epoch, batch_size):
    """Every chip once, padded to a multiple of the batch size, in random order: (S, 2) int32."""
    pairs = [(r, k) for r, count in enumerate(counts) for k in range(count)]
    samples = np.array(pairs, np.int32).reshape(-1, 2)
    if not pairs:
        return samples
    rng = np.random.default_rng(int(stream_seeds(seed, epoch, ORDER)))
    surplus = math.ceil(len(pairs) / batch_size) * batch_size - len(pairs)
    padding = rng.choice(len(pairs), surplus, replace=surplus > len(pairs))
    return rng.permutation(np.concatenate([samples, samples[padding]]))


@dataclass
class SlowEpoch:
    chips: list
    samples: np.ndarray
    stride: int
    fates: list
    negative_candidates: int
    level_counts: list


def make_epoch(records, settings, *, seed, epoch, batch_size):
    """The results of `sniper.chips.sampler.make_epoch`."""
    stride = draw_stride(settings.chip_size, seed, epoch)
    chips, fates, candidates = [], [], 0
    counts = np.zeros((len(settings.scales), 8), int)
    for record in records:
        made, negatives, covered = record_chips(record, settings, seed, epoch, stride)
        chips.append(made)
        candidates += negatives
        fates += fates_of(record, settings, stride, covered)
        for level in levels_of(record, settings, stride):
            counts[level.index] += count_level(record, made, level)
    samples = training_order([len(made) for made in chips], seed, epoch, batch_size)
    return SlowEpoch(chips, samples, stride, fates, candidates, counts.tolist())


def count_level(record, chips, level):
    """The fields of LevelStats."""
    measures = Measures(record)
    positive = [c for c in chips if c.level == level.index and c.kind == POSITIVE]
    negative = [c for c in chips if c.level == level.index and c.kind == NEGATIVE]
    in_range = record.is_gt & measures.in_range(level)
    too_long = in_range & (measures.longer >= level.size_limit) & (not level.coarsest)
    return [
        len(positive),
        len(negative),
        bool(positive),
        in_range.sum(),
        too_long.sum(),
        measures.wanted(level, record.is_gt).sum(),
        sum(int(record.is_gt[chip.rows].sum()) for chip in positive),
        sum(len(chip.rows) == 0 for chip in negative),
    ]


def num_gt_in(record, chip, settings):
    """Ground truth boxes that the sample of a chip has."""
    size, legacy = settings.chip_size, settings.legacy_boxes
    gt = gt_in_chip(record, chip.rect, chip.factor, chip.rows, size, legacy=legacy)
    return len(gt.boxes)

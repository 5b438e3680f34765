"""Boxes against levels, fates, pixels and anchors, with numbers worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sniper.chips.anchor_fit import anchor_fit
from sniper.chips.box_levels import box_levels
from sniper.chips.measures import count_pixels, evenly, measure
from sniper.chips.sampler import ChipSettings
from sniper.chips.stats import GtFate
from sniper.data.record import Record
from sniper.targets.anchors import AnchorGrid, base_anchors
from sniper.targets.gt import gt_in_chip

COCO = ChipSettings((3.0, 1.667, 512.0), ((-1, 80), (32, 150), (120, -1)))
# A box for every rule of the three levels, and the whole image.
EXAMPLE_BOXES = [
    [120, 80, 150, 100], [140, 90, 200, 170], [110, 70, 114, 74], [300, 200, 400, 300],
    [90, 55, 130, 95], [0, 0, 639, 479],
]  # fmt: skip


def record(boxes, size=(640, 480), proposals=(), image_id=1):
    rows = np.array([*boxes, *proposals], np.float32).reshape(-1, 4)
    is_gt = np.arange(len(rows)) < len(boxes)
    return Record("a.jpg", image_id, *size, False, rows, is_gt.astype(np.int32), is_gt)


def fates_of(measures):
    return {fate.name: fate.boxes.tolist() for fate in measures.fates if len(fate.boxes)}


def test_ranges_and_factors():
    levels = box_levels([record(EXAMPLE_BOXES), record([], (500, 375))], COCO)
    np.testing.assert_allclose(levels.factors, [[3, 1.667, 0.8], [3, 1.667, 1.024]])
    assert levels.starts.tolist() == [0, 6, 6]
    np.testing.assert_allclose(levels.side[:2], [(30 * 20) ** 0.5, (60 * 80) ** 0.5])
    assert levels.long_side.tolist() == [30, 80, 4, 100, 40, 639]
    assert levels.in_range.tolist() == [
        [True, False, False], [True, True, False], [True, False, False],
        [False, True, False], [True, True, False], [False, False, True],
    ]  # fmt: skip
    assert levels.side[3] == 100


def test_no_records():
    levels = box_levels([], COCO)
    assert levels.boxes.shape == (0, 4)
    assert levels.in_range.shape == (0, 3)


def test_an_example_by_hand():
    measures = measure([record(EXAMPLE_BOXES)], COCO, seed=0, epoch=0)
    assert fates_of(measures) == {"trained": [0, 1, 2, 3, 4, 5]}
    assert measures.trained_share == 1
    assert measures.epoch.chips.num_chips == 4
    pixels = measures.pixels
    assert pixels.chips == 4 * 512**2 / 1e6
    assert pixels.pyramid == (1920 * 1440 + 1066 * 800 + 512 * 384) / 1e6
    assert pixels.single_scale == pytest.approx(800 * 800 * 640 / 480 / 1e6)
    assert pixels.share_of_pyramid == pixels.chips / pixels.pyramid
    assert pixels.times_single_scale == pixels.chips / pixels.single_scale


def test_each_reason():
    boxes = [
        [10, 10, 12, 40],  # 9 px wide at level 0 and less at level 1, with +1 width
        [100, 100, 190, 190],  # in the gap of the ranges below
        [10, 200, 400, 204],  # too long for chips of levels 0 and 1
        [300, 300, 301, 330],  # thinner than 2 px
        [100, 50, 130, 80],
    ]
    settings = ChipSettings(COCO.scales, ((-1, 80), (32, 85), (120, -1)))
    measures = measure([record(boxes)], settings, seed=0, epoch=0)
    assert fates_of(measures) == {
        "trained": [4], "too_small": [0], "no_range": [1], "too_long": [2], "too_thin": [3],
    }  # fmt: skip
    assert measures.trained_share == pytest.approx(0.2)
    assert all(fate.fix for fate in measures.fates if fate.name not in ("trained", "too_thin"))
    assert measures.fate("too_small").text == "below 10 px in every chip"
    assert {fate.name for fate in measures.fates} == {
        "trained", "too_small", *(f.name.lower() for f in GtFate if f != GtFate.COVERED),
    }  # fmt: skip


def random_records(count, rng):
    records = []
    for image_id in range(count):
        width, height = rng.integers(100, 700, 2).tolist()
        corner = rng.uniform(0, [width - 12, height - 12], (12, 2))
        end = np.minimum(corner + rng.gamma(1, 60, (12, 2)), [width - 1, height - 1])
        boxes = np.trunc(np.concatenate([corner, end], axis=1))
        records.append(record(boxes[:9], (width, height), boxes[9:], image_id))
    return records


def test_trained_boxes_are_those_that_samples_hold():
    """Against the function that makes the samples, chip by chip."""
    records = random_records(25, np.random.default_rng(3))
    measures = measure(records, COCO, seed=1, epoch=2)
    wanted, sizes = set(), []
    for index, each in enumerate(records):
        for chip in measures.epoch.chips[index]:
            gt = gt_in_chip(each, chip.rect, chip.factor, chip.rows, 512)
            assigned = np.isin(gt.rows, chip.rows)
            wanted |= {int(measures.levels.starts[index] + row) for row in gt.rows[assigned]}
            sizes += gt.boxes[assigned].tolist()
    assert set(measures.fate("trained").boxes.tolist()) == wanted
    assert sorted(measures.trained_boxes_chip.tolist()) == sorted(sizes)
    total = sum(len(fate.boxes) for fate in measures.fates)
    assert total == len(measures.levels.boxes) == 25 * 9


def test_boxes_of_2018_are_measured_as_they_are_trained():
    settings = dataclasses.replace(COCO, legacy_boxes=True)
    records = random_records(12, np.random.default_rng(4))
    measures = measure(records, settings, seed=1, epoch=2)
    sizes = []
    for index, each in enumerate(records):
        for chip in measures.epoch.chips[index]:
            gt = gt_in_chip(each, chip.rect, chip.factor, chip.rows, 512, legacy=True)
            sizes += gt.boxes[np.isin(gt.rows, chip.rows)].tolist()
    assert sorted(measures.trained_boxes_chip.tolist()) == sorted(sizes)


def test_boxes_in_negative_chips_are_trained_there():
    """A box that no positive chip of a level is assigned to may lie in a negative one (2018)."""
    settings = ChipSettings(COCO.scales, COCO.valid_ranges, use_neg_chips=True, max_neg_chips=9)
    alarms = [[x, y, x + 20, y + 20] for x in range(400, 500, 12) for y in range(200, 300, 12)]
    # Small: trained at level 0. At level 1 only its neighbourhood of false alarms asks for a chip.
    measures = measure(
        [record([[440, 240, 462, 262]], proposals=alarms)], settings, seed=0, epoch=0
    )
    negative = measures.epoch.chips.negative[measures.pairs.chip]
    assert negative.any()
    assert fates_of(measures) == {"trained": [0]}


def test_pixels_of_several_images():
    records = [record([], (100, 100)), record([], (1000, 50))]
    settings = ChipSettings((2.0, 64.0), ((-1, 50), (30, -1)), chip_size=64)
    pixels = count_pixels(records, box_levels(records, settings), 3, 64)
    assert pixels.chips == 3 * 64 * 64 / 2e6
    assert pixels.pyramid == (200 * 200 + 64 * 64 + 2000 * 100 + 64 * 3) / 2e6
    assert pixels.single_scale == pytest.approx((800 * 800 + 1333 * 1333 * 0.05) / 2e6)


def test_anchor_fit():
    base = base_anchors(16, (1.0,), (2.0,))
    # The square of 32 px in cell (3, 5), the same moved by 8 px, and one that no anchor fits.
    exact = [5 * 16 - 8, 3 * 16 - 8, 5 * 16 + 23, 3 * 16 + 23]
    moved = [value + 8 for value in exact]
    fit = anchor_fit(
        np.array([exact, moved, [0, 0, 120, 5]], np.float32), [AnchorGrid(base, 16, 32)], 128
    )
    assert fit.best_iou[0] == 1
    assert fit.best_iou[1] == pytest.approx(24 * 24 / (2 * 32 * 32 - 24 * 24))
    assert fit.best_iou[2] < 0.5
    assert fit.share == pytest.approx(1 / 3)
    # Neighbours of the anchor share 16 of 32 px with it: an IoU of 1/3 only.
    assert fit.num_positive.tolist() == [1, 0, 0]
    assert fit.side[0] == 31
    assert anchor_fit(np.zeros((0, 4), np.float32), [AnchorGrid(base, 16, 32)], 128).share == 1
    # Two maps: anchors of 32 px on one, of 64 px without a border on the other.
    wide = [AnchorGrid(base, 16, 32), AnchorGrid(2 * base, 32, border_px=0)]
    large = [16, 16, 78, 78]
    fit = anchor_fit(np.array([exact, large, [-16, -16, 46, 46]], np.float32), wide, 128)
    assert fit.by_grid.shape == (2, 3) and fit.by_grid[0].tolist() == [1, 0, 0]
    # The last box has the place of the first anchor there, which is not trained: it sticks out.
    assert fit.best_iou[1] == 1 and fit.by_grid[1].tolist() == [0, 1, 0]
    np.testing.assert_array_equal(fit.num_positive, fit.by_grid.sum(axis=0))


def test_evenly():
    items = np.arange(100)
    assert evenly(items, 200) is items
    assert evenly(items, 3).tolist() == [0, 50, 99]
    assert len(evenly(items, 7)) == 7

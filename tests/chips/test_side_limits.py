"""Sizes of boxes that get chips of a level: ranges of their own, and limits of the longer side."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sniper.chips import ChipSettings, box_levels, make_epoch
from sniper.chips.chip_settings import bad_side_limits
from sniper.chips.stats import GtFate
from sniper.errors import ConfigError
from sniper.targets.contract import ChipTruth
from sniper.targets.gt import GtLabels, gt_in_chip

# The two scales of Open Images in 2018.
OPEN_IMAGES = ChipSettings(
    scales=[1.0, 512.0],
    valid_ranges=[(-1, 300), (240, -1)],
    chip_ranges=[(-1, 300), (300, -1)],
    side_limits=[450, -1],
)
ARGUMENTS = {"seed": 0, "epoch": 0, "batch_size": 1}


def box_at(width, height, x=7, y=9):
    return [x, y, x + width, y + height]


def is_coarse_2018(width, height):
    return math.sqrt(int(width) * int(height)) >= 300 or max(int(width), int(height)) >= 450


def chips_with(epoch, record_index, row):
    return [chip for chip in epoch.chips[record_index] if row in chip.rows.tolist()]


def labels_of(record, chip, settings):
    labels = GtLabels(settings.chip_size, 10, settings.valid_ranges)
    truth = gt_in_chip(record, chip.rect, chip.factor, chip.rows, settings.chip_size)
    row = {
        "valid_ranges": np.zeros(2, np.float32),
        "im_info": np.zeros(3, np.float32),
        "gt_boxes": np.zeros((10, 5), np.float32),
    }
    labels.write(ChipTruth(record, chip, truth, settings.chip_size, seed=0), row)
    return truth, row


@pytest.mark.parametrize(
    ("width", "height", "level"),
    [
        (20, 30, 0),
        (299, 299, 0),
        (300, 300, 1),
        (299.9, 299.9, 0),  # whole px count, as for all ranges
        (449, 100, 0),
        (449.9, 100, 0),
        (450, 100, 1),
        (100, 450, 1),
        (449, 200, 0),  # sqrt(area) 299.7
        (449, 201, 1),  # 300.4
        (450, 1, 1),
        (900, 700, 1),
        (2, 20, 0),
        (1, 20, None),
    ],
)
def test_level_of_a_box(ref, width, height, level):
    record = ref.record([box_at(width, height)], size=(1024, 768))
    epoch = make_epoch([record], OPEN_IMAGES, **ARGUMENTS)
    assert [chip.level for chip in chips_with(epoch, 0, 0)] == ([] if level is None else [level])
    assert epoch.gt_fate.tolist() == [GtFate.TOO_THIN if level is None else GtFate.COVERED]
    in_range = box_levels([record], OPEN_IMAGES).in_range[0].tolist()
    assert in_range == [level != 1, level == 1]


def test_chips_of_the_two_scales(ref):
    """Native scale: windows of 512 px; coarse scale: the whole image. Each trains its own boxes."""
    boxes = [box_at(100, 120), box_at(90, 80, 900, 600), box_at(600, 30), box_at(400, 400)]
    record = ref.record(boxes, size=(1024, 768))
    epoch = make_epoch([record], OPEN_IMAGES, **ARGUMENTS)
    fine = [chip for chip in epoch.chips[0] if chip.level == 0]
    (coarse,) = [chip for chip in epoch.chips[0] if chip.level == 1]
    assert sorted(row for chip in fine for row in chip.rows.tolist()) == [0, 1]
    assert all((chip.width, chip.height, chip.factor) == (512, 512, 1) for chip in fine)
    assert coarse.rows.tolist() == [2, 3] and coarse.factor == 0.5
    assert coarse.rect == (0, 0, 1022, 766)  # 512 x 384 px at factor 0.5, whose last px begin here
    assert (coarse.width, coarse.height) == (512, 384)
    truth, row = labels_of(record, coarse, OPEN_IMAGES)
    assert dict(zip(truth.rows.tolist(), truth.valid.tolist())) == {
        0: False,
        1: False,
        2: True,
        3: True,
    }
    assert row["valid_ranges"].tolist() == [120, 512]
    for chip in fine:
        truth, row = labels_of(record, chip, OPEN_IMAGES)
        assert truth.rows[truth.valid].tolist() == chip.rows.tolist()
        assert row["valid_ranges"].tolist() == [0, 300]


def test_parts_of_boxes_follow_the_rule(ref):
    """A chip ends where its last px begins: a box at the limit that is cut there is counted."""
    cut = ref.record([[574, 10, 1024, 100]], size=(1025, 768))
    # 450 px, of which the chip shows 448; neither part is large by area.
    epoch = make_epoch([cut], OPEN_IMAGES, **ARGUMENTS)
    assert epoch.gt_fate.tolist() == [GtFate.NOT_HELD]
    longer = ref.record([[564, 10, 1024, 100]], size=(1025, 768))
    assert make_epoch([longer], OPEN_IMAGES, **ARGUMENTS).gt_fate.tolist() == [GtFate.COVERED]


def test_levels_are_known_by_number_not_by_factor(ref):
    """An image as long as the coarse level: both factors are 1."""
    record = ref.record([box_at(60, 70), box_at(480, 90)], size=(512, 400))
    epoch = make_epoch([record], OPEN_IMAGES, **ARGUMENTS)
    assert [chip.factor for chip in epoch.chips[0]] == [1, 1]
    assert [chip.level for chip in epoch.chips[0]] == [0, 1]
    assert [chip.rows.tolist() for chip in epoch.chips[0]] == [[0], [1]]
    ranges = [labels_of(record, chip, OPEN_IMAGES)[1]["valid_ranges"] for chip in epoch.chips[0]]
    assert np.array(ranges).tolist() == [[0, 300], [240, 512]]


def test_small_images_are_enlarged_at_the_coarse_level(ref):
    """As in 2018; the rule goes by image px, whatever the factor."""
    record = ref.record([box_at(470, 20, 0), box_at(300, 60, 0)], size=(480, 320))
    epoch = make_epoch([record], OPEN_IMAGES, **ARGUMENTS)
    fine, coarse = epoch.chips[0]
    assert (fine.level, fine.rows.tolist()) == (0, [1])
    assert (coarse.level, coarse.rows.tolist(), coarse.factor) == (1, [0], 512 / 480)


def test_chip_ranges_leave_the_box_head_alone(ref):
    """A box of 250 px is valid for the box head at both levels and gets chips of one."""
    record = ref.record([box_at(250, 250)], size=(1024, 768))
    assert [chip.level for chip in make_epoch([record], OPEN_IMAGES, **ARGUMENTS).chips[0]] == [0]
    without = dataclasses.replace(OPEN_IMAGES, chip_ranges=())
    assert [chip.level for chip in make_epoch([record], without, **ARGUMENTS).chips[0]] == [0, 1]


def test_false_alarms_follow_the_rule(ref):
    long = [box_at(460, 20, 40, y) for y in range(0, 400, 10)]
    record = ref.record([], long, size=(1024, 768))
    negative = dataclasses.replace(OPEN_IMAGES, use_neg_chips=True, min_false_alarms=(5, 5))
    (chip,) = make_epoch([record], negative, **ARGUMENTS).chips[0]
    assert (chip.level, len(chip.rows)) == (1, len(long))
    free = dataclasses.replace(negative, side_limits=())
    assert not make_epoch([record], free, **ARGUMENTS).chips.num_chips


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), sides=st.tuples(st.integers(30, 1500), st.integers(30, 1500)))
def test_every_box_is_trained_at_its_level(ref, seed, sides):
    """Against the rule of 2018, box by box; what is left out touches the border and is counted."""
    rng = np.random.default_rng(seed)
    room = np.array(sides) - 1
    extents = np.exp(rng.uniform(np.log(2), np.log(room), (12, 2)))
    corners = np.floor(rng.uniform(0, 1, (12, 2)) * (room - extents))
    boxes = np.concatenate([corners, corners + np.floor(extents)], axis=1)
    record = ref.record(boxes, size=sides)
    epoch = make_epoch([record], OPEN_IMAGES, **{**ARGUMENTS, "seed": seed})
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        levels = {chip.level for chip in chips_with(epoch, 0, row)}
        level = int(is_coarse_2018(x2 - x1, y2 - y1))
        if epoch.gt_fate[row] == GtFate.COVERED:
            assert levels == {level}
        else:
            assert epoch.gt_fate[row] == GtFate.NOT_HELD and level == 1 and not levels
            factor = 512 / max(sides)
            assert max(x2 / sides[0], y2 / sides[1]) > 1 - 2.1 / min(sides) / min(factor, 1)
    counts = [level.gt_in_range for level in epoch.stats.levels]
    assert box_levels([record], OPEN_IMAGES).in_range.sum(axis=0).tolist() == counts


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_side_limits_leave_no_box_without_a_level(ref, data, seed):
    """Whatever the limits, where ranges have no gap; and compiled code counts the same boxes."""
    count = data.draw(st.integers(1, 4))
    highs = sorted(data.draw(st.sets(st.integers(20, 400), min_size=count - 1, max_size=count - 1)))
    lows = [-1, *(data.draw(st.integers(1, high)) for high in highs)]
    ranges = list(zip(lows, [*highs, -1]))
    limits = [*(data.draw(st.just(-1) | st.integers(5, 900)) for _ in highs), -1]
    assume(bad_side_limits(limits, ranges) is None)
    scales = [0.5] * (count - 1) + [512.0]
    chip_settings = ChipSettings(scales, ranges, side_limits=limits)
    records = ref.random_records(4, seed=seed)
    epoch = make_epoch(records, chip_settings, **ARGUMENTS)
    levels = box_levels(records, chip_settings)
    assert levels.in_range.any(axis=1).all()
    assert GtFate.NO_RANGE not in epoch.gt_fate.tolist()
    # The factors are small: whatever a level is asked for fits into its chips.
    assert GtFate.TOO_LONG not in epoch.gt_fate.tolist()
    counts = [level.gt_in_range for level in epoch.stats.levels]
    assert levels.in_range.sum(axis=0).tolist() == counts
    for level, limit in enumerate(limits):
        reaches = limit >= 0 and levels.long_side >= limit
        assert not (reaches & levels.in_range[:, level]).any()


@pytest.mark.parametrize("name", ["side_limits", "chip_ranges"])
def test_entries_that_say_nothing_change_nothing(ref, name):
    plain = ChipSettings(
        (3.0, 1.667, 512.0),
        [(-1, 80), (32, 150), (120, -1)],
        use_neg_chips=True,
        background_chips=0.5,
    )
    same = {"side_limits": [-1, -1, -1], "chip_ranges": [(-1, 80), (32, 150), (120, -1)]}
    records = ref.random_records(20, proposals=60)
    first = make_epoch(records, plain, **ARGUMENTS)
    second = make_epoch(records, dataclasses.replace(plain, **{name: same[name]}), **ARGUMENTS)
    assert first.stats == second.stats
    assert list(map(ref.describe, first.chips)) == list(map(ref.describe, second.chips))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"side_limits": [450]}, ["TRAIN.SIDE_LIMITS", "1 entries for 2"]),
        ({"chip_ranges": [(-1, 300)]}, ["TRAIN.CHIP_RANGES", "1 entries for 2"]),
        ({"side_limits": [450, 900]}, ["TRAIN.SIDE_LIMITS", "900", "belong to no level"]),
        ({"side_limits": [0, -1]}, ["level 0 holds no box"]),
        ({"side_limits": [math.nan, -1]}, ["TRAIN.SIDE_LIMITS"]),
        ({"side_limits": [math.inf, -1]}, ["TRAIN.SIDE_LIMITS"]),
        ({"chip_ranges": [(-1, -1), (300, -1)]}, ["TRAIN.CHIP_RANGES", "upper end"]),
        ({"chip_ranges": [(-1, 300), (math.nan, -1)]}, ["TRAIN.CHIP_RANGES", "pair"]),
    ],
)
def test_wrong_entries_are_told(changes, words):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(OPEN_IMAGES, **changes)
    assert all(word in str(error.value) for word in words)


def test_a_level_without_boxes_is_told():
    three = ChipSettings([2.0, 1.0, 512.0], [(-1, 80), (60, 150), (120, -1)])
    dataclasses.replace(three, side_limits=[100, 101, -1])
    dataclasses.replace(three, side_limits=[50, 60, -1])  # boxes of 50 to 59 px, long and thin
    for limits in ([100, 60, -1], [-1, 60, -1], [50, 50, -1]):
        with pytest.raises(ConfigError, match="level 1 holds no box"):
            dataclasses.replace(three, side_limits=limits)

"""The compiled epoch against the rules in NumPy, bit for bit."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.chips.box_table import BoxTable, box_table
from sniper.chips.sampler import ChipSettings, make_epoch
from sniper.chips.stats import GtFate, LevelStats
from sniper.data.record import flip_record
from tests.chips import slow_epoch

COCO = ChipSettings((3.0, 1.667, 512.0), [(-1, 80), (32, 150), (120, -1)], use_neg_chips=True)
RESOLUTIONS = ChipSettings(
    ((700, 1000), (400, 640), (-1, 256)),
    [(-1, 80), (32, 150), (120, -1)],
    chip_size=256,
    use_neg_chips=True,
    max_neg_chips=3,
)
ONE_LEVEL = ChipSettings([(480, 800)], [(-1, -1)], chip_size=300, use_neg_chips=True)
# Ranges with a gap, a coarsest level that is larger than a chip, and a lower bound on it.
GAP = ChipSettings([2.0, 1.0, 700.0], [(-1, 20), (30, 50), (90, 200)], chip_size=128)
LEGACY = dataclasses.replace(GAP, legacy_boxes=True)
SETTINGS = {
    "legacy": LEGACY,
    "coco": COCO,
    "resolutions": RESOLUTIONS,
    "one level": ONE_LEVEL,
    "gap": GAP,
    "coco of 2018": dataclasses.replace(COCO, min_false_alarms=(25, 10)),
    "background": dataclasses.replace(COCO, min_false_alarms=(1, 0), background_chips=0.8),
    "small chips": ChipSettings(
        [2.0, 1.0, 200.0], [(-1, 40), (20, 120), (60, -1)], chip_size=64, use_neg_chips=True
    ),
    "two scales of 2018": ChipSettings(
        [1.0, 512.0],
        [(-1, 300), (240, -1)],
        chip_ranges=[(-1, 300), (300, -1)],
        side_limits=[450, -1],
    ),
    "side limits": ChipSettings(
        [2.0, 1.0, 200.0],
        [(-1, 1000), (1, 2000), (2, -1)],
        chip_size=128,
        use_neg_chips=True,
        min_false_alarms=(1, 0),
        background_chips=0.5,
        chip_ranges=[(-1, 30), (25, 60), (90, -1)],
        side_limits=[35, 70, -1],
    ),
    "one side limit": dataclasses.replace(GAP, side_limits=[-1, 40, -1]),
    "crops": ChipSettings(
        [(640, -1), (400, -1), (-1, 100)], [(-1, 9999)] * 3, chip_size=200, random_crops=3
    ),
    "only background": dataclasses.replace(GAP, background_chips=7),
}


def boxes_of(rng, count, width, height, whole):
    """Boxes of all sizes, some larger than the image or without extent."""
    sides = np.exp(rng.uniform(-0.5, np.log(1.1 * max(width, height)), (count, 2)))
    corners = rng.uniform(-0.02, 1, (count, 2)) * np.array([width, height])
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    if whole:
        boxes = np.floor(boxes)
    few = rng.random(count) < 0.7
    boxes[few] = boxes[few].clip(0, np.float32([width, height, width, height]) - 1)
    return boxes


def records_of(ref, rng, count, proposals):
    records = []
    for _ in range(count):
        width, height = rng.integers(60, 700, 2).tolist()
        gt, rest = (
            boxes_of(rng, int(number), width, height, rng.random() < 0.5)
            for number in (rng.integers(0, 10), rng.integers(0, proposals + 1))
        )
        rest[: len(rest) // 2] = rest[:1]  # many alike: enough for a negative chip
        image_id = int(rng.integers(-(2**62), 2**62))
        records.append(ref.record(gt, rest, (width, height), image_id))
    return [*records, *map(flip_record, records)]


def check_equal(ref, records, chip_settings, seed, epoch):
    arguments = {"seed": seed, "epoch": epoch, "batch_size": 7}
    fast = make_epoch(records, chip_settings, **arguments)
    expected = slow_epoch.make_epoch(records, chip_settings, **arguments)
    assert list(map(ref.describe, fast.chips)) == list(map(ref.describe, expected.chips))
    np.testing.assert_array_equal(fast.samples, expected.samples)
    assert fast.samples.dtype == np.int32 and fast.stride == expected.stride
    assert fast.gt_fate.tolist() == expected.fates
    stats = fast.stats
    assert stats.negative_candidates == expected.negative_candidates
    assert stats.levels == tuple(LevelStats(*row) for row in expected.level_counts)
    uncovered = [fate for fate in expected.fates if fate != GtFate.COVERED]
    assert stats.gt_covered == len(expected.fates) - len(uncovered)
    for fate, count in stats.gt_uncovered.items():
        assert count == uncovered.count(fate)
    inside = [
        slow_epoch.num_gt_in(record, chip, chip_settings)
        for record, chips in zip(records, expected.chips)
        for chip in chips
    ]
    assert fast.chips.num_gt.tolist() == inside
    assert stats.most_gt == max(inside, default=0)
    assert [fast.chips_over(limit) for limit in (0, 2)] == [
        sum(count > limit for count in inside) for limit in (0, 2)
    ]
    return fast


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(SETTINGS)),
    seed=st.integers(-(2**40), 2**64),
    epoch=st.integers(0, 5),
    proposals=st.sampled_from([0, 20, 120]),
)
def test_random_records(ref, name, seed, epoch, proposals):
    rng = np.random.default_rng(abs(seed))
    records = records_of(ref, rng, 3, proposals)
    check_equal(ref, records, SETTINGS[name], seed, epoch)


def test_an_image_with_many_chips(ref):
    """More chips and objects than are looked at one by one, at levels of all sizes."""
    rng = np.random.default_rng(0)
    size, count = (620, 560), 240
    corners = rng.uniform(0, size, (count, 2))
    sides = np.exp(rng.uniform(np.log(3), np.log(60), (count, 2)))
    sides[::20] *= 10  # across many chips
    boxes = np.hstack([corners, corners + sides]).clip(0, np.tile(size, 2) - np.float32(1))
    boxes[::3] = np.floor(boxes[::3])
    record = ref.record(boxes[:160], boxes[160:], size)
    many = ChipSettings(
        [1.0, 0.5, 0.3],
        [(-1, 40), (20, 120), (60, -1)],
        chip_size=64,
        use_neg_chips=True,
        max_neg_chips=40,
        min_false_alarms=(1, 0),
        background_chips=0.6,
    )
    fast = check_equal(ref, [record], many, seed=3, epoch=1)
    finest, coarser, _ = fast.stats.levels
    assert finest.positive > 64 and 4 < coarser.positive < 24
    assert finest.background > 10 and finest.negative > finest.background


def test_every_fate_occurs(ref):
    """Boxes for each of the reasons, so that none of them is an untested branch."""
    gt = [
        [10, 10, 20, 20],  # level 0
        [10, 10, 35, 35],  # in the gap
        [5, 5, 6, 20],  # 1 px wide
        [0, 0, 70, 3],  # level 0, longer than its chips
        [0, 0, 600, 300],  # coarsest level, larger than a chip
    ]
    fast = check_equal(ref, [ref.record(gt)], GAP, seed=0, epoch=0)
    assert fast.gt_fate.tolist() == [
        GtFate.COVERED,
        GtFate.NO_RANGE,
        GtFate.TOO_THIN,
        GtFate.TOO_LONG,
        GtFate.TOO_LONG,
    ]
    # At the coarsest level a box of 120 px fits into a chip of 128 px but not into every lattice.
    wide = ChipSettings([700.0], [(-1, -1)], chip_size=128)
    records = [ref.record([[x, x, x + 115, x + 115]], image_id=x) for x in range(20, 300, 7)]
    fates = check_equal(ref, records, wide, seed=0, epoch=0).gt_fate.tolist()
    assert set(fates) == {GtFate.COVERED, GtFate.NO_CANDIDATE}
    # Truncated to 19 px it is in range; the part inside the chip has 20.5 px, which is not.
    edge = ref.record([[10, 10, 30.5, 29.9]])
    settings_20 = ChipSettings([2.0, 512.0], [(-1, 20), (1e4, -1)], chip_size=128)
    fast = check_equal(ref, [edge], settings_20, seed=0, epoch=0)
    assert fast.gt_fate.tolist() == [GtFate.NOT_HELD]
    assert all(GtFate(fate).text for fate in range(6))


def test_boxes_that_are_not_finite_are_left_out(ref):
    """A Record refuses them; a table may hold them."""
    good = ref.record([[10, 10, 40, 40], [50, 50, 300, 200]], [[5, 5, 25, 25]] * 30)
    broken = [[np.nan, 1, 2, 3], [0, 0, np.inf, 9], [-np.inf, 0, 9, 9], [0, np.nan, 400, 400]]
    table = box_table([good])
    boxes = np.concatenate([good.boxes, np.float32(broken)])
    table = dataclasses.replace(table, boxes=(boxes,))
    one_level = dataclasses.replace(ONE_LEVEL, valid_ranges=[(-1, 1e4)])
    for chip_settings in (COCO, one_level):
        arguments = {"seed": 0, "epoch": 0, "batch_size": 1}
        expected = make_epoch([good], chip_settings, **arguments)
        fast = make_epoch(table, chip_settings, **arguments)
        assert list(map(ref.describe, fast.chips)) == list(map(ref.describe, expected.chips))


def test_huge_boxes(ref):
    """Sides that no integer holds are converted and multiplied as NumPy does on x86."""
    gt = [[0, 0, 1e30, 1e30], [0, 0, 4e9, 5e9], [-3e38, -3e38, 3e38, 3e38], [0, 0, 9.3e18, 3]]
    for chip_settings in (COCO, ONE_LEVEL):
        check_equal(ref, [ref.record(gt, gt * 4)], chip_settings, seed=0, epoch=0)


def test_proposals_that_end_before_they_start(ref):
    """Areas of 0 and below have no largest share: such boxes are in no chip."""
    odd = [[50, 50, 49, 80], [50, 50, 40, 40], [60, 60, 59, 59], [70, 70, 60, 69]]
    record = ref.record([[10, 10, 300, 300]], odd * 8)
    for chip_settings in (COCO, ONE_LEVEL):
        check_equal(ref, [record], chip_settings, seed=0, epoch=0)


def test_drawn_negatives(ref):
    """Many clusters of false alarms: which two of the negative chips are used, in which order."""
    corners = np.arange(0, 1500, 300)
    boxes = [[x, y, x + 20, y + 20] for x in corners for y in corners for _ in range(12)]
    records = [ref.record([], boxes, (1520, 1520), image_id) for image_id in range(4)]
    for chip_settings in (COCO, dataclasses.replace(COCO, max_neg_chips=9)):
        fast = check_equal(ref, records, chip_settings, seed=5, epoch=1)
        assert fast.stats.negative_candidates > 40
        assert set(np.diff(fast.chips.offsets).tolist()) == {chip_settings.max_neg_chips}
    without = dataclasses.replace(COCO, max_neg_chips=0)
    assert check_equal(ref, records, without, seed=5, epoch=1).chips.num_chips == 0


def test_boxes_that_stick_out_of_a_chip_by_a_trifle(ref):
    """Almost all of a box is not all of it, in whichever order the chips come."""
    rng = np.random.default_rng(3)
    chip_settings = ChipSettings([1.0, 700.0], [(-1, 1e4), (1e5, -1)], chip_size=128)
    for seed in range(8):
        # Corners within 0.03 px of where the candidates begin and end (the stride is 14 ... 17).
        step = slow_epoch.draw_stride(128, seed, 0)
        begin = rng.integers(0, 30, (60, 2)) * step
        end = begin + 127 - rng.integers(1, 4, (60, 2)) * step
        boxes = np.concatenate([begin, end], axis=1) + rng.choice([-0.03, 0, 0.03], (60, 4))
        record = ref.record(boxes.clip(0, 639), size=(640, 640), image_id=seed)
        check_equal(ref, [record], chip_settings, seed=seed, epoch=0)


def test_rows_of_ground_truth_only(ref):
    records = ref.random_records(15, proposals=80)
    arguments = {"seed": 1, "epoch": 1, "batch_size": 4}
    full = make_epoch(records, COCO, **arguments)
    short = make_epoch(records, COCO, gt_rows_only=True, **arguments)
    assert short.stats == full.stats
    np.testing.assert_array_equal(short.samples, full.samples)
    np.testing.assert_array_equal(short.chips.num_boxes, full.chips.num_boxes)
    np.testing.assert_array_equal(full.chips.num_boxes, np.diff(full.chips.row_offsets))
    assert full.chips.negative.any()
    for record, chips, shorter in zip(records, full.chips, short.chips):
        for chip, other in zip(chips, shorter):
            rows = chip.rows[record.is_gt[chip.rows]]
            np.testing.assert_array_equal(other.rows, rows)
            assert (chip.rect, chip.level, chip.kind) == (other.rect, other.level, other.kind)


def test_a_table_is_as_good_as_its_records(ref):
    records = ref.random_records(6, proposals=10)
    table = box_table(records)
    assert isinstance(table, BoxTable) and len(table) == 6
    assert all(boxes is record.boxes for boxes, record in zip(table.boxes, records))
    assert table.gt_offsets[-1] == sum(record.num_gt for record in records)
    for epoch in range(2):
        arguments = {"seed": 3, "epoch": epoch, "batch_size": 5}
        fast, again = (make_epoch(given, COCO, **arguments) for given in (records, table))
        assert list(map(ref.describe, fast.chips)) == list(map(ref.describe, again.chips))


def test_every_chip_is_inside_its_level_and_holds_its_boxes(ref):
    records = ref.random_records(40, proposals=50, seed=2)
    epoch = make_epoch(records, COCO, seed=0, epoch=0, batch_size=1)
    for record, chips in zip(records, epoch.chips):
        for chip in chips:
            x1, y1, x2, y2 = np.array(chip.rect) * chip.factor
            width, height = int(record.width * chip.factor), int(record.height * chip.factor)
            assert -1e-6 < x1 <= x2 < width and -1e-6 < y1 <= y2 < height
            assert x2 - x1 + 1 < 513.001 and y2 - y1 + 1 < 513.001
            boxes = record.boxes[chip.rows].astype(np.float64)
            overlap = np.minimum(boxes[:, 2:], chip.rect[2:]) - np.maximum(
                boxes[:, :2], chip.rect[:2]
            )
            assert (overlap >= 1).all()


CHILD = """
import hashlib, sys
import numpy as np
from sniper.chips.sampler import ChipSettings, make_epoch
from sniper.data.record import Record
settings = ChipSettings((3.0, 1.667, 512.0), [(-1, 80), (32, 150), (120, -1)], use_neg_chips=True)
rng = np.random.default_rng(0)
records = []
for image_id in range(60):
    corners, sides = rng.uniform(0, 400, (90, 2)), np.exp(rng.uniform(1, 5, (90, 2)))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    is_gt = np.arange(90) < 8
    records.append(Record("", image_id, 640, 480, False, boxes, is_gt.astype(np.int32), is_gt))
epoch = make_epoch(records, settings, seed=0, epoch=0, batch_size=4, window=8)
columns = (epoch.chips.rects, epoch.chips.rows, epoch.chips.level, epoch.samples, epoch.gt_fate)
print(hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest())
"""


def test_the_number_of_threads_does_not_matter():
    digests = {
        subprocess.run(
            [sys.executable, "-c", CHILD],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for threads in (1, 2, 4)
    }
    assert len(digests) == 1 and len(digests.pop()) == 65

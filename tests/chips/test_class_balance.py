"""Images with rare classes are trained more often; without the option nothing changes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sniper.chips.box_table import box_table
from sniper.chips.class_balance import repeat_factors
from sniper.chips.sampler import ChipSettings, make_epoch, training_order
from sniper.data import Record
from sniper.data.record import with_proposals


def image(number, classes):
    boxes = np.array([[10, 10, 40, 40]] * len(classes), np.float32).reshape(-1, 4)
    return Record(
        image_path=f"{number}.jpg",
        image_id=number,
        width=100,
        height=80,
        flipped=False,
        boxes=boxes,
        classes=np.array(classes, np.int32),
        is_gt=np.ones(len(classes), bool),
    )


# Class 1 is in all nine images, class 2 in one.
RECORDS = [image(number, [1]) for number in range(8)] + [image(8, [1, 2, 2]), image(9, [])]


def epoch(class_balance, number):
    settings = ChipSettings([1.0], [(-1, -1)], chip_size=64, class_balance=class_balance)
    return make_epoch(RECORDS, settings, seed=3, epoch=number, batch_size=1)


def test_the_rarest_class_decides():
    # One of nine images with objects has class 2: sqrt(0.44 * 9) = 2.
    factors = repeat_factors(box_table(RECORDS), 4 / 9)
    np.testing.assert_allclose(factors, [1] * 8 + [2, 1])
    np.testing.assert_allclose(repeat_factors(box_table(RECORDS), 0.01), np.ones(10))
    assert repeat_factors(box_table([image(0, [])]), 0.5).tolist() == [1]


@pytest.mark.parametrize(("share", "mean"), [(4 / 9, 2.0), (1.0, 3.0), (0.25, 1.5)])
def test_chips_stand_in_an_epoch_as_often(share, mean):
    counts = []
    for number in range(60):
        made = epoch(share, number)
        times = np.bincount(made.samples[:, 0], minlength=10)
        chips = np.diff(made.chips.offsets)
        assert (times[:8] == chips[:8]).all() and times[9] == 0
        assert times[8] % chips[8] == 0
        counts.append(times[8] // chips[8])
    assert np.mean(counts) == pytest.approx(mean, abs=0.2)
    assert set(counts) <= {int(np.floor(mean)), int(np.ceil(mean))}


def slow_factors(records, share):
    """Class by class, image by image."""
    kinds = [set(record.gt_classes.tolist()) for record in records]
    with_objects = sum(map(bool, kinds))
    of_class = {
        kind: max(1.0, math.sqrt(share / (sum(kind in of for of in kinds) / with_objects)))
        for kind in set().union(*kinds)
    }
    return [max([1.0, *(of_class[kind] for kind in of)]) for of in kinds]


@pytest.mark.parametrize("share", [0.01, 0.2, 1.0])
def test_factors_equal_the_slow_way(share):
    rng = np.random.default_rng(8)
    records = [image(i, 1 + rng.zipf(1.4, rng.integers(0, 9)) % 30) for i in range(200)]
    proposals = np.array([[1, 1, 9, 9], [2, 2, 30, 30]], np.float32)
    records = [with_proposals(r, proposals) if r.image_id % 3 else r for r in records]
    assert any(r.num_gt == 0 for r in records)
    factors = repeat_factors(box_table(records), share)
    np.testing.assert_allclose(factors, slow_factors(records, share), rtol=1e-12)
    assert (factors > 1).any() or share < 0.02


def test_off_is_the_order_of_before():
    plain, off = epoch(0.0, 4), epoch(1e-9, 4)
    np.testing.assert_array_equal(plain.samples, off.samples)


def test_a_repeated_record_gives_each_chip_equally_often():
    samples = training_order(
        np.array([2, 3]), seed=1, epoch=0, batch_size=1, repeats=np.array([3, 1])
    )
    found, times = np.unique(samples, axis=0, return_counts=True)
    assert found.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]]
    assert times.tolist() == [3, 3, 1, 1, 1]

"""What no chip shows, on records that are small enough to count by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sniper.chips import unseen as module
from sniper.chips.box_levels import box_levels
from sniper.chips.sampler import ChipSettings, make_epoch
from sniper.chips.unseen import Unseen, unseen

# Two levels of a 512x512 image: 16 chips' worth at x2, one chip at a long side of 256.
SETTINGS = ChipSettings((2.0, 256.0), [(-1, 60), (60, -1)], chip_size=256)
SMALL, LARGE, FAR = [4, 4, 33, 33], [20, 20, 119, 119], [300, 300, 499, 499]


def unseen_of(ref, *gt, settings=SETTINGS):
    records = [ref.record(gt, size=(512, 512))]
    chips = make_epoch(records, settings, seed=0, epoch=0, batch_size=1).chips
    return unseen(records, box_levels(records, settings), chips, settings.chip_size)


def test_a_level_shows_what_lies_around_its_objects(ref):
    fine, coarse = unseen_of(ref, SMALL, LARGE, FAR)
    # The one chip at x2 is 128 px of the image wide: the near one of the large objects is in it.
    assert fine == Unseen(pytest.approx(15 / 16, abs=0.02), 2, 1)
    assert coarse == Unseen(pytest.approx(0, abs=0.01), 1, 0)


def test_a_level_without_objects_shows_nothing(ref):
    assert unseen_of(ref, SMALL)[1] == Unseen(1.0, 1, 1)
    assert unseen_of(ref, FAR)[0] == Unseen(1.0, 1, 1)


def test_chips_at_random_places_show_more(ref):
    some = dataclasses.replace(SETTINGS, background_chips=2)
    every = dataclasses.replace(SETTINGS, background_chips=50)
    areas = [unseen_of(ref, SMALL, settings=s)[0].area for s in (SETTINGS, some, every)]
    assert areas[0] > areas[1] + 0.05 > areas[2] + 0.1
    assert unseen_of(ref, SMALL, settings=some)[1] == Unseen(0.0, 1, 0)


@pytest.mark.parametrize("seed", range(8))
def test_shares_equal_a_count_of_the_cells_of_each_box(seed):
    rng = np.random.default_rng(seed)
    shown = rng.random(rng.integers(1, 40, 2)) < rng.random()
    corners = rng.uniform(-5, 45, (60, 2))
    boxes = np.hstack([corners, corners + rng.uniform(0, 30, (60, 2))]).astype(np.float32)
    rows, columns = shown.shape
    expected = []
    for x1, y1, x2, y2 in boxes.tolist():
        left, top = min(max(int(x1), 0), columns - 1), min(max(int(y1), 0), rows - 1)
        right, bottom = max(int(np.ceil(x2)), left + 1), max(int(np.ceil(y2)), top + 1)
        expected.append(shown[top:bottom, left:right].mean())
    np.testing.assert_array_equal(module._shares(shown, boxes), expected)

"""CUDA kernels of the chip generator against the host function, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.native import _native
from tests.native.cuda_calls import chip_generator
from tests.native.cuda_cases import random_boxes


def on_device(cuda, *arguments, max_chips=40):
    chips, count = chip_generator(cuda, *arguments, max_chips=max_chips)
    count = int(count[0])
    np.testing.assert_array_equal(chips[count:], -1)
    return chips[:count]


def check(cuda, boxes, *level, max_chips=40):
    chips = on_device(cuda, boxes, *level, max_chips=max_chips)
    expected = _native.chip_cover(boxes, *level)
    np.testing.assert_array_equal(chips, expected[:max_chips].astype(np.float32))
    return chips


@pytest.mark.parametrize(
    ("level", "count", "side"),
    [
        ((3.0, 640, 480, 512, 57, 1), 40, 100),  # COCO, finest level
        ((1.667, 640, 480, 512, 56, 2), 70, 200),
        ((0.8, 640, 480, 512, 59, 3), 20, 400),  # smaller than a chip: only corners
        ((1.0, 300, 40, 64, 9, 4), 33, 50),  # no rows
        ((1.0, 40, 300, 64, 9, 5), 33, 50),  # no columns
        ((1.0, 70, 66, 64, 1, 6), 31, 40),  # a box lies in most candidates
        ((0.01, 640, 480, 512, 57, 7), 9, 90),
        ((1.0, 513, 512, 512, 57, 8), 5, 300),
        ((1.0, 513 + 2 * 57, 700, 512, 57, 9, True), 90, 300),  # boxes end as in 2018
    ],
    ids=str,
)
def test_equals_the_host(cuda, level, count, side):
    rng = np.random.default_rng(level[-1])
    chips = check(cuda, random_boxes(rng, count, level[1], level[2], side), *level)
    assert len(chips) > 0


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1, 12345678901234567890])
def test_equal_counts_are_decided_by_the_seed(cuda, seed):
    """One box lies in dozens of candidates: the first one of the permutation wins."""
    boxes = np.float32([[200, 200, 210, 210], [20, 20, 25, 30], [500, 400, 520, 420]])
    check(cuda, boxes, 3.0, 640, 480, 512, 57, seed)


def test_seeds_choose_different_chips(cuda):
    boxes = np.float32([[200, 200, 210, 210]])
    chips = {on_device(cuda, boxes, 3.0, 640, 480, 512, 57, s).tobytes() for s in range(6)}
    assert len(chips) > 2


def test_more_candidates_than_shared_memory_holds(cuda):
    boxes = random_boxes(np.random.default_rng(9), 12, 300, 200, 30)
    level = (1.0, 300, 200, 100, 2, 5)
    assert len(_native.chip_lattice(300, 200, 100, 2)) > 3072
    check(cuda, boxes, *level)


def test_no_boxes(cuda):
    assert len(on_device(cuda, np.zeros((0, 4), np.float32), 3.0, 640, 480, 512, 57, 0)) == 0


def test_padding_and_boxes_that_are_not_finite(cuda):
    good = random_boxes(np.random.default_rng(10), 6, 640, 480, 60)
    nan, inf = np.nan, np.inf
    bad = np.float32(
        [
            [-1, -1, -1, -1],
            [5, 5, -0.5, 9],
            [5, 5, 9, -0.5],
            [nan, 1, 2, 3],
            [1, 1, nan, 3],
            [0, 0, inf, 9],
            [-inf, 0, 9, 9],
            [30, 30, 5, 5],
            [0, 0, 3e38, 3e38],
        ]
    )
    level = (2.5, 640, 480, 512, 57, 11)
    mixed = np.vstack([bad[:5], good[:3], bad[5:], good[3:]])
    chips = on_device(cuda, mixed, *level)
    np.testing.assert_array_equal(chips, check(cuda, good, *level))
    assert len(on_device(cuda, bad, *level)) == 0


def test_boxes_that_fit_into_no_candidate_stay_uncovered(cuda):
    boxes = np.float32([[0, 0, 600, 450], [10, 10, 40, 40]])
    assert len(check(cuda, boxes, 3.0, 640, 480, 512, 57, 0)) == 1
    assert len(check(cuda, boxes[:1], 3.0, 640, 480, 512, 57, 0)) == 0


def test_further_chips_are_dropped(cuda):
    boxes = random_boxes(np.random.default_rng(12), 50, 640, 480, 20)
    level = (3.0, 640, 480, 200, 57, 13)
    assert len(check(cuda, boxes, *level, max_chips=4)) == 4


def test_level_of_less_than_one_pixel_has_no_chip(cuda):
    boxes = np.float32([[0, 0, 9999, 0]])
    assert len(check(cuda, boxes, 0.5, 10000, 1, 64, 57, 0)) == 0


def test_boxes_with_equal_corners_and_edges_on_the_lattice(cuda):
    """Corners exactly on the borders of the candidates."""
    corners = np.float32([0, 9, 10, 18, 63, 64, 72, 119, 128, 191])
    boxes = np.float32([[a, b, c, d] for a in corners for b in (0, 9, 64) for c in (a, a + 54)
                        for d in (b, b + 63)])  # fmt: skip
    check(cuda, boxes, 1.0, 192, 130, 64, 9, 14, max_chips=200)

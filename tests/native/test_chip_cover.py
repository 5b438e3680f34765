"""Chip candidates and the greedy cover, against the 2018 numbers and a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper import boxes as box_math
from sniper.errors import OpsError
from sniper.native import _native

# Golden record of the 2018 code: 640x480, B0 to B5.
GOLDEN_BOXES = np.array(
    [
        [120, 80, 150, 100],
        [140, 90, 200, 170],
        [110, 70, 114, 74],
        [300, 200, 400, 300],
        [90, 55, 130, 95],
        [0, 0, 639, 479],
    ],
    np.float32,
)


def scaled_boxes(boxes_im, factor, width_im, height_im, legacy_clip=False):
    scaled = boxes_im * np.float32(factor)
    margin = 1 if legacy_clip else 0
    sides = int(height_im * factor) - margin, int(width_im * factor) - margin
    return box_math.clip(scaled, *sides)


def contains(chips, boxes):
    """(C, N) whether each chip has the whole of each box: its share in the chip is exactly 1."""
    chips = np.asarray(chips)[:, None]
    return ((chips[..., :2] <= boxes[:, :2]) & (boxes[:, 2:] <= chips[..., 2:])).all(-1)


def slow_lattice(width, height, size, stride):
    """The table of candidates, written down once more."""
    chips = [
        (max(width - size, 0), 0, width - 1, min(size, height - 1)),
        (0, max(height - size, 0), min(size, width - 1), height - 1),
        (max(width - size, 0), max(height - size, 0), width - 1, height - 1),
    ]
    columns, rows = range(0, max(width - size, 0), stride), range(0, max(height - size, 0), stride)
    chips += [(i, j, i + size - 1, j + size - 1) for i in columns for j in rows]
    chips += [(max(width - size - 1, 0), j, width - 1, j + size - 1) for j in rows]
    chips += [(i, max(height - size - 1, 0), i + size - 1, height - 1) for i in columns]
    return np.array(chips, np.float32)


def slow_cover(boxes_im, factor, width_im, height_im, size, stride, seed, legacy_clip=False):
    """Greedy cover by the definition: IOB exactly 1, first maximum in the permuted order."""
    boxes = scaled_boxes(boxes_im, factor, width_im, height_im, legacy_clip)
    chips = slow_lattice(int(width_im * factor), int(height_im * factor), size, stride)
    chips = chips[_native.chip_permutation(len(chips), seed)]
    covers = contains(chips, boxes)
    selected = []
    while covers.size and covers.sum(1).max() > 0:
        best = int(np.argmax(covers.sum(1)))
        selected.append(chips[best].astype(np.float64) / factor)
        covers[:, covers[best].copy()] = False
    return np.array(selected, np.float64).reshape(-1, 4)


def random_boxes(rng, count, width, height, side):
    corners = rng.uniform(-20, [width, height], (count, 2))
    sides = rng.uniform(0, side, (count, 2))
    return np.hstack([corners, corners + sides]).astype(np.float32)


@pytest.mark.parametrize(
    ("width", "height", "counts"),
    [
        (1920, 1440, (488, 470, 444, 427)),
        (2000, 1400, (478, 478, 461, 461)),
        (1067, 800, (79, 79, 68, 68)),
        (700, 512, (7,) * 4),
        (513, 400, (4,) * 4),
        (512, 512, (3,) * 4),
        (100, 30, (3,) * 4),
    ],
)
def test_number_of_candidates_is_that_of_2018(width, height, counts):
    got = tuple(len(_native.chip_lattice(width, height, 512, d)) for d in (56, 57, 58, 59))
    assert got == counts


@pytest.mark.parametrize(
    "level", [(700, 900, 512, 57), (640, 100, 64, 9), (50, 50, 64, 9), (513, 514, 512, 1)]
)
def test_lattice_equals_the_table(level):
    np.testing.assert_array_equal(_native.chip_lattice(*level), slow_lattice(*level))


def test_edge_chips_are_one_pixel_longer_as_in_2018():
    chips = _native.chip_lattice(1920, 1440, 512, 57)
    sides = chips[:, 2:] - chips[:, :2] + 1
    np.testing.assert_array_equal(sides[:3], [[512, 513], [513, 512], [512, 512]])
    assert sides[3:].min() == 512
    assert sides[3:].max() == 513


def test_golden_record_of_2018():
    boxes = GOLDEN_BOXES
    fine = _native.chip_cover(boxes[[0, 1, 2, 4]], 3.0, 640, 480, 512, 57, 7)
    assert len(fine) == 1
    assert contains(fine, boxes[[0, 1, 2, 4]]).all()
    for seed in range(20):
        assert len(_native.chip_cover(boxes[:5], 1.667, 640, 480, 512, 57, seed)) == 2
    coarse = _native.chip_cover(boxes[5:], 0.8, 640, 480, 512, 57, 7)
    np.testing.assert_array_equal(coarse, [[0, 0, 638.75, 478.75]])


def test_factor_is_used_in_double_precision():
    # 1000 * (512 / 1000) is 512 in double; in float32 the level could lose a pixel.
    for side in range(300, 1300, 7):
        factor = 512 / side
        chip = _native.chip_cover(np.float32([[0, 0, 10, 10]]), factor, side, side, 512, 57, 0)[0]
        assert chip[2] == (int(side * factor) - 1) / factor


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    factor=st.sampled_from([3.0, 1.667, 0.8, 512 / 770, 0.01]),
    size=st.sampled_from([512, 200, 64]),
    stride=st.integers(9, 60),
    count=st.integers(0, 70),
    side=st.sampled_from([10, 60, 400]),
    legacy=st.booleans(),
)
def test_cover_equals_the_slow_greedy(
    seed, width, height, factor, size, stride, count, side, legacy
):
    boxes = random_boxes(np.random.default_rng(seed), count, width, height, side)
    level = (factor, width, height, size, stride, seed, legacy)
    chips = _native.chip_cover(boxes, *level)
    np.testing.assert_array_equal(chips, slow_cover(boxes, *level))


@pytest.mark.parametrize(
    ("width", "height", "side", "kind"),
    [
        (700, 620, 30, "spread"),  # a small lattice
        (1300, 1250, 40, "spread"),  # a large one
        (1300, 1250, 120, "spread"),  # many boxes with few candidates, or none
        (1300, 1250, 20, "clustered"),
    ],
)
def test_many_chips_equal_the_slow_greedy(width, height, side, kind):
    rng = np.random.default_rng(width + side)
    boxes = random_boxes(rng, 260, width, height, side)
    if kind == "clustered":
        places = rng.uniform(0, [width, height], (12, 2))[rng.integers(0, 12, len(boxes))]
        boxes += np.tile(places - boxes[:, :2] + rng.normal(0, 30, places.shape), 2)
    level = (1.0, width, height, 64, 9, 5)
    chips = _native.chip_cover(boxes.astype(np.float32), *level)
    assert len(chips) > 30
    np.testing.assert_array_equal(chips, slow_cover(boxes.astype(np.float32), *level))


def test_boxes_at_the_border_end_one_px_earlier_by_the_rules_of_2018():
    """The last chips of the lattice end at px 625 of 0 ... 626: they hold the box for 2018 only."""
    box = np.float32([[600, 300, 626, 320]])
    level = (1.0, 513 + 2 * 57, 700, 512, 57)
    ends = [
        {_native.chip_cover(box, *level, seed, legacy_clip=legacy)[0][2] for seed in range(60)}
        for legacy in (False, True)
    ]
    assert ends == [{626.0}, {625.0, 626.0}]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 200), stride=st.integers(30, 60))
def test_properties_of_a_cover(seed, count, stride):
    width, height, size, factor = 500, 420, 128, 1.5
    boxes = random_boxes(np.random.default_rng(seed), count, width, height, 120)
    chips = _native.chip_cover(boxes, factor, width, height, size, stride, seed) * factor
    lattice = _native.chip_lattice(int(width * factor), int(height * factor), size, stride)
    possible = {tuple(np.round(row, 3)) for row in lattice}
    assert {tuple(np.round(row, 3)) for row in chips} <= possible
    assert len(chips) <= count
    scaled = scaled_boxes(boxes, factor, width, height)
    coverable = contains(lattice, scaled).any(0)
    covered = contains(np.round(chips), scaled).any(0)
    np.testing.assert_array_equal(covered, coverable)


def test_permutation_is_seeded_and_complete():
    order = _native.chip_permutation(500, 3)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(500))
    np.testing.assert_array_equal(order, _native.chip_permutation(500, 3))
    assert (order != _native.chip_permutation(500, 4)).any()
    # The upper half of the seed counts too, and a negative seed is one modulo 2^64.
    assert (order != _native.chip_permutation(500, 3 + 2**40)).any()
    np.testing.assert_array_equal(
        _native.chip_permutation(9, -1), _native.chip_permutation(9, 2**64 - 1)
    )
    assert len(_native.chip_permutation(0, 1)) == 0


def test_permutation_is_the_documented_one():
    """SplitMix64 and Fisher-Yates in Python integers."""
    state, count, mask = 12345, 40, 2**64 - 1
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        j = (((z ^ (z >> 31)) >> 32) * (i + 1)) >> 32
        order[i], order[j] = order[j], order[i]
    assert _native.chip_permutation(count, 12345).tolist() == order


def test_every_candidate_comes_first_equally_often():
    firsts = np.bincount([_native.chip_permutation(8, seed)[0] for seed in range(4000)])
    assert len(firsts) == 8
    assert firsts.min() > 400  # 500 expected, standard deviation 21
    assert firsts.max() < 600


def test_no_boxes_no_chips():
    chips = _native.chip_cover(np.zeros((0, 4), np.float32), 3.0, 640, 480, 512, 57, 0)
    assert chips.shape == (0, 4)
    assert chips.dtype == np.float64


def test_boxes_that_are_not_finite_are_left_out():
    good = np.float32([[10, 10, 40, 40]])
    bad = np.float32([[np.nan, 1, 2, 3], [0, 0, np.inf, 9], [-np.inf, 0, 9, 9], [30, 30, 5, 5]])
    level = (3.0, 640, 480, 512, 57, 0)
    np.testing.assert_array_equal(
        _native.chip_cover(np.vstack([bad, good]), *level), _native.chip_cover(good, *level)
    )
    assert len(_native.chip_cover(bad, *level)) == 0


def test_level_of_less_than_one_pixel_has_no_chip():
    boxes = np.float32([[0, 0, 9999, 0]])
    assert len(_native.chip_cover(boxes, 0.5, 10000, 1, 64, 57, 0)) == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"boxes_im": np.zeros((3, 4))}, "boxes_im"),
        ({"boxes_im": np.zeros((3, 5), np.float32)}, "boxes_im"),
        ({"boxes_im": [[1, 2, 3, 4]]}, "boxes_im"),
        ({"factor": 0.0}, "scale factor"),
        ({"factor": float("nan")}, "scale factor"),
        ({"factor": float("inf")}, "scale factor"),
        ({"stride": 0}, "stride"),
        ({"chip_size": -1}, "chip size"),
        ({"width_im": 0}, "width"),
        ({"height_im": 2**40}, "height"),
        ({"width_im": 2**70}, "width_im"),
        ({"factor": 1000.0, "stride": 1}, "candidate"),
    ],
)
def test_wrong_arguments_are_refused(change, word):
    arguments = {
        "boxes_im": np.zeros((3, 4), np.float32),
        "factor": 3.0,
        "width_im": 640,
        "height_im": 480,
        "chip_size": 512,
        "stride": 57,
        "seed": 0,
    }
    with pytest.raises(OpsError, match=word):
        _native.chip_cover(**{**arguments, **change})


def test_views_that_are_not_contiguous_are_accepted():
    wide = np.zeros((6, 5), np.float32)
    wide[:, :4] = GOLDEN_BOXES
    level = (1.667, 640, 480, 512, 57, 3)
    np.testing.assert_array_equal(
        _native.chip_cover(wide[:, :4], *level), _native.chip_cover(GOLDEN_BOXES, *level)
    )

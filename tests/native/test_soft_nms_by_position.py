"""Soft-NMS that looks only where boxes overlap: the bits of a loop that looks everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.native import _native

F = np.float32
# Of "pairs" few rows overlap: they take the way over pairs, unless more than 64 scores tie.
KINDS = [
    *("spread", "clustered", "one place", "ties", "extreme", "negative scores"),
    *("pairs", "pairs, some ties", "pairs, many ties", "pairs, one box over all"),
]


def portable_exp(x):
    """common/exp.h for -87 <= x <= 0, operation by operation."""
    shifted = x * F(1.44269504) + F(12582912)
    whole = shifted - F(12582912)
    r = x - whole * F(0.693359375) + whole * F(2.12194440e-4)
    p = F(1.9875691500e-4) * r + F(1.3981999507e-3)
    for term in (8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + F(term)
    p = p * r * r + r + F(1)
    return p * ((whole.astype(np.int32) + 127) << 23).view(F)


def decay(rows, chosen, sigma):
    """Decayed scores of rows (n, 5) and whether each overlaps the chosen one."""
    zero, one = F(0), F(1)
    width = np.minimum(rows[:, 2], chosen[2]) - np.maximum(rows[:, 0], chosen[0]) + one
    height = np.minimum(rows[:, 3], chosen[3]) - np.maximum(rows[:, 1], chosen[1]) + one
    inter = np.where(width > 0, width, zero) * np.where(height > 0, height, zero)
    areas = (rows[:, 2] - rows[:, 0] + one) * (rows[:, 3] - rows[:, 1] + one)
    area = (chosen[2] - chosen[0] + one) * (chosen[3] - chosen[1] + one)
    ratio = inter / (area + areas - inter)
    overlap = np.where(ratio > 0, ratio, zero)
    power = overlap * overlap * (one / F(sigma))
    return rows[:, 4] * portable_exp(-np.where(power < 87, power, F(87))), overlap > 0


def plain_soft_nms(dets, sigma, min_score):
    """The definition in float32: (rows in the order of selection, their rows of `dets`)."""
    source = np.flatnonzero(np.isfinite(dets).all(axis=1))
    rows = dets[source].copy()
    count, chosen = len(rows), 0
    with np.errstate(all="ignore"):
        while chosen < count:
            best = chosen + int(np.argmax(rows[chosen:count, 4]))
            for array in (rows, source):
                array[[chosen, best]] = array[[best, chosen]]
            first = chosen + 1
            scores, overlaps = decay(rows[first:count], rows[chosen], sigma)
            rows[first:count, 4] = scores
            fallen = (first + np.flatnonzero(overlaps & (scores < F(min_score)))).tolist()
            while fallen:
                if fallen[-1] == count - 1:
                    fallen.pop()
                else:
                    hole = fallen.pop(0)
                    rows[hole], source[hole] = rows[count - 1], source[count - 1]
                count -= 1
            chosen += 1
    return rows[:count], source[:count]


def made(kind, count, rng):
    """Rows (count, 5) of one kind; one in fifty is not finite."""
    corners = rng.uniform(
        0, {"spread": 3000, "one place": 20}.get(kind, 1200 if "pairs" in kind else 300), (count, 2)
    )
    if kind == "clustered":
        corners = np.round(corners / 97) * 97 + rng.normal(0, 6, (count, 2))
    sides = rng.uniform(-3, 90, (count, 2)) + (200 if kind == "one place" else 0)
    dets = np.hstack([corners, corners + sides, rng.uniform(0.0005, 1, (count, 1))]).astype(F)
    if kind == "ties":
        dets[:, :4] = np.round(dets[:, :4] / 16) * 16
        dets[:, 4] = np.round(dets[:, 4] * 4) / 4
    elif kind.endswith("some ties"):
        dets[:, 4] = np.round(dets[:, 4] * 30) / 30
    elif kind.endswith("many ties"):
        dets[:, 4] = np.round(dets[:, 4] * 3) / 3
    elif kind.endswith("over all"):
        dets[0] = [-9, -9, 1300, 1300, 0.4]
    elif kind == "negative scores":
        dets[:, 4] -= F(0.5)
    elif kind == "extreme":
        values = F([-3e38, -1, -0.0, 0, 1, 5, 100, 3e38, 1e-38])
        dets = rng.choice(values, (count, 5)).astype(F)
    bad = rng.random(count) < 0.02
    dets[bad, rng.integers(0, 5)] = F(np.nan)
    return dets


def merged(dets, sigma, min_score, limit=-1):
    """Through the merge, which tells the rows of the input."""
    zeros = np.zeros(len(dets), np.int32)
    rows, _, _, source = _native.multi_scale_nms(
        *(dets, zeros, zeros, zeros, np.float32([[-1, -1]]), sigma, -1.0, min_score),
        max_per_image=limit,
        with_rows=True,
    )
    return rows, source


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.sampled_from([1, 15, 16, 17, 63, 64, 65, 150, 257, 400]),
    kind=st.sampled_from(KINDS),
    sigma=st.sampled_from([1e-6, 0.01, 0.55, 3.0]),
    min_score=st.sampled_from([0.001, 0.05, 0.3, -1e30]),
)
def test_equals_the_definition_to_the_bit(seed, count, kind, sigma, min_score):
    dets = made(kind, count, np.random.default_rng(seed))
    expected, expected_source = plain_soft_nms(dets, sigma, min_score)
    out, source = merged(dets, sigma, min_score)
    np.testing.assert_array_equal(source, expected_source)
    np.testing.assert_array_equal(out.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("kind", ["spread", "clustered", "ties"])
def test_equals_the_definition_where_rows_are_many(kind):
    """Eight bands of pairs; three levels of nodes."""
    dets = made(kind, 4500, np.random.default_rng(3))
    expected, _ = plain_soft_nms(dets, 0.55, 0.01)
    np.testing.assert_array_equal(_native.soft_nms(dets, 0.55, 0.01), expected)


def test_places_that_share_nothing_do_not_change_each_other():
    """Soft-NMS of a hundred places is that of each place, put in the order of the scores."""
    rng = np.random.default_rng(8)
    parts = [made("clustered", 300, rng) for _ in range(100)]
    for place, part in enumerate(parts):
        part[:, [0, 2]] += F(1024 * (place % 10))
        part[:, [1, 3]] += F(1024 * (place // 10))
    alone = np.concatenate([_native.soft_nms(part, 0.55, 0.01) for part in parts])
    together = _native.soft_nms(np.concatenate(parts)[rng.permutation(30_000)], 0.55, 0.01)
    np.testing.assert_array_equal(
        together[np.lexsort(together.T)].view(np.int32), alone[np.lexsort(alone.T)].view(np.int32)
    )
    assert (np.diff(together[:, 4]) <= 0).all()


def test_many_rows_that_overlap_nothing_come_out_by_score():
    rng = np.random.default_rng(4)
    corners = 40 * np.stack(np.meshgrid(np.arange(300), np.arange(300)), axis=-1).reshape(-1, 2)
    scores = rng.permutation(len(corners))[:, None] / len(corners)
    dets = np.hstack([corners, corners + 20, scores]).astype(F)
    out = _native.soft_nms(dets, 0.55)
    np.testing.assert_array_equal(out, dets[np.argsort(-dets[:, 4], kind="stable")])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), limit=st.integers(1, 300))
def test_a_limit_leaves_out_what_it_may_only(seed, kind, limit):
    """With a limit soft-NMS stops early: the result is that of a cut afterwards."""
    dets = made(kind, 250, np.random.default_rng(seed))
    every, every_source = plain_soft_nms(dets, 0.55, 0.001)
    least = np.sort(every[:, 4])[::-1][limit - 1] if limit < len(every) else -np.inf
    kept = every[:, 4] >= least
    out, source = merged(dets, 0.55, 0.001, limit)
    np.testing.assert_array_equal(source, every_source[kept])
    np.testing.assert_array_equal(out, every[kept])


def test_groups_are_sorted_by_image_and_class_and_stay_in_order():
    rng = np.random.default_rng(6)
    count = 3000
    corners = rng.uniform(0, 1e5, (count, 2))
    dets = np.hstack([corners, corners + 9, np.full((count, 1), 0.5)]).astype(F)
    images = rng.choice([-(2**31), -3, 0, 5, 70_000, 2**31 - 1], count).astype(np.int32)
    classes = rng.choice([-(2**31), -1, 0, 1, 300, 2**31 - 1], count).astype(np.int32)
    zeros = np.zeros(count, np.int32)
    out = _native.multi_scale_nms(
        *(dets, zeros, classes, images, np.float32([[-1, -1]]), 0.55, 1.0), with_rows=True
    )
    order = np.lexsort([classes, images])
    np.testing.assert_array_equal(out[3], order)
    np.testing.assert_array_equal(out[2], images[order])
    np.testing.assert_array_equal(out[1], classes[order])

"""Box voting against loops over single boxes, alone and behind the NMS of several levels."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.config import load_config
from sniper.errors import ConfigError
from sniper.inference import box_voting
from sniper.inference.box_voting import vote
from sniper.inference.decode import ChipDetections
from sniper.inference.merge_levels import MergeSettings, keep_confident, merge_levels
from sniper.runs.levels import merge_settings

RANGES = ((-1, 120), (40, -1))


def crowd(rng, places=12, copies=9, size=60.0):
    """Boxes in heaps, as a detector finds them, (n, 5) float32."""
    corners = np.repeat(rng.uniform(0, 400, (places, 2)), copies, axis=0)
    sides = np.repeat(rng.uniform(10, size * 2, (places, 2)), copies, axis=0)
    corners += rng.normal(0, size / 15, corners.shape)
    sides *= rng.uniform(0.8, 1.25, sides.shape)
    scores = rng.uniform(0.05, 1, (len(corners), 1))
    return np.concatenate([corners, corners + sides, scores], axis=1).astype(np.float32)


def overlap(one, other):
    w = min(one[2], other[2]) - max(one[0], other[0]) + 1
    h = min(one[3], other[3]) - max(one[1], other[1]) + 1
    if w <= 0 or h <= 0:
        return 0.0
    first, second = ((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (one, other))
    return w * h / (first + second - w * h)


def slow_vote(kept, voters, threshold):
    """One box after the other: `kept` and `voters` are (row, group) pairs."""
    result = []
    for row, group in kept:
        total, weight = np.zeros(4), 0.0
        for voter, of_group in voters:
            if of_group == group and overlap(row, voter) >= threshold:
                total += float(voter[4]) * voter[:4].astype(np.float64)
                weight += float(voter[4])
        box = total / weight if weight else row[:4]
        result.append([*box, row[4]])
    return np.array(result).reshape(-1, 5)


@pytest.mark.parametrize("pairs", [1 << 20, 50, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 1.0])
def test_votes_are_those_of_a_loop(monkeypatch, pairs, threshold):
    """In one piece or in many."""
    monkeypatch.setattr(box_voting, "_PAIRS", pairs)
    rng = np.random.default_rng(0)
    voters = crowd(rng)
    groups = rng.integers(0, 3, len(voters)).astype(np.int64) << 32
    chosen = rng.permutation(len(voters))[:40]
    fast = vote(voters[chosen], groups[chosen], voters, groups, threshold)
    slow = slow_vote(
        list(zip(voters[chosen], groups[chosen])), list(zip(voters, groups)), threshold
    )
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-4)
    moved = np.abs(fast - voters[chosen])[:, :4].max(axis=1)
    assert (moved > 1).any() if threshold < 1 else (moved < 1e-3).all()


def test_nothing_and_boxes_without_voters():
    rows = crowd(np.random.default_rng(1), places=1, copies=3)
    nothing, no_group = np.zeros((0, 5), np.float32), np.zeros(0, np.int64)
    group = np.zeros(3, np.int64)
    assert vote(nothing, no_group, rows, group, 0.5).shape == (0, 5)
    np.testing.assert_array_equal(vote(rows, group, nothing, no_group, 0.5), rows)
    np.testing.assert_array_equal(vote(rows, group, rows, group + 1, 0.5), rows)


def found(rng, level, chip):
    rows = crowd(rng)
    scores = np.zeros((len(rows), 3), np.float32)
    klass = rng.integers(1, 3, len(rows))
    scores[np.arange(len(rows)), klass] = rows[:, 4]
    return keep_confident(ChipDetections(0, chip, rows[:, :4], scores), level, (10 * chip, 0))


@pytest.mark.parametrize(("nms", "sigma"), [(0.3, -1), (-1, 0.55)])
def test_what_nms_has_seen_votes(nms, sigma):
    """Boxes of all levels and chips of the image and class; not those of another size's level."""
    rng = np.random.default_rng(2)
    parts = [[found(rng, level, chip) for level in (0, 1) for chip in (0, 1)] for _ in range(2)]
    plain, at = merge_levels(parts, RANGES, MergeSettings(nms, sigma, 0))
    voted, voted_at = merge_levels(parts, RANGES, MergeSettings(nms, sigma, 0, box_voting=0.5))
    np.testing.assert_array_equal(voted.classes, plain.classes)
    np.testing.assert_array_equal(voted.offsets, plain.offsets)
    np.testing.assert_array_equal(voted.rows[:, 4], plain.rows[:, 4])
    np.testing.assert_array_equal(voted_at, at)
    assert len(plain.rows) > 20 and (plain.rows != voted.rows).any(axis=1).mean() > 0.2
    voters = []
    for image, of_image in enumerate(parts):
        for part in of_image:
            low, high = RANGES[part.level]
            for row, klass in zip(part.rows, part.classes):
                side = ((row[2] - row[0]) * (row[3] - row[1])) ** 0.5
                if (low <= 0 or side > low) and (high <= 0 or side <= high):
                    voters.append((row, (image, klass)))
    assert len(voters) < sum(len(part.rows) for of_image in parts for part in of_image)
    images = np.repeat([0, 1], np.diff(plain.offsets))
    kept = [(row, group) for row, *group in zip(plain.rows, images, plain.classes)]
    slow = slow_vote([(row, tuple(group)) for row, group in kept], voters, 0.5)
    np.testing.assert_allclose(voted.rows, slow, rtol=1e-5, atol=1e-4)


def test_means_are_within_their_voters_and_close_to_the_truth():
    """Nine noisy finds of one face: their mean is closer to it than the best of them."""
    rng = np.random.default_rng(3)
    truth = np.array([50, 60, 129, 159], np.float32)
    better = 0
    for _ in range(20):
        rows = np.concatenate(
            [truth + rng.normal(0, 6, (9, 4)), rng.uniform(0.5, 1, (9, 1))], axis=1
        ).astype(np.float32)
        best = rows[[rows[:, 4].argmax()]]
        group = np.zeros(9, np.int64)
        mean = vote(best, group[:1], rows, group, 0.5)
        assert (mean[0, :4] >= rows[:, :4].min(axis=0)).all()
        assert (mean[0, :4] <= rows[:, :4].max(axis=0)).all()
        better += overlap(mean[0], truth) > overlap(best[0], truth)
    assert better >= 16


def test_it_is_off_and_asked_for_by_its_key():
    recipe = "configs/ssh/ssh_vgg16_wider.yml"
    assert merge_settings(load_config(recipe)).box_voting == 0
    assert merge_settings(load_config(recipe, ["TEST.BOX_VOTING", "0.6"])).box_voting == 0.6
    with pytest.raises(ConfigError, match="BOX_VOTING"):
        load_config(recipe, ["TEST.BOX_VOTING", "50"])

"""Recall by size, and AP50 of some objects, against slow references."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.evaluation.analysis import ap50_of, error_effects, recall_by_size
from sniper.evaluation.analysis.matching import Verdict
from tests.evaluation.test_error_analysis import NAMES, make_dataset, match, random_case


def square(image, klass, x, side, *more):
    return (image, klass, x, 0, x + side - 1, side - 1, *more)


# Sides 8, 20, 30 and 64; the last one is a crowd region.
TRUTH = [
    square(0, 1, 0, 8, 0),
    square(0, 1, 50, 20, 0),
    square(1, 2, 0, 30, 0),
    square(1, 2, 200, 64, 1),
]


def test_recall_by_hand(tmp_path):
    dataset = make_dataset(tmp_path, TRUTH)
    matches = match(dataset, [square(0, 1, 50, 20, 0.3), square(1, 2, 0, 30, 0.9)])
    sides = np.sqrt(matches.objects.boxes[:, 2:].prod(axis=1))
    part = recall_by_size(matches, sides, np.ones(len(sides), bool), 0.5)
    assert part.edges == pytest.approx([8, 8 * 2**0.5, 16, 16 * 2**0.5, 32])
    assert part.objects.tolist() == [1, 0, 1, 1]  # never the crowd region
    assert part.found.tolist() == [0, 0, 1, 1]
    assert part.confident.tolist() == [0, 0, 0, 1]
    assert part.share(part.found).tolist() == pytest.approx([0, np.nan, 1, 1], nan_ok=True)
    # A frame of another scale moves the bins, and only chosen objects count.
    doubled = recall_by_size(matches, 2 * sides, sides > 10, 0.5)
    assert doubled.edges == pytest.approx([32, 32 * 2**0.5, 64])
    assert doubled.objects.tolist() == [1, 1]
    nothing = recall_by_size(matches, sides, np.zeros(len(sides), bool), 0.5)
    assert len(nothing.objects) == 0 and len(nothing.edges) == 1


@pytest.mark.parametrize("seed", range(4))
def test_recall_against_a_loop(tmp_path, seed):
    dataset, rows = random_case(tmp_path, seed)
    matches = match(dataset, rows)
    sides = np.sqrt(matches.objects.boxes[:, 2:].prod(axis=1))
    part = recall_by_size(matches, sides, np.ones(len(sides), bool), 0.4)
    for place, (low, high) in enumerate(zip(part.edges, part.edges[1:])):
        here = [
            row
            for row in range(len(sides))
            if low * (1 - 1e-12) <= sides[row] < high * (1 - 1e-12)
            and not matches.objects.ignored[row]
        ]
        found = [row for row in here if matches.found_by[row] >= 0]
        sure = [row for row in found if matches.scores[matches.found_by[row]] >= 0.4]
        assert (len(here), len(found), len(sure)) == (
            part.objects[place], part.found[place], part.confident[place],
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_ap50_of_all_and_of_some_objects(tmp_path, seed):
    dataset, rows = random_case(tmp_path, seed)
    matches = match(dataset, rows)
    classes = len(dataset.class_names)
    every = np.ones(len(matches.objects), bool), np.ones(len(matches), bool)
    whole = error_effects(matches, classes, 0.5).ap50
    assert ap50_of(matches, classes, *every) == pytest.approx(whole)
    sides = np.sqrt(matches.objects.boxes[:, 2:].prod(axis=1))
    some = sides < np.median(sides)
    wrong = np.sqrt(matches.boxes[:, 2:].prod(axis=1)) < np.median(sides)
    expected = []
    for klass in range(1, classes):
        objects = some & ~matches.objects.ignored & (matches.objects.classes == klass)
        if objects.any():
            expected.append(slow_ap(matches, klass, objects, wrong))
    assert ap50_of(matches, classes, some, wrong) == pytest.approx(np.mean(expected))


def slow_ap(matches, klass, objects, wrong):
    """AP50 of a class: the best precision at 101 recalls."""
    hits = []
    order = sorted(range(len(matches)), key=lambda r: (-matches.scores[r], matches.image_ids[r]))
    for row in order:
        verdict = matches.verdicts[row]
        if matches.classes[row] != klass or verdict == Verdict.IGNORED:
            continue
        if verdict == Verdict.RIGHT:
            if objects[matches.targets[row]]:
                hits.append(True)
        elif wrong[row]:
            hits.append(False)
    points = [
        (sum(hits[: n + 1]) / objects.sum(), sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))
    ]
    best = [
        max((p for r, p in points if r >= level - 1e-12), default=0.0)
        for level in np.linspace(0, 1, 101)
    ]
    return np.mean(best)


def test_no_objects_have_no_ap(tmp_path):
    matches = match(make_dataset(tmp_path, TRUTH), [square(0, 1, 50, 20, 0.3)])
    none = np.zeros(len(matches.objects), bool)
    assert np.isnan(ap50_of(matches, len(NAMES), none, np.ones(len(matches), bool)))
    empty = match(make_dataset(tmp_path, TRUTH), [])
    every = np.ones(len(empty.objects), bool)
    assert ap50_of(empty, len(NAMES), every, np.zeros(0, bool)) == 0

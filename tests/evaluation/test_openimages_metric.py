"""The Open Images metric: against a slow reference, in blocks, and rules by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from sniper.data.openimages_truth import ClassTree, TrueBoxes, Verified
from sniper.evaluation.openimages import FoundBoxes, Limits, evaluate_classes
from tests.evaluation.openimages_cases import ALL, fast_ap, random_case, row, slow_ap

# A cat is an animal and a pet.
ANIMAL, PET, CAT = range(3)
ABOVE = [(), (), (ANIMAL, PET)]
FULL, LEFT, FAR = [0, 0, 1, 1], [0, 0, 0.5, 1], [0.9, 0.9, 1, 1]


@pytest.mark.parametrize("group_weight", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_it_equals_the_slow_reference(seed, group_weight):
    case = random_case(np.random.default_rng(seed))
    ap = fast_ap(*case, group_weight)
    np.testing.assert_allclose(ap, slow_ap(*case, group_weight), atol=1e-9)
    assert 0 < np.nanmean(ap) < 1


@pytest.mark.parametrize("stand_by_image", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_the_size_of_blocks_changes_nothing(seed, stand_by_image):
    case = random_case(np.random.default_rng(seed))
    if stand_by_image:
        above, *tables = case
        case = (above, *(sorted(rows, key=image_of) for rows in tables))
    for group_weight in (1.0, 0.0):
        whole = fast_ap(*case, group_weight)
        np.testing.assert_allclose(whole, slow_ap(*case, group_weight), atol=1e-9)
        for size in (1, 3, 40):
            for limits in (Limits(size, size, size), Limits(size, ALL.pairs, ALL.outcomes)):
                np.testing.assert_array_equal(fast_ap(*case, group_weight, limits), whole)


def image_of(row):
    return row["image"] if isinstance(row, dict) else row[0]


def test_equal_scores_count_alike_in_all_blocks():
    above, boxes, verified, detections = random_case(np.random.default_rng(7))
    for detection in detections:
        detection["score"] = round(detection["score"], 1)
    whole = fast_ap(above, boxes, verified, detections, 1.0)
    for size in (1, 3, 40):
        limits = Limits(size, size, size)
        found = fast_ap(above, boxes, verified, detections, 1.0, limits)
        np.testing.assert_array_equal(found, whole)


def test_memory_beside_the_tables_hardly_grows_with_them():
    def peak(num_images):
        rng = np.random.default_rng(0)
        images = np.repeat(np.arange(num_images), 20)
        labels = rng.integers(0, 40, len(images))
        boxes = np.tile(FULL, (len(images), 1)).astype(np.float64)
        tables = (
            TrueBoxes(images, labels, boxes, labels > 35),
            Verified(images, labels, labels > 20),
            FoundBoxes(images, labels, boxes, rng.random(len(images))),
        )
        tracemalloc.start()
        evaluate_classes(ClassTree.flat(40), *tables, limits=Limits(2000, 2000, 2000))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most, len(images)

    (small, few), (large, many) = peak(400), peak(1600)
    # A detection takes 56 bytes; all at once, the metric takes some hundred more.
    assert (large - small) / (many - few) < 15


def test_a_set_without_anything_has_no_precision():
    nothing = np.zeros(0, np.int64)
    tables = (
        TrueBoxes(nothing, nothing, np.zeros((0, 4)), nothing > 0),
        Verified(nothing, nothing, nothing > 0),
        FoundBoxes(nothing, nothing, np.zeros((0, 4)), np.zeros(0)),
    )
    for results in evaluate_classes(ClassTree.of([(), (0,)]), *tables):
        assert np.isnan(results.ap).all() and np.isnan(results.mean_ap)
        assert results.detections.tolist() == results.objects.tolist() == [0, 0]


def test_an_overlap_of_exactly_a_half_counts():
    # IoU 0.5 finds a box, and half of the area in a group is enough.
    assert fast_ap([()], [row(0, LEFT)], [], [row(0, FULL, 0.9)], 1).tolist() == [1.0]
    group = [row(0, [0, 0, 0.25, 1], image=1), row(0, [0.5, 0, 1, 1], group=True)]
    found = [row(0, [0, 0, 0.25, 1], 0.5, image=1), row(0, [0.25, 0, 0.75, 1], 0.9)]
    assert fast_ap([()], group, [], found, 1).tolist() == [1.0]
    assert fast_ap([()], group, [], found, 0).tolist() == [1.0]


@pytest.mark.parametrize(
    ("boxes", "verified", "detections", "weight", "expected"),
    [
        # The box is found; the second detection of it is wrong, but comes later.
        ([row(0, LEFT)], [], [row(0, LEFT, 0.9), row(0, LEFT, 0.8)], 1, [1.0, np.nan]),
        # A wrong one comes first.
        ([row(0, LEFT)], [], [row(0, FAR, 0.9), row(0, LEFT, 0.8)], 1, [0.5, np.nan]),
        # A class that nobody looked for counts nowhere; one that is known to be absent does.
        ([row(0, LEFT)], [], [row(0, LEFT, 0.5), row(1, LEFT, 0.9)], 1, [1.0, np.nan]),
        (
            [row(0, LEFT), row(1, FAR, image=1)],
            [(0, 1, 0)],
            [row(0, LEFT, 0.5), row(1, LEFT, 0.9), row(1, FAR, 0.8, image=1)],
            1,
            [1.0, 0.5],
        ),
        # Detections in a group: one object, or none; without any the group is missed.
        (
            [row(0, LEFT), row(0, FULL, group=True)],
            [],
            [row(0, LEFT, 0.9), row(0, FAR, 0.8), row(0, FAR, 0.7)],
            1,
            [1.0, np.nan],
        ),
        ([row(0, LEFT), row(0, FAR, group=True)], [], [row(0, LEFT, 0.9)], 1, [0.5, np.nan]),
        ([row(0, LEFT), row(0, FAR, group=True)], [], [row(0, LEFT, 0.9)], 0, [1.0, np.nan]),
    ],
)
def test_an_image_by_hand(boxes, verified, detections, weight, expected):
    ap = fast_ap([(), ()], boxes, verified, detections, weight)
    np.testing.assert_allclose(ap, expected, atol=1e-12)


def test_classes_stand_for_those_above_them():
    # 0: animal, 1: cat. A cat is found as an animal; the other way round it is none.
    above = [(), (0,)]
    box, as_animal, as_cat = [row(1, LEFT)], [row(0, LEFT, 0.9)], [row(1, LEFT, 0.9)]
    assert fast_ap(above, box, [], as_cat, 1).tolist() == [1.0, 1.0]
    assert fast_ap(above, box, [], as_animal, 1).tolist() == [1.0, 0.0]
    # No animal: no cat either, and a detection of one is wrong.
    boxes = [*box, row(1, LEFT, image=1)]
    found = [row(1, LEFT, 0.95, image=2), *as_cat, row(1, LEFT, 0.8, image=1)]
    assert fast_ap(above, boxes, [], found, 1).tolist() == [1.0, 1.0]
    np.testing.assert_allclose(fast_ap(above, boxes, [(2, 0, 0)], found, 1), [2 / 3, 2 / 3])


# An object of another image that is found last: what is wrong before it costs precision.
LAST, LAST_FOUND = row(0, LEFT, image=1), row(0, LEFT, 0.1, image=1)


@pytest.mark.parametrize(
    ("boxes", "detections", "group_weight_1", "group_weight_0"),
    [
        # One detection finds the group, the others inside it are neither right nor wrong.
        (
            [row(0, FULL, group=True), LAST],
            [row(0, FAR, 0.9), row(0, LEFT, 0.8), row(0, FAR, 0.7), LAST_FOUND],
            1.0,
            1.0,
        ),
        # A group that nothing finds is an object that was missed.
        ([row(0, FULL, group=True), LAST], [LAST_FOUND], 0.5, 1.0),
        # A detection that is mostly outside is wrong, and the group is missed.
        (
            [row(0, LEFT, group=True), LAST],
            [row(0, [0.3, 0, 1, 1], 0.9), LAST_FOUND],
            0.25,
            0.5,
        ),
        # The best detection of a group stands for it: the wrong one comes after it.
        (
            [row(0, LEFT, group=True), LAST],
            [row(0, LEFT, 0.3), row(0, LEFT, 0.9), row(0, FAR, 0.5), LAST_FOUND],
            (1 + 2 / 3) / 2,
            0.5,
        ),
        # A second detection of a box is not wrong inside a group.
        (
            [row(0, LEFT), row(0, FULL, group=True), LAST],
            [row(0, LEFT, 0.9), row(0, LEFT, 0.8), row(0, LEFT, 0.7), LAST_FOUND],
            1.0,
            1.0,
        ),
        # A box comes before the group around it: that is missed.
        (
            [row(0, LEFT), row(0, FULL, group=True), LAST],
            [row(0, LEFT, 0.9), LAST_FOUND],
            2 / 3,
            1.0,
        ),
        # Of two groups the one that holds most of a detection; the other is missed.
        (
            [row(0, LEFT, group=True), row(0, [0, 0, 0.4, 1], group=True), LAST],
            [row(0, LEFT, 0.9), row(0, LEFT, 0.8), LAST_FOUND],
            2 / 3,
            1.0,
        ),
        # Groups of another class or image do not matter.
        (
            [row(1, FULL, group=True), row(0, FULL, image=2, group=True), row(0, FAR), LAST],
            [row(0, LEFT, 0.9), LAST_FOUND],
            0.5 / 3,
            0.25,
        ),
        # Groups alone are no objects with weight 0.
        ([row(0, FULL, group=True)], [row(0, LEFT, 0.9)], 1.0, np.nan),
    ],
)
def test_groups_by_hand(boxes, detections, group_weight_1, group_weight_0):
    for weight, expected in ((1, group_weight_1), (0, group_weight_0)):
        ap = fast_ap([(), ()], boxes, [], detections, weight)[0]
        np.testing.assert_allclose(ap, expected, atol=1e-12)
        ap = slow_ap([(), ()], boxes, [], detections, weight)[0]
        np.testing.assert_allclose(ap, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("label", "present", "wrong"),
    [
        # A present label goes up: no box of a cat, an animal or a pet is a mistake there.
        (CAT, 1, {CAT, ANIMAL, PET}),
        (ANIMAL, 1, {ANIMAL}),
        # An absent one goes down.
        (ANIMAL, 0, {ANIMAL, CAT}),
        (CAT, 0, {CAT}),
    ],
)
def test_labels_go_up_or_down_the_tree(label, present, wrong):
    # Each class has an object in an image of its own, found after a detection in image 0.
    boxes = [row(kind, LEFT, image=1 + kind) for kind in range(3)]
    found = [row(kind, LEFT, 0.5, image=1 + kind) for kind in range(3)]
    for kind in range(3):
        detections = [row(kind, LEFT, 0.9), *found]
        ap = fast_ap(ABOVE, boxes, [(0, label, present)], detections, 1)
        # A detection of a cat is one of an animal and of a pet, too.
        for other in {kind, *ABOVE[kind]}:
            assert (ap[other] < 1) == (other in wrong), (kind, other)

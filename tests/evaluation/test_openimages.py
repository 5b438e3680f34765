"""The Open Images metric: against a slow reference, and scenarios whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.evaluation.openimages import (
    ClassTree,
    FoundBoxes,
    TrueBoxes,
    Verified,
    evaluate_classes,
)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common), common / areas[0]


def slow_ap(above, boxes, verified, detections, group_weight):
    """By the letter: lists of dicts, an image and a class at a time."""
    below = [[b for b in range(len(above)) if a == b or a in above[b]] for a in range(len(above))]
    boxes = [box | {"label": a} for box in boxes for a in {box["label"], *above[box["label"]]}]
    looked_for = {(box["image"], box["label"]) for box in boxes}
    for image, label, present in verified:
        wider = {label, *above[label]} if present else below[label]
        looked_for |= {(image, other) for other in wider}
    found = [d | {"label": a} for d in detections for a in {d["label"], *above[d["label"]]}]
    found = [d for d in found if (d["image"], d["label"]) in looked_for]
    result = []
    for label in range(len(above)):
        of_class = [box for box in boxes if box["label"] == label]
        positives = sum(group_weight if box["group"] else 1 for box in of_class)
        if not positives:
            result.append(float("nan"))
            continue
        counted = []
        for image in {d["image"] for d in found}:
            here = [box for box in of_class if box["image"] == image]
            single = [box for box in here if not box["group"]]
            groups = [box for box in here if box["group"]]
            mine = [d for d in found if d["image"] == image and d["label"] == label]
            taken, best = set(), {}
            for d in sorted(mine, key=lambda d: -d["score"]):
                ious = [iou(d["box"], box["box"])[0] for box in single]
                place = int(np.argmax(ious)) if ious else -1
                if ious and ious[place] >= 0.5 and place not in taken:
                    taken.add(place)
                    counted.append((d["score"], 1.0))
                    continue
                shares = [iou(d["box"], box["box"])[1] for box in groups]
                place = int(np.argmax(shares)) if shares else -1
                if shares and shares[place] >= 0.5:
                    best[place] = max(best.get(place, 0), d["score"])
                else:
                    counted.append((d["score"], 0.0))
            if group_weight:
                counted += [(score, group_weight) for score in best.values()]
        counted.sort(key=lambda pair: -pair[0])
        points, hits, wrong = [], 0.0, 0
        for _, right in counted:
            hits, wrong = hits + right, wrong + (right == 0)
            points.append((hits / positives, hits / (hits + wrong)))
        area, before = 0.0, 0.0
        for place, (recall, _) in enumerate(points):
            area += (recall - before) * max(precision for _, precision in points[place:])
            before = recall
        result.append(area)
    return np.array(result)


def marks(rows, *names):
    return [np.array([row[name] for row in rows]) for name in names]


def fast_ap(above, boxes, verified, detections, group_weight):
    columns = np.array(verified, np.int64).reshape(-1, 3)
    results = evaluate_classes(
        ClassTree.of(above),
        TrueBoxes(*marks(boxes, "image", "label"), *marks(boxes, "box", "group")),
        Verified(columns[:, 0], columns[:, 1], columns[:, 2] > 0),
        FoundBoxes(*marks(detections, "image", "label"), *marks(detections, "box", "score")),
        group_weight=group_weight,
    )
    return results.ap


def random_case(rng):
    # 0 and 1 stand above 2 ... 4, and 5 below two of them.
    above = [(), (), (0,), (0,), (1,), (0, 1, 3, 4), ()]

    def box():
        corner, side = rng.uniform(0, 0.6, 2), rng.uniform(0.1, 0.4, 2)
        return [*corner, *(corner + side)]

    boxes = [
        {"image": int(rng.integers(12)), "label": int(rng.integers(7)), "box": box(),
         "group": bool(rng.random() < 0.25)}
        for _ in range(60)
    ]  # fmt: skip
    verified = [
        (int(rng.integers(14)), int(rng.integers(7)), int(rng.integers(2))) for _ in "x" * 25
    ]
    detections = [
        {"image": int(rng.integers(15)), "label": int(rng.integers(7)), "box": box()}
        for _ in range(80)
    ]
    for true in boxes:
        for _ in range(int(rng.integers(3))):
            near = (np.array(true["box"]) + rng.normal(0, 0.03, 4)).tolist()
            label = true["label"] if rng.random() < 0.8 else int(rng.integers(7))
            detections.append({"image": true["image"], "label": label, "box": near})
    for row, score in zip(detections, rng.permutation(len(detections))):
        row["score"] = (score + 1.0) / len(detections)
    return above, boxes, verified, detections


@pytest.mark.parametrize("group_weight", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_it_equals_the_slow_reference(seed, group_weight):
    case = random_case(np.random.default_rng(seed))
    ap = fast_ap(*case, group_weight)
    np.testing.assert_allclose(ap, slow_ap(*case, group_weight), atol=1e-9)
    assert 0 < np.nanmean(ap) < 1


FULL, LEFT, FAR = [0, 0, 1, 1], [0, 0, 0.5, 1], [0.9, 0.9, 1, 1]


def row(label, box, score=None, image=0, group=False):
    return {"image": image, "label": label, "box": box, "score": score, "group": group}


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

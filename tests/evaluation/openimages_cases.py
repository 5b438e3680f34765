"""The Open Images metric by the letter, slow, and cases for it."""

from __future__ import annotations

import numpy as np

from sniper.data.openimages_truth import ClassTree, TrueBoxes, Verified
from sniper.evaluation.openimages import FoundBoxes, Limits, evaluate_classes

ALL = Limits(1 << 30, 1 << 30, 1 << 30)


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


def fast_ap(above, boxes, verified, detections, group_weight, limits=ALL):
    columns = np.array(verified, np.int64).reshape(-1, 3)
    (results,) = evaluate_classes(
        ClassTree.of(above),
        TrueBoxes(*marks(boxes, "image", "label"), *marks(boxes, "box", "group")),
        Verified(columns[:, 0], columns[:, 1], columns[:, 2] > 0),
        FoundBoxes(*marks(detections, "image", "label"), *marks(detections, "box", "score")),
        group_weights=[group_weight],
        limits=limits,
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


def row(label, box, score=None, image=0, group=False):
    return {"image": image, "label": label, "box": box, "score": score, "group": group}

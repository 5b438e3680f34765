from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sniper.data.dataset import Dataset
from sniper.data.proposals import ProposalSet
from sniper.data.record import Record
from sniper.errors import DataError
from sniper.evaluation import proposal_recall

SIZES = {"all": (0, 1e10), "small": (0, 1024), "medium": (1024, 9216), "large": (9216, 1e10)}


def make_dataset(boxes_of_images, *, has_annotations=True):
    records = []
    for index, boxes in enumerate(boxes_of_images):
        boxes = np.float32(boxes).reshape(-1, 4)
        count = len(boxes)
        crowd = np.float32([[0, 0, 299, 299]])
        records.append(
            Record(
                *(f"{index}.jpg", 10 + index, 300, 300, False, boxes),
                *(np.ones(count, np.int32), np.ones(count, bool)),
                crowd_boxes=crowd,
            )
        )
    names = ("__background__", "cat")
    return Dataset("COCO_x", "x", names, (0, 1), tuple(records), "x.json", has_annotations)


def make_proposals(rows_of_images):
    """Per image rows x1 y1 x2 y2 score."""
    rows = [np.float32(own).reshape(-1, 5) for own in rows_of_images]
    table = np.concatenate(rows)
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in rows])])
    return ProposalSet(
        "COCO_x",
        np.arange(10, 10 + len(rows), dtype=np.int64),
        offsets.astype(np.int64),
        np.ascontiguousarray(table[:, :4]),
        np.ascontiguousarray(table[:, 4]),
    )


def slow_iou(a, b):
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1 for i in range(2)]
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    inter = max(sides[0], 0) * max(sides[1], 0)
    return inter / (sum(areas) - inter)


def slow_overlaps(objects, rows, limit):
    """The overlap of each object, closest pair first, with plain loops."""
    best = sorted(rows, key=lambda row: -row[4])[:limit]
    pairs = [(slow_iou(p[:4], g), i, j) for i, p in enumerate(best) for j, g in enumerate(objects)]
    found, used, done = [0.0] * len(objects), set(), set()
    for overlap, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if i not in used and j not in done:
            found[j] = overlap
            used.add(i)
            done.add(j)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_against_plain_loops(seed):
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(6):
        sides = np.exp(rng.uniform(np.log(10), np.log(150), (int(rng.integers(0, 6)), 2)))
        corners = rng.uniform(0, 299 - sides)
        boxes = np.hstack([corners, corners + sides]).astype(np.float32)
        near = np.repeat(boxes, 12, axis=0) + rng.normal(0, 6, (12 * len(boxes), 4))
        low = rng.uniform(0, 200, (30, 2))
        far = np.hstack([low, low + rng.uniform(5, 90, (30, 2))])
        rows = np.vstack([near, far])
        scores = rng.permutation(len(rows))[:, None] / 1000
        truth.append(boxes.astype(float).tolist())
        found.append(np.float32(np.hstack([rows, scores])).astype(float).tolist())
    report = proposal_recall(make_dataset(truth), make_proposals(found))
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for boxes in truth for b in boxes]
    for limit in (10, 100, 300, 1000):
        overlaps = [o for g, p in zip(truth, found) for o in slow_overlaps(g, p, limit)]
        for size, (low, high) in SIZES.items():
            own = [o for o, area in zip(overlaps, areas) if low <= area <= high]
            assert report.num_objects[size] == len(own)
            hits = [[o >= t for t in np.linspace(0.5, 0.95, 10)] for o in own]
            expected = np.mean(hits) if own else math.nan
            assert report.recall[size][limit] == pytest.approx(expected, nan_ok=True)
            expected = np.mean([o >= 0.5 for o in own]) if own else math.nan
            assert report.recall_50[size][limit] == pytest.approx(expected, nan_ok=True)
    assert 0 < report.recall["all"][10] < report.recall["all"][100] < 1


def test_one_proposal_finds_one_object_and_the_best_ones_count():
    two = [[0, 0, 99, 99], [0, 0, 99, 94]]
    report = proposal_recall(make_dataset([two]), make_proposals([[[0, 0, 99, 99, 0.5]]]))
    assert report.recall["all"][1000] == report.recall_50["large"][10] == 0.5
    late = [[200, 200, 210, 210, 1.0]] * 10 + [[0, 0, 99, 99, 0.5]]
    report = proposal_recall(make_dataset([two[:1]]), make_proposals([late]))
    assert (report.recall["all"][10], report.recall["all"][100]) == (0, 1)


def test_empty_images_and_missing_sizes():
    report = proposal_recall(make_dataset([[], [[0, 0, 9, 9]]]), make_proposals([[], []]))
    assert (report.num_images, report.num_proposals, report.recall["small"][100]) == (2, 0, 0)
    assert math.isnan(report.recall["large"][100])
    content = report.as_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert (content["ar"]["small"]["100"], content["ar"]["large"]["100"]) == (0, None)
    lines = report.table().splitlines()
    assert lines[0] == "COCO_x: 2 images, 0 proposals, recall in percent"
    assert lines[1].split()[-8:] == [
        *(f"{kind}@{limit}" for kind in ("AR", "R50") for limit in (10, 100, 300, 1000)),
    ]
    assert [line.split()[-8:] for line in lines[2:]] == [["0.0"] * 8] * 2 + [["-"] * 8] * 2
    assert len({len(line) for line in lines[1:]}) == 1


def test_sets_without_annotations_and_foreign_proposals_are_refused():
    with pytest.raises(DataError, match="needs annotations"):
        proposal_recall(make_dataset([[]], has_annotations=False), make_proposals([[]]))
    with pytest.raises(DataError, match="image 11 has no proposals"):
        proposal_recall(make_dataset([[], []]), make_proposals([[]]))

"""Causes of errors, their effect, confusions and worst images, on hand-made and random cases."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sniper.data import Dataset, VocTruth
from sniper.data.detections import ImageDetections, table_of
from sniper.data.record import Record
from sniper.errors import DataError
from sniper.evaluation import evaluate_coco, objects_of
from sniper.evaluation.analysis import (
    CAUSES,
    confusion_matrix,
    error_effects,
    match_detections,
    worst_images,
)
from sniper.evaluation.analysis.matching import Verdict
from sniper.evaluation.analysis.worst import working_point

NAMES = ("__background__", "cat", "dog")
IDS = (0, 8, 3)


def make_dataset(tmp_path, truth, images=2, names=NAMES, ids=IDS):
    """truth: (image position, class, x1, y1, x2, y2, crowd)"""
    path = tmp_path / "instances_x.json"
    entries = []
    for number, (image, klass, x1, y1, x2, y2, crowd) in enumerate(truth, start=1):
        box = [float(v) for v in (x1, y1, x2 - x1 + 1, y2 - y1 + 1)]
        entry = {"id": number, "image_id": 70 - image, "category_id": ids[klass], "bbox": box}
        entries.append({**entry, "area": box[2] * box[3], "iscrowd": int(crowd)})
    content = {
        "images": [{"id": 70 - i, "width": 500, "height": 500} for i in range(images)],
        "categories": [{"id": i, "name": name} for i, name in zip(ids[1:], names[1:])],
        "annotations": entries,
    }
    path.write_text(json.dumps(content))
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    records = tuple(Record(f"{i}.jpg", 70 - i, 500, 500, False, *nothing) for i in range(images))
    return Dataset("COCO_x", "x", names, ids, records, str(path), True)


def table(dataset, rows):
    """rows: (image position, class, x1, y1, x2, y2, score)"""
    images = []
    for index in range(len(dataset.records)):
        own = sorted((row for row in rows if row[0] == index), key=lambda row: row[1])
        numbers = np.float32([row[2:] for row in own]).reshape(-1, 5)
        images.append(ImageDetections(numbers, np.int32([row[1] for row in own])))
    return table_of(images)


def match(dataset, rows):
    return match_detections(dataset, table(dataset, rows), objects_of(dataset))


def verdicts(matches):
    """By falling score."""
    order = np.argsort(-matches.scores, kind="stable")
    return [Verdict(v).name for v in matches.verdicts[order]]


BOX = (100, 100, 199, 199)


@pytest.mark.parametrize(
    ("klass", "box", "verdict"),
    [
        (1, BOX, "RIGHT"),
        (1, (100, 100, 199, 149), "RIGHT"),  # IoU 0.5 exactly
        (1, (100, 100, 199, 148), "LOCALISATION"),
        (1, (100, 100, 199, 109), "LOCALISATION"),  # IoU 0.1 exactly
        (1, (100, 100, 199, 108), "BACKGROUND"),
        (2, BOX, "CLASS"),
        (2, (100, 100, 199, 149), "CLASS"),
        (2, (100, 100, 199, 148), "BOTH"),
        (2, (100, 100, 199, 108), "BACKGROUND"),
        (1, (300, 300, 399, 399), "BACKGROUND"),
    ],
)
def test_each_cause_at_its_limits(tmp_path, klass, box, verdict):
    dataset = make_dataset(tmp_path, [(0, 1, *BOX, 0)])
    matches = match(dataset, [(0, klass, *box, 0.9)])
    assert verdicts(matches) == [verdict]
    assert matches.targets.tolist() == [0 if verdict in ("RIGHT", "LOCALISATION", "CLASS") else -1]
    assert matches.missed.tolist() == [verdict in ("BOTH", "BACKGROUND")]


def test_a_second_detection_is_a_duplicate_and_the_better_one_is_right(tmp_path):
    dataset = make_dataset(tmp_path, [(1, 1, *BOX, 0)])
    matches = match(dataset, [(1, 1, *BOX, 0.5), (1, 1, 100, 100, 199, 180, 0.8)])
    assert verdicts(matches) == ["RIGHT", "DUPLICATE"]
    assert matches.scores[matches.found_by[0]] == pytest.approx(0.8)
    assert matches.images.tolist() == [1, 1]


def test_detections_in_crowd_regions_are_ignored_and_crowds_explain_nothing(tmp_path):
    dataset = make_dataset(tmp_path, [(0, 1, 0, 0, 299, 299, 1), (0, 2, 400, 400, 449, 449, 0)])
    rows = [(0, 1, 10, 10, 40, 40, 0.9), (0, 1, 50, 50, 80, 80, 0.8), (0, 2, 10, 10, 40, 40, 0.7)]
    matches = match(dataset, rows)
    assert verdicts(matches) == ["IGNORED", "IGNORED", "BACKGROUND"]
    assert matches.missed.tolist() == [False, True]


def test_an_object_near_a_repairable_detection_is_not_missed(tmp_path):
    truth = [(0, 1, *BOX, 0), (0, 1, 300, 300, 399, 399, 0), (1, 2, *BOX, 0)]
    dataset = make_dataset(tmp_path, truth)
    matches = match(dataset, [(0, 2, *BOX, 0.9), (0, 1, 300, 300, 399, 340, 0.8)])
    assert matches.missed.tolist() == [False, False, True]
    assert (matches.found_by < 0).all()


def effects(dataset, rows, score=0.5):
    return error_effects(match(dataset, rows), len(NAMES), score)


def test_effects_by_hand(tmp_path):
    # One class, two objects: a false alarm first, then a hit; the second object is missed.
    truth = [(0, 1, *BOX, 0), (1, 1, *BOX, 0)]
    dataset = make_dataset(tmp_path, truth)
    found = effects(dataset, [(0, 1, 300, 300, 350, 350, 0.9), (0, 1, *BOX, 0.4)])
    # Precision 1/2 up to recall 1/2: 51 of 101 points.
    assert found.ap50 == pytest.approx(0.5 * 51 / 101)
    gains = {name: cause.gain for name, cause in found.causes.items()}
    assert gains["background"] == pytest.approx(0.5 * 51 / 101)
    assert gains["missed"] == pytest.approx(0.5 - 0.5 * 51 / 101)
    assert [gains[name] for name in ("class", "localisation", "both", "duplicate")] == [0] * 4
    assert found.gain_false_positives == gains["background"]
    assert found.gain_false_negatives == gains["missed"]
    assert (found.causes["background"].count, found.causes["background"].confident) == (1, 1)
    # Of both objects none is found with a score of 0.5 or more.
    assert (found.causes["missed"].count, found.causes["missed"].confident) == (1, 2)


def test_mending_classes_and_boxes(tmp_path):
    truth = [(0, 1, *BOX, 0), (1, 2, *BOX, 0)]
    dataset = make_dataset(tmp_path, truth)
    wrong_class = [(0, 2, *BOX, 0.9), (0, 2, *BOX, 0.8), (1, 2, *BOX, 0.7)]
    found = effects(dataset, wrong_class)
    # Cats 0; dogs: two false alarms, then the hit. Mended, one of the two is a cat, the other goes.
    assert found.ap50 == pytest.approx((0 + 1 / 3) / 2)
    assert found.causes["class"].gain == pytest.approx(1 - found.ap50)
    bad_box = [(0, 1, 100, 100, 199, 140, 0.9), (1, 2, *BOX, 0.7), (1, 2, 100, 100, 199, 140, 0.9)]
    found = effects(dataset, bad_box)
    # The dog is found already: its bad box goes; the cat's one finds it.
    assert found.ap50 == pytest.approx(0.25)
    assert found.causes["localisation"].gain == pytest.approx(0.75)


def test_a_class_that_misses_everything(tmp_path):
    dataset = make_dataset(tmp_path, [(0, 1, *BOX, 0), (1, 2, *BOX, 0)])
    found = effects(dataset, [(0, 1, *BOX, 0.9)])
    assert (found.ap50, found.causes["missed"].gain) == (0.5, 0.5)
    nothing = effects(dataset, [])
    assert (nothing.ap50, nothing.gain_false_negatives, nothing.gain_false_positives) == (0, 1, 0)


def random_case(tmp_path, seed, images=12):
    rng = np.random.default_rng(seed)
    truth, rows = [], []
    for image in range(images):
        for _ in range(int(rng.integers(0, 6))):
            x, y = rng.integers(0, 300, 2)
            w, h = rng.integers(10, 190, 2)
            klass = int(rng.integers(1, 3))
            truth.append((image, klass, x, y, x + w, y + h, rng.random() < 0.15))
            for _ in range(int(rng.integers(0, 5))):
                corners = np.array([x, y, x + w, y + h]) + rng.normal(0, 0.12, 4) * [w, h, w, h]
                guess = klass if rng.random() < 0.7 else 3 - klass
                rows.append((image, guess, *corners.round(1), rng.integers(1, 90) / 100))
        for _ in range(4):
            x, y, w, h = rng.integers(5, 200, 4)
            rows.append((image, int(rng.integers(1, 3)), x, y, x + w, y + h, rng.random()))
    return make_dataset(tmp_path, truth, images), rows


@pytest.mark.parametrize("seed", range(8))
def test_ap50_is_that_of_the_evaluation(tmp_path, seed):
    dataset, rows = random_case(tmp_path, seed)
    report = evaluate_coco(dataset, table(dataset, rows), evaluator="pycocotools")
    assert effects(dataset, rows).ap50 == pytest.approx(report.ap50, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_every_detection_has_one_verdict_and_no_repair_harms(tmp_path, seed):
    dataset, rows = random_case(tmp_path, seed)
    matches, found = match(dataset, rows), effects(dataset, rows)
    right = int((matches.verdicts == Verdict.RIGHT).sum())
    ignored = int((matches.verdicts == Verdict.IGNORED).sum())
    wrong = sum(cause.count for name, cause in found.causes.items() if name != "missed")
    assert right + ignored + wrong == len(matches) == len(rows)
    assert right == int(((matches.found_by >= 0) & ~matches.objects.ignored).sum())
    assert list(found.causes) == list(CAUSES)
    assert all(cause.gain >= -1e-12 for cause in found.causes.values())
    assert max(found.gain_false_positives, found.gain_false_negatives) <= 1 - found.ap50 + 1e-12


def test_confusions_by_hand(tmp_path):
    truth = [(0, 1, *BOX, 0), (0, 2, 300, 300, 399, 399, 0), (1, 1, *BOX, 0), (1, 1, 0, 0, 9, 9, 1)]
    dataset = make_dataset(tmp_path, truth)
    rows = [
        (0, 2, *BOX, 0.9),  # a cat taken for a dog ...
        (0, 1, 100, 100, 199, 160, 0.6),  # ... but this one has the class: it gets the cat
        (0, 2, 300, 300, 399, 399, 0.5),
        (0, 1, 300, 100, 399, 199, 0.8),  # nothing there
        (1, 2, *BOX, 0.7),
        (1, 1, 1, 1, 8, 8, 0.9),  # in a crowd
        (1, 1, *BOX, 0.3),  # below the threshold
    ]
    matrix = confusion_matrix(match(dataset, rows), NAMES, 0.5)
    np.testing.assert_array_equal(matrix.counts, [[0, 1, 1], [0, 1, 1], [0, 0, 1]])
    assert matrix.worst(5) == [("cat", "dog", 1)]
    strict = confusion_matrix(match(dataset, rows), NAMES, 0.95)
    np.testing.assert_array_equal(strict.counts, [[0, 0, 0], [2, 0, 0], [1, 0, 0]])
    assert strict.worst(5) == []
    assert json.loads(json.dumps(matrix.as_dict()))["counts"] == matrix.counts.tolist()


def test_confusions_of_thousands_of_classes_are_pairs(tmp_path):
    names = ("__background__", *(f"c{i}" for i in range(1, 1001)))
    truth = [(0, 700, *BOX, 0), (0, 2, 300, 300, 399, 399, 0)]
    dataset = make_dataset(tmp_path, truth, names=names, ids=tuple(range(1001)))
    rows = [(0, 2, 300, 300, 399, 399, 0.9), (0, 30, 0, 0, 9, 9, 0.8), (0, 999, *BOX, 0.7)]
    matrix = confusion_matrix(match(dataset, rows), names, 0.5)
    content = json.loads(json.dumps(matrix.as_dict()))
    assert content["row_column_count"] == [[0, 30, 1], [2, 2, 1], [700, 999, 1]]
    assert matrix.worst(9) == [("c700", "c999", 1)]
    assert matrix.counts.sum() == 3 and matrix.counts[700, 999] == 1


@pytest.mark.parametrize("seed", range(3))
def test_confusions_count_every_object_and_detection_once(tmp_path, seed):
    dataset, rows = random_case(tmp_path, seed)
    matches = match(dataset, rows)
    counts = confusion_matrix(matches, NAMES, 0.3).counts
    real = ~matches.objects.ignored
    np.testing.assert_array_equal(
        counts[1:].sum(axis=1), np.bincount(matches.objects.classes[real], minlength=3)[1:]
    )
    sure = (matches.scores >= 0.3) & (matches.verdicts != Verdict.IGNORED)
    np.testing.assert_array_equal(
        counts[:, 1:].sum(axis=0), np.bincount(matches.classes[sure], minlength=3)[1:]
    )
    right = sure & (matches.verdicts == Verdict.RIGHT)
    assert (np.diag(counts) >= np.bincount(matches.classes[right], minlength=3)).all()


def test_worst_images_by_hand(tmp_path):
    truth = [(0, 1, *BOX, 0), (2, 1, *BOX, 0), (2, 1, 300, 300, 399, 399, 0)]
    dataset = make_dataset(tmp_path, truth, images=4)
    rows = [
        (0, 1, *BOX, 0.9),
        (1, 1, 0, 0, 50, 50, 0.9),
        (2, 1, *BOX, 0.4),
        (2, 2, *BOX, 0.7),
    ]
    worst = worst_images(dataset, match(dataset, rows), 0.5, 10)
    assert [(w.image, w.image_id, w.total, w.objects, w.found) for w in worst] == [
        ("2.jpg", 68, 3, 2, 0),
        ("1.jpg", 69, 1, 0, 0),
    ]
    assert {name: n for name, n in worst[0].errors.items() if n} == {"class": 1, "missed": 2}
    assert len(worst_images(dataset, match(dataset, rows), 0.5, 1)) == 1


def test_the_working_point(tmp_path):
    dataset = make_dataset(tmp_path, [(0, 1, *BOX, 0), (1, 1, *BOX, 0)])
    rows = [(0, 1, *BOX, 0.9), (0, 1, 0, 0, 9, 9, 0.5), (1, 1, *BOX, 0.5), (1, 1, 0, 0, 9, 9, 0.2)]
    matches = match(dataset, rows)
    best = working_point(matches)
    assert best.score == pytest.approx(0.5) and best.f1 == pytest.approx(0.8)
    assert (best.precision, best.recall) == (pytest.approx(2 / 3), 1)
    high = working_point(matches, 0.6)
    assert (high.precision, high.recall, high.f1) == (1, 0.5, pytest.approx(2 / 3))
    none = working_point(matches, 0.95)
    assert np.isnan(none.precision) and (none.recall, none.f1) == (0, 0)
    assert working_point(match(dataset, [])).f1 == 0


def test_difficult_objects_of_voc_are_ignored():
    truth = VocTruth(
        year="2007",
        subset="test",
        image_names={1: "000001", 2: "000002"},
        image_ids=np.int64([2, 1, 9]),
        boxes=np.float32([[0, 0, 9, 9], [5, 5, 14, 14], [0, 0, 3, 3]]),
        classes=np.int32([1, 2, 1]),
        difficult=np.array([True, False, False]),
    )
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    records = tuple(Record(f"{i}.jpg", i, 50, 50, False, *nothing) for i in (1, 2))
    dataset = Dataset("VOC", "x", NAMES, (0, 1, 2), records, "x", True, truth, "voc")
    objects = objects_of(dataset)
    assert objects.images.tolist() == [0, 1] and objects.ignored.tolist() == [False, True]
    np.testing.assert_array_equal(objects.boxes, [[5, 5, 10, 10], [0, 0, 10, 10]])
    matches = match(dataset, [(0, 2, 5, 5, 14, 14, 0.5), (1, 1, 0, 0, 9, 9, 0.6)])
    assert verdicts(matches) == ["IGNORED", "RIGHT"]


def test_sets_without_annotations_are_refused(tmp_path):
    dataset = make_dataset(tmp_path, [])
    nothing = Dataset(
        *(dataset.name, "x", NAMES, IDS, dataset.records, dataset.annotation_path, False)
    )
    with pytest.raises(DataError, match="has no annotations"):
        objects_of(nothing)

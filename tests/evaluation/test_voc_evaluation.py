from __future__ import annotations

import dataclasses
import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.data import Dataset, Record, VocTruth, load_dataset
from sniper.data.detections import ImageDetections, table_of
from sniper.errors import DataError, TrainingError
from sniper.evaluation import (
    average_precision,
    evaluate_voc,
    voc_rows,
    write_report,
    write_voc_results,
)

CLASSES = ("__background__", "dog", "cat")


def make_dataset(objects, *, year="2007", images=3, **changes):
    """objects: (image id 1..., class, x1, y1, x2, y2, difficult)"""
    empty = np.zeros((0, 4), np.float32)
    records = tuple(
        Record(f"{i}.jpg", i, 200, 200, False, empty, np.zeros(0, np.int32), np.zeros(0, bool))
        for i in range(1, images + 1)
    )
    table = np.array(objects, np.float64).reshape(-1, 7)
    truth = VocTruth(
        year=year,
        subset="test",
        image_names={i: f"{i:06d}" for i in range(1, images + 1)},
        image_ids=table[:, 0].astype(np.int64),
        boxes=table[:, 2:6].astype(np.float32),
        classes=table[:, 1].astype(np.int32),
        difficult=table[:, 6] > 0,
    )
    fields = {
        "name": f"PASCALVOC_{year}_test",
        "image_set": f"{year}_test",
        "class_names": CLASSES,
        "category_ids": (0, 1, 2),
        "records": records,
        "annotation_path": "Annotations",
        "has_annotations": True,
        "truth": truth,
        "protocol": "voc",
    }
    return Dataset(**{**fields, **changes})


def detections(dataset, rows):
    """[(image id, class, x1, y1, x2, y2, score)] -> table"""
    images = []
    for image_id in range(1, len(dataset.records) + 1):
        own = sorted((row for row in rows if row[0] == image_id), key=lambda row: row[1])
        numbers = np.float32([row[2:] for row in own]).reshape(-1, 5)
        images.append(ImageDetections(numbers, np.int32([row[1] for row in own])))
    return table_of(images)


def evaluate(dataset, rows):
    return evaluate_voc(dataset, voc_rows(dataset, detections(dataset, rows)))


def slow_iou(a, b):
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1 for i in range(2)]
    if min(sides) <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def slow_ap(truth, dets, threshold, eleven_points):
    """One class, one detection after the other. truth: (image, box, difficult); dets: (image,
    box, score) in data set order."""
    positives = sum(not difficult for _, _, difficult in truth)
    if not positives:
        return math.nan
    taken, curve, hits, total = set(), [(0.0, 0.0)], 0, 0
    for image, box, _ in sorted(dets, key=lambda det: -det[2]):
        best, best_iou = None, -1.0
        for number, (its_image, its_box, _) in enumerate(truth):
            if its_image == image and slow_iou(box, its_box) > best_iou:
                best, best_iou = number, slow_iou(box, its_box)
        if best is not None and best_iou > threshold:
            if truth[best][2]:
                continue
            hits += best not in taken
            taken.add(best)
        total += 1
        curve.append((hits / positives, hits / total))
    if eleven_points:
        points = [i * 0.1 for i in range(11)]
        return sum(max([p for r, p in curve if r >= t], default=0.0) for t in points) / 11
    area, last = 0.0, 0.0
    for recall, _ in curve:
        area += (recall - last) * max(p for r, p in curve if r >= recall)
        last = recall
    return area


def test_golden_vector():
    recall = np.array([0.2, 0.2, 0.4, 0.6, 0.6, 0.8])
    precision = np.array([1, 0.5, 2 / 3, 0.75, 0.6, 2 / 3])
    assert average_precision(recall, precision, eleven_points=True) == pytest.approx(
        0.659091, abs=1e-6
    )
    assert average_precision(recall, precision, eleven_points=False) == pytest.approx(
        0.633333, abs=1e-6
    )


def test_curves_without_points_and_perfect_ones():
    for eleven_points in (True, False):
        nothing = average_precision(np.zeros(0), np.zeros(0), eleven_points=eleven_points)
        perfect = average_precision(np.ones(1), np.ones(1), eleven_points=eleven_points)
        assert (nothing, perfect) == (0.0, 1.0)


box = st.tuples(*[st.integers(0, 30)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), box, st.booleans()), max_size=8),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), box, st.integers(1, 9)), max_size=14),
    st.sampled_from(["2007", "2012"]),
)
def test_against_a_slow_reference(objects, dets, year):
    dataset = make_dataset([(i, c, *b, d) for i, c, b, d in objects], year=year)
    report = evaluate(dataset, [(i, c, *b, s / 10) for i, c, b, s in dets])
    for index, name in enumerate(CLASSES[1:], start=1):
        truth = [(i, b, d) for i, c, b, d in objects if c == index]
        own = sorted(((i, b, s) for i, c, b, s in dets if c == index), key=lambda det: det[0])
        for threshold, ours in ((0.5, report.per_class), (0.7, report.per_class_70)):
            expected = slow_ap(truth, own, threshold, year == "2007")
            assert ours[name] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_a_match_must_exceed_the_threshold():
    dataset = make_dataset([(1, 1, 0, 0, 9, 9, 0)])
    assert evaluate(dataset, [(1, 1, 0, 0, 9, 4, 0.9)]).per_class["dog"] == 0  # IoU 0.5 exactly
    assert evaluate(dataset, [(1, 1, 0, 0, 9, 5, 0.9)]).per_class["dog"] == 1


def test_difficult_objects_count_neither_way():
    objects = [(1, 1, 0, 0, 9, 9, 1), (2, 1, 0, 0, 9, 9, 0), (3, 2, 0, 0, 9, 9, 1)]
    report = evaluate(make_dataset(objects), [(1, 1, 0, 0, 9, 9, 0.9), (2, 1, 0, 0, 9, 9, 0.5)])
    assert report.per_class["dog"] == 1
    assert math.isnan(report.per_class["cat"]) and report.map50 == 1


def test_a_second_hit_is_false():
    dataset = make_dataset([(1, 1, 0, 0, 9, 9, 0), (2, 1, 0, 0, 9, 9, 0)], year="2012")
    rows = [(1, 1, 0, 0, 9, 9, 0.9), (1, 1, 0, 0, 9, 9, 0.8), (2, 1, 0, 0, 9, 9, 0.7)]
    assert evaluate(dataset, rows).per_class["dog"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_equal_scores_keep_the_order_of_the_set():
    dataset = make_dataset([(1, 1, 0, 0, 9, 9, 0), (2, 1, 0, 0, 9, 9, 0)], year="2012")
    right = [(1, 1, 0, 0, 9, 9, 0.5), (2, 1, 0, 0, 9, 9, 0.5), (3, 1, 0, 0, 9, 9, 0.5)]
    assert evaluate(dataset, right).per_class["dog"] == 1
    # The scores are those of the files: three decimals.
    close = [(1, 1, 50, 50, 99, 99, 0.5), (2, 1, 0, 0, 9, 9, 0.5004), (1, 1, 0, 0, 9, 9, 0.5)]
    assert evaluate(dataset, close).per_class["dog"] == pytest.approx(0.5 * 2 / 3 + 0.5 * 2 / 3)


def test_only_the_images_of_the_set_count():
    dataset = make_dataset([(1, 1, 0, 0, 9, 9, 0), (3, 1, 0, 0, 9, 9, 0)])
    part = dataclasses.replace(dataset, records=dataset.records[:2])
    assert evaluate(part, [(1, 1, 0, 0, 9, 9, 0.9)]).per_class["dog"] == 1


def test_no_detections_at_all():
    report = evaluate(make_dataset([(1, 1, 0, 0, 9, 9, 0)]), [])
    assert report.map50 == report.map70 == 0
    assert math.isnan(evaluate(make_dataset([]), []).map50)


def test_sets_without_annotations_say_why(caplog):
    caplog.set_level("INFO")
    dataset = make_dataset([], has_annotations=False)
    assert evaluate(dataset, []) is None
    assert "is not evaluated" in caplog.text
    with pytest.raises(DataError, match="no Pascal VOC annotations"):
        evaluate(make_dataset([], truth=None), [])


def test_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="detections for 0 images"):
        voc_rows(make_dataset([]), detections(make_dataset([], images=0), []))


def test_files(tmp_path):
    dataset = make_dataset([])
    rows = [
        (2, 1, 0, 0, 9.26, 8, 0.98765),
        (1, 1, 3.04, 4, 5, 6, 0.5),
        (1, 1, 1, 1, 2, 2, 0.0004),
    ]
    folder = write_voc_results(tmp_path, dataset, voc_rows(dataset, detections(dataset, rows)))
    assert folder == tmp_path / "VOC2007" / "Main"
    assert sorted(path.name for path in folder.iterdir()) == [
        "comp4_det_test_cat.txt",
        "comp4_det_test_dog.txt",
    ]
    assert (folder / "comp4_det_test_dog.txt").read_text() == (
        "000001 0.500 4.0 5.0 6.0 7.0\n"
        "000001 0.000 2.0 2.0 3.0 3.0\n"
        "000002 0.988 1.0 1.0 10.3 9.0\n"
    )
    assert (folder / "comp4_det_test_cat.txt").read_text() == ""


def test_class_names_are_made_safe_for_file_names(tmp_path):
    names = ("__background__", "../../x", "a b", "a/b", "..")
    dataset = make_dataset([], class_names=names, category_ids=tuple(range(5)))
    folder = write_voc_results(tmp_path, dataset, voc_rows(dataset, detections(dataset, [])))
    files = sorted(path.name for path in folder.iterdir())
    assert len(files) == 4 and all(name.startswith("comp4_det_test_") for name in files)
    assert [path for path in tmp_path.rglob("*.txt") if path.parent != folder] == []


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "VOC2007").write_text("in the way")
    dataset = make_dataset([])
    with pytest.raises(TrainingError, match="could not be written"):
        write_voc_results(tmp_path, dataset, voc_rows(dataset, detections(dataset, [])))


def test_report(tmp_path):
    dataset = make_dataset([(1, 1, 0, 0, 9, 9, 0)])
    report = evaluate(dataset, [(1, 1, 0, 0, 9, 9, 0.9)])
    lines = report.table().splitlines()
    assert lines[0] == "PASCALVOC_2007_test: 3 images, AP (11 points) in percent"
    assert lines[2].split() == ["dog", "100.00", "100.00"]
    assert lines[3].split() == ["cat", "-", "-"]
    assert lines[4].split() == ["mean", "100.00", "100.00"]
    write_report(tmp_path / "r.json", dataset, report)
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["per_class"] == {"dog": 1.0, "cat": None} and content["metric"] == "11 points"


def test_from_files_to_average_precision(tmp_path):
    """A set on disk, read, detected perfectly but for one image, and evaluated."""
    folder = tmp_path / "VOC2012"
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    ids = [f"2008_{i:06d}" for i in range(4)]
    for i, name in enumerate(ids):
        cv2.imencode(".jpg", np.zeros((80, 100, 3), np.uint8))[1].tofile(
            folder / "JPEGImages" / f"{name}.jpg"
        )
        box = "<bndbox><xmin>{0}</xmin><ymin>{0}</ymin><xmax>{1}</xmax><ymax>{1}</ymax></bndbox>"
        (folder / "Annotations" / f"{name}.xml").write_text(
            "<annotation><size><width>100</width><height>80</height></size><object><name>dog</name>"
            f"{box.format(i, 40 + i)}<difficult>{int(i == 3)}</difficult></object></annotation>"
        )
    (folder / "ImageSets" / "Main" / "val.txt").write_text("\n".join(ids))
    dataset = load_dataset("PascalVOC", tmp_path, "12_val")
    assert [record.num_gt for record in dataset.records] == [1, 1, 1, 0]
    # One is missed; the difficult one counts for nothing.
    found = [(i + 1, 12, max(i - 1, 0), max(i - 1, 0), 39 + i, 39 + i, 0.9) for i in (0, 2, 3)]
    rows = voc_rows(dataset, detections(dataset, found))
    report = evaluate_voc(dataset, rows)
    assert report.metric == "area" and report.num_images == 4
    assert report.per_class["dog"] == pytest.approx(2 / 3)
    assert report.map50 == pytest.approx(2 / 3)
    path = write_voc_results(tmp_path, dataset, rows) / "comp4_det_val_dog.txt"
    assert path.read_text().splitlines()[1] == "2008_000002 0.900 2.0 2.0 42.0 42.0"

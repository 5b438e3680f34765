"""The Open Images metric: against a slow reference, and scenarios whose numbers are known."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from sniper.data.detections import DetectionTable
from sniper.data.openimages_tables import read_classes, read_hierarchy
from sniper.data.openimages_truth import ClassTree, TrueBoxes, Verified, read_openimages_truth
from sniper.errors import ConfigError, DataError
from sniper.evaluation import protocol_named
from sniper.evaluation.openimages import FoundBoxes, Limits, evaluate_classes
from sniper.tools.evaluate import main

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
    for row in detections:
        row["score"] = round(row["score"], 1)
    whole = fast_ap(above, boxes, verified, detections, 1.0)
    for size in (1, 3, 40):
        limits = Limits(size, size, size)
        found = fast_ap(above, boxes, verified, detections, 1.0, limits)
        np.testing.assert_array_equal(found, whole)


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


BOX_TITLES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf"
TREE = {
    "LabelName": "/m/0bl9f",
    "Subcategory": [
        {
            "LabelName": "/m/animal",
            "Subcategory": [{"LabelName": "/m/cat", "Part": [{"LabelName": "/m/tail"}]}],
        },
        {"LabelName": "/m/tail"},
        {"LabelName": "/m/pet", "Subcategory": [{"LabelName": "/m/cat"}]},
    ],
}
BY_BOX = "ImageID,LabelName,Score,XMin,XMax,YMin,YMax\n"


@pytest.fixture
def tables(tmp_path):
    """Two images with boxes, one with labels alone; the ids look like numbers."""
    folder = tmp_path / "truth"
    folder.mkdir()
    (folder / "class-descriptions-boxable.csv").write_text(
        '/m/cat,Cat\n/m/animal,Animal\n/m/pet,"Pet, tame"\n/m/tail,Tail\n'
    )
    (folder / "bbox_labels_600_hierarchy.json").write_text(json.dumps(TREE))
    rows = ["0001,x,/m/cat,1,0.0,0.5,0.0,1.0,0,0", "0002,x,/m/animal,1,0.5,1,0.5,1,0,1"]
    (folder / "val-annotations-bbox.csv").write_text("\n".join([BOX_TITLES, *rows]) + "\n")
    (folder / "val-annotations-human-imagelabels.csv").write_text(
        "ImageID,Source,LabelName,Confidence\n0003,v,/m/animal,0\n0001,v,/m/unboxable,1\n"
    )
    return folder


def evaluated(tables, results, *flags):
    out = tables.parent / "report.json"
    names = ["--truth", str(tables), "--results", str(results), "--out", str(out)]
    assert main(["--protocol", "openimages", *names, *flags]) == 0
    return json.loads(out.read_text())


def test_result_files_are_evaluated(tables, capsys):
    results = tables.parent / "found.csv"
    results.write_text(
        f"{BY_BOX}0001,/m/cat,0.9,0,0.5,0,1\n0003,/m/cat,0.95,0,1,0,1\n0002,/m/cat,0.8,0.6,0.9,0.6,1\n"
    )
    report = evaluated(tables, results)
    shown = capsys.readouterr().out
    assert "Pet, tame" in shown and "Tail" not in shown
    # A wrong cat in an image without animals. The cat in the group of animals is an animal there.
    aps = {name: c["ap"] for name, c in report["classes"].items()}
    assert aps == {"Cat": 0.5, "Animal": pytest.approx(2 / 3), "Pet, tame": 1.0, "Tail": None}
    assert report["mAP"] == report["mAP_group_weight_1"] == pytest.approx((0.5 + 2 / 3 + 1) / 3)
    assert report["mAP_group_weight_0"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    # As annotated nobody looked for cats in the third image, and the group of animals is missed.
    assert report["mAP_flat_group_weight_1"] == pytest.approx((1 + 0) / 2)
    assert report["mAP_flat_group_weight_0"] == 1.0


def test_a_submission_is_written_and_read_back(tables):
    dataset = read_openimages_truth(tables, None)
    assert [r.original_id for r in dataset.records] == ["0001", "0002", "0003"]
    rows = np.array([[0.1, -0.5, 0.25, -0.25, 0.9], [0.2, 0.3, 0.4, 0.5, 0.7]], np.float32)
    table = DetectionTable(np.array([0, 0, 2, 2]), rows, np.array([1, 3], np.int32))
    protocol = protocol_named("openimages")
    protocol.write(tables.parent, dataset, table)
    path = protocol.results_path(tables.parent, dataset)
    assert path.read_text().splitlines()[:3] == [
        "ImageId,PredictionString",
        "0001,",
        "0002,/m/cat 0.900000 0.100000 -0.500000 1.250000 0.750000 "
        "/m/pet 0.700000 0.200000 0.300000 1.400000 1.500000",
    ]
    read = protocol.read(path, dataset)
    assert read.offsets.tolist() == [0, 0, 2, 2] and read.classes.tolist() == [1, 3]
    np.testing.assert_allclose(read.rows, rows, atol=1e-6)
    whole, files = protocol.evaluate(dataset, table), protocol.evaluate_files
    assert files(dataset, path, leave_out_unknown=False).report.as_dict() == whole.as_dict()


def test_what_is_unknown_or_broken_is_told(tables, capsys):
    results = tables.parent / "found.csv"
    names = ["--protocol", "openimages", "--truth", str(tables), "--results", str(results)]
    for text, said in (
        (f"{BY_BOX}0009,/m/cat,0.9,0,1,0,1\n", "image 0009 (1)"),
        (f"{BY_BOX}0001,/m/dog,0.9,0,1,0,1\n", "class /m/dog (1)"),
        (f"{BY_BOX}0001,/m/cat,high,0,1,0,1\n", "high"),
        (f"{BY_BOX}0001,/m/cat,0.9,0,nan,0,1\n", "detection 1"),
        ("ImageId,PredictionString\n0001,/m/cat 0.9 0 0 1\n", "5 words"),
        ("a,b\n1,2\n", "expected: a CSV file with the columns ImageId,PredictionString or"),
    ):
        results.write_text(text)
        assert main(names) == 3
        assert said in capsys.readouterr().err
    results.write_text(f"{BY_BOX}0009,/m/cat,0.9,0,1,0,1\n0001,/m/cat,0.9,0,0.5,0,1\n")
    assert evaluated(tables, results, "--ignore-unknown")["left_out"] == 1


def test_missing_tables_and_columns_are_told(tables, caplog, capsys):
    boxes = tables / "val-annotations-bbox.csv"
    text = boxes.read_text()
    boxes.write_text(
        text.replace(",IsGroupOf", "").replace(",0,1\n", ",0\n").replace(",0,0\n", ",0\n")
    )
    (tables / "val-annotations-human-imagelabels.csv").unlink()
    (tables / "bbox_labels_600_hierarchy.json").unlink()
    truth = read_openimages_truth(tables, None).truth
    assert truth.tree is None and not truth.groups_known and not truth.boxes.groups.any()
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 3 and "no box is taken for one of a group" in caplog.text
    boxes.write_text(text.replace("/m/animal", "/m/dog"))
    with pytest.raises(DataError, match="1 boxes of /m/dog"):
        read_openimages_truth(tables, None)
    boxes.write_text(text.replace("XMin", "Left"))
    with pytest.raises(DataError, match="no column XMin"):
        read_openimages_truth(tables, None)
    boxes.unlink()
    with pytest.raises(DataError, match="the set has no boxes"):
        read_openimages_truth(tables, None)


def test_several_sets_must_be_named(tables):
    boxes = tables / "val-annotations-bbox.csv"
    shutil.copy(boxes, tables / "oidv6-train-annotations-bbox.csv")
    with pytest.raises(ConfigError, match="train, val"):
        read_openimages_truth(tables, None)
    assert read_openimages_truth(tables, "train").image_set == "train"
    with pytest.raises(DataError, match="expected: test-annotations-bbox.csv"):
        read_openimages_truth(tables, "test")


def test_without_pandas_the_extra_is_named(tables, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"sniper-mxnet\[openimages\]"):
        read_openimages_truth(tables, None)


def test_the_official_hierarchy(openimages):
    folder = openimages / "annotations"
    classes = read_classes(folder / "class-descriptions-boxable.csv")
    above = read_hierarchy(folder / "bbox_labels_600_hierarchy.json")
    assert len(classes.ids) == 601 and set(above) == set(classes.ids)
    assert classes.names[0] == "Tortoise" and classes.names[600] == "Helmet"
    names = dict(zip(classes.ids, classes.names))
    cat = classes.ids[classes.names.index("Cat")]
    assert {names[name] for name in above[cat]} == {"Animal", "Mammal", "Carnivore"}

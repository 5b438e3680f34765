"""ILSVRC DET: numbers against a slow reference, files of submissions, the development kit."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
import tarfile

import numpy as np
import pytest

from sniper.data import Record
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.detections import ImageDetections, table_of
from sniper.data.ilsvrc import IlsvrcTruth, read_kit
from sniper.data.ilsvrc_set import read_ilsvrc_truth
from sniper.data.matlab import read_matlab
from sniper.errors import ConfigError, DataError
from sniper.evaluation import evaluate_ilsvrc, protocol_of
from sniper.evaluation.ilsvrc_rows import IlsvrcRows, ilsvrc_rows
from sniper.tools.evaluate import main
from tests.evaluation.det_kit import annotation, matlab_file, write_kit

NUM_CLASSES = 4


def record(number, boxes=(), classes=()):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.array(classes, np.int32)
    return Record(
        f"{number}.JPEG", number, 300, 300, False, boxes, classes, np.ones(len(boxes), bool)
    )


def make_set(objects, *, images, listed=50, blacklist=(), evaluated_as=None, first_px=0):
    """objects: (image, class, x1, y1, x2, y2)"""
    table = np.array(sorted(objects), np.float64).reshape(-1, 6)
    numbers = np.arange(1, NUM_CLASSES + 1) * 10  # ids in files are not places
    if evaluated_as is None:
        evaluated_as = np.arange(NUM_CLASSES + 1)
    names = (BACKGROUND, *(f"own {i}" for i in range(1, len(evaluated_as))))
    return Dataset(
        name="ILSVRC_val",
        image_set="val",
        class_names=names,
        category_ids=tuple(range(len(names))),
        records=tuple(map(record, images)),
        annotation_path="x",
        has_annotations=True,
        protocol="ilsvrc",
        truth=IlsvrcTruth(
            class_names=tuple(f"det {i}" for i in range(1, NUM_CLASSES + 1)),
            class_numbers=numbers,
            evaluated_as=np.array(evaluated_as, np.int32),
            listed=np.arange(1, listed + 1),
            image_ids=table[:, 0].astype(np.int64),
            classes=table[:, 1].astype(np.int32),
            boxes=table[:, 2:],
            blacklist=np.array(blacklist, np.int64).reshape(-1, 2),
            first_px=first_px,
        ),
    )


def rows_of(detections):
    """detections: (image, class, score, x1, y1, x2, y2)"""
    table = np.array(detections, np.float64).reshape(-1, 7)
    return IlsvrcRows(
        table[:, 0].astype(np.int64), table[:, 1].astype(np.int32), table[:, 2], table[:, 3:]
    )


def slow_ap(objects, detections, images, blacklist, index, *, own_threshold=True):
    """One class, detection by detection, as the development kit counts."""
    positives = [o for o in objects if o[1] == index and (o[0], index) not in blacklist]
    if not positives:
        return math.nan
    rows = [d for d in detections if d[1] == index and d[0] in images]
    rows = [d for d in rows if (d[0], index) not in blacklist]
    used, hits, area, best_recall, points = set(), 0, 0.0, 0.0, []
    for count, d in enumerate(sorted(rows, key=lambda d: -d[2]), start=1):
        best, best_iou = None, -1.0
        for place, (image, _, x1, y1, x2, y2) in enumerate(positives):
            if image != d[0] or place in used:
                continue
            width = min(x2, d[5]) - max(x1, d[3]) + 1
            height = min(y2, d[6]) - max(y1, d[4]) + 1
            inter = max(width, 0) * max(height, 0)
            w, h = x2 - x1 + 1, y2 - y1 + 1
            iou = inter / (w * h + (d[5] - d[3] + 1) * (d[6] - d[4] + 1) - inter)
            least = min(0.5, w * h / ((w + 10) * (h + 10))) if own_threshold else 0.5
            if iou >= least and iou > best_iou:
                best, best_iou = place, iou
        if best is not None:
            used.add(best)
            hits += 1
        points.append((hits / len(positives), hits / count))
    for recall in sorted({recall for recall, _ in points}):
        area += (recall - best_recall) * max(p for r, p in points if r >= recall)
        best_recall = recall
    return area


def random_case(seed):
    rng = np.random.default_rng(seed)
    images = rng.permutation(49)[:12] + 1
    objects, detections = [], []
    for image in images.tolist():
        for _ in range(int(rng.integers(0, 9))):
            x, y = rng.integers(0, 60, 2)
            w, h = rng.integers(2, 40, 2)
            box = (int(rng.integers(1, NUM_CLASSES)), x, y, x + w, y + h)
            objects.append((image, *map(int, box)))
    for image, index, *box in objects:
        for _ in range(int(rng.integers(0, 3))):
            near = np.array(box) + rng.integers(-5, 6, 4)
            near[2:] = np.maximum(near[2:], near[:2])
            score = float(rng.choice([0.5, rng.random()]))
            detections.append((image, index, score, *near.tolist()))
    detections.append((50, 1, 0.9, 0, 0, 9, 9))  # listed, not annotated
    detections.append((int(images[0]), 1, 0.9, 0, 0, 9, 9))  # blacklisted
    order = rng.permutation(len(detections))
    return images.tolist(), objects, [detections[i] for i in order]


@pytest.mark.parametrize("seed", range(6))
def test_numbers_equal_a_slow_reference(seed):
    images, objects, detections = random_case(seed)
    blacklist = [(images[0], 1), (images[1], 2), (images[2], 3)]
    dataset = make_set(objects, images=images, blacklist=blacklist)
    report = evaluate_ilsvrc(dataset, rows_of(detections))
    aps = []
    for index in range(1, NUM_CLASSES + 1):
        of_class = report.classes[f"det {index}"]
        for name, own in (("ap", True), ("ap50", False)):
            expected = slow_ap(objects, detections, images, blacklist, index, own_threshold=own)
            np.testing.assert_allclose(getattr(of_class, name), expected, rtol=0, atol=1e-12)
        aps.append(of_class.ap)
    assert math.isnan(aps[-1]) and not math.isnan(aps[0])
    assert abs(report.mean_ap - np.nanmean(aps)) < 1e-12
    assert report.mean_ap != report.mean_ap50  # the rule for small objects tells here
    assert report.not_annotated >= 1 and report.blacklisted >= 1
    assert report.num_detections + report.not_annotated + report.blacklisted == len(detections)


def test_the_best_object_whose_own_threshold_is_met_is_found():
    # IoU 0.45 with the large object, which asks for 0.5; 0.3 with the small one, which asks less.
    large, small = (1, 1, 0, 0, 99, 44), (1, 1, 0, 0, 9, 2)
    detection = (1, 1, 0.9, 0, 0, 9, 9)
    dataset = make_set([large, small], images=[1])
    report = evaluate_ilsvrc(dataset, rows_of([detection]))
    assert report.classes["det 1"].ap == 0.5 and report.classes["det 1"].ap50 == 0
    # Another one on the same object is false, as those in front of it are.
    elsewhere = (1, 1, 0.95, 50, 50, 60, 60)
    report = evaluate_ilsvrc(dataset, rows_of([elsewhere, detection] * 2))
    assert abs(report.classes["det 1"].ap - 0.5 / 3) < 1e-12


@pytest.mark.parametrize("first_px", [0, 1])
def test_what_is_written_is_read_and_evaluated(tmp_path, first_px):
    images, objects, detections = random_case(3)
    dataset = make_set(objects, images=sorted(images), first_px=first_px)
    by_image = {image: [] for image in sorted(images)}
    for image, index, score, *box in detections:
        if image in by_image:
            by_image[image].append((index, -score, *box))
    table = table_of(
        [
            ImageDetections(
                np.array([[*b, -s] for _, s, *b in sorted(rows)], np.float32).reshape(-1, 5),
                np.array([index for index, *_ in sorted(rows)], np.int32),
            )
            for rows in by_image.values()
        ]
    )
    protocol = protocol_of(dataset)
    protocol.write(tmp_path, dataset, table)
    path = protocol.results_path(tmp_path, dataset)
    first, row = path.read_text().splitlines()[0], table.rows[0]
    expected = [sorted(images)[int(table.image_of_row[0])], 10 * table.classes[0]]
    corners = [f"{v:.6f}" for v in (row[:4].astype(float) + first_px)]
    assert first.split() == [*map(str, expected), f"{row[4]:.6f}", *corners]
    report = protocol.evaluate(dataset, table)
    from_file = protocol.evaluate_files(dataset, path, leave_out_unknown=False).report
    assert dataclasses.asdict(report) == dataclasses.asdict(from_file) and report.mean_ap > 0.2
    read = protocol.read(path, dataset)
    np.testing.assert_array_equal(read.offsets, table.offsets)
    np.testing.assert_array_equal(read.classes, table.classes)
    np.testing.assert_allclose(read.rows, table.rows, atol=1e-6)


def test_fine_classes_count_as_what_the_table_says(tmp_path):
    # Own classes 1 and 3 are class 2 of the challenge, 2 is none; classes 1, 3 and 4 nobody has.
    dataset = make_set(
        [(1, 2, 10, 10, 59, 59), (1, 1, 100, 100, 159, 159)],
        images=[1],
        evaluated_as=[0, 2, 0, 2],
        first_px=1,
    )
    box = [9, 9, 58, 58, 0.5]  # counted from 0
    rows = np.array([box, box, [*box[:4], 0.9], [*box[:4], 0.0009]], np.float32)
    table = table_of([ImageDetections(rows, np.array([1, 2, 3, 3], np.int32))])
    found = ilsvrc_rows(dataset, table)
    assert found.classes.tolist() == [2, 2] and found.boxes[0].tolist() == [10, 10, 59, 59]
    report = protocol_of(dataset).evaluate(dataset, table)
    assert report.classes["det 2"].ap == 1 and report.classes["det 1"].ap == 0
    assert report.mean_ap == 0.5 and report.mean_ap_known == 1 and report.num_known == 1
    assert "1 classes of the model: 100.00" in report.table()
    protocol_of(dataset).write(tmp_path, dataset, table)
    with pytest.raises(DataError, match="do not tell the classes"):
        protocol_of(dataset).read(protocol_of(dataset).results_path(tmp_path, dataset), dataset)


IMAGES = {
    "a": [("n01", 0, 0, 49, 49), ("n02", 60, 0, 109, 49)],
    "b": [("n02", 0, 0, 49, 49)],
    "c": [],
    "d": None,
}


@pytest.fixture
def kit(tmp_path):
    lists = {"val_small": ["c", "a", "b"], "val_less": ["b"]}
    return write_kit(tmp_path / "kit", IMAGES, lists=lists, blacklist=[(2, "n02"), (2, "n9")])


def test_a_kit_and_its_annotations_are_a_set(kit):
    dataset = read_ilsvrc_truth(kit)
    assert dataset.name == "ILSVRC_val_small"  # the longest list that has all annotations
    assert [r.image_id for r in dataset.records] == [1, 2, 3]  # numbers of val.txt
    assert dataset.class_names == (BACKGROUND, "ant", "dog")
    assert dataset.truth.listed.tolist() == [1, 2, 3, 4] and dataset.truth.blacklist.tolist() == [
        [2, 2]
    ]
    assert dataset.truth.boxes.tolist()[1] == [60, 0, 109, 49]  # as written
    assert read_ilsvrc_truth(kit, "val_less").records[0].image_id == 2
    assert read_kit(kit).descendants[2] == {"n02", "n03", "n04", "n05"}
    with pytest.raises(DataError, match=r"1 of 4 images have no annotation file(.|\n)*d\.xml"):
        read_ilsvrc_truth(kit, "val")
    with pytest.raises(ConfigError, match="no such list"):
        read_ilsvrc_truth(kit, "vall")


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_annotations_are_read_from_an_archive(kit, kind):
    folder = kit.parent / "ILSVRC2013_DET_val_bbox"
    path = kit / f"bbox.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as archive:
        for name in ("a", "b", "c"):
            content = (folder / f"{name}.xml").read_bytes()
            member = tarfile.TarInfo(f"some/where/{name}.xml")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            (folder / f"{name}.xml").unlink()
    assert read_ilsvrc_truth(kit).truth.image_ids.tolist() == [1, 1, 2]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="archive is broken|have no annotation file"):
        read_ilsvrc_truth(kit)
    path.write_bytes(content[:30] + bytes(len(content) - 30))
    with pytest.raises(DataError, match="archive is broken"):
        read_ilsvrc_truth(kit)


@pytest.mark.parametrize(
    "line, message",
    [
        ("5 1 0.5 0 0 9 9", "image 5 (1)"),
        ("1 3 0.5 0 0 9 9", "class 3 (1)"),
        ("1.5 1 0.5 0 0 9 9", "image 1.5 (1)"),
        ("1 1 0.5 0 0 9", "line 3"),
        ("1 1 nan 0 0 9 9", "line 3"),
    ],
)
def test_the_command_refuses_what_is_of_another_set(kit, line, message, capsys):
    results, out = kit.parent / "results.txt", kit.parent / "report.json"
    good = "1 1 0.9 0 0 49 49\n4 1 0.8 0 0 9 9\n"  # the second one's image is not annotated
    flags = ["--protocol", "ilsvrc", "--truth", str(kit), "--results", str(results)]
    results.write_text(good)
    assert main([*flags, "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["mAP"] == 0.5 and report["not_annotated"] == 1  # dog: nothing is found
    assert report["num_objects"] == 2  # the dog of the blacklisted image is none
    results.write_text(f"{good}{line}\n")
    capsys.readouterr()
    assert main([*flags, "--out", str(out)]) == 3
    assert message in capsys.readouterr().err
    if "line" not in message:
        assert main([*flags, "--ignore-unknown", "--out", str(out)]) == 0
        assert json.loads(out.read_text())["left_out"] == 1


def test_matlab_files_are_read_or_refused(tmp_path):
    path = tmp_path / "x.mat"
    entries = [{"a": "word", "b": [1, 2, 3]}, {"a": "", "b": []}]
    for compressed in (True, False):
        path.write_bytes(matlab_file({"s": entries}, compressed=compressed))
        first, second = read_matlab(path)["s"]
        assert first["a"] == "word" and first["b"].tolist() == [1, 2, 3]
        assert len(second["a"]) == 0 and second["b"].size == 0
    for cut in (100, 140, len(path.read_bytes()) - 9):
        path.write_bytes(matlab_file({"s": entries}, compressed=False)[:cut])
        with pytest.raises(DataError, match="MATLAB file cannot be read"):
            read_matlab(path)


def test_without_scipy_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ConfigError, match=r"sniper-mxnet\[matlab\]"):
        read_matlab(tmp_path / "x.mat")


def test_the_demo_predictions_reach_the_official_number(imagenet_det, tmp_path):
    out = tmp_path / "report.json"
    results = imagenet_det / "evaluation" / "demo.val.pred.det.txt"
    flags = ["--truth", str(imagenet_det), "--results", str(results), "--out", str(out)]
    assert main(["--protocol", "ilsvrc", *flags]) == 0
    report = json.loads(out.read_text())
    assert abs(report["mAP"] - 0.6017) < 1e-4 and abs(report["mAP_50"] - 0.5933) < 1e-4
    assert report["num_images"] == 9917 and report["not_annotated"] == 25423


def test_annotation_is_broken(kit):
    (kit.parent / "ILSVRC2013_DET_val_bbox" / "a.xml").write_text(annotation([("", 0, 0, 1, 1)]))
    with pytest.raises(DataError, match=r"object 1 has no <name>(.|\n)*a\.xml"):
        read_ilsvrc_truth(kit)

"""The Open Images protocol: its files, what they miss, and reports whose numbers are known."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pandas
import pytest

from sniper.data.detections import DetectionTable
from sniper.data.openimages_tables import read_classes, read_hierarchy
from sniper.data.openimages_truth import read_openimages_truth
from sniper.errors import ConfigError, DataError
from sniper.evaluation import openimages_files, protocol_named
from sniper.tools.evaluate import main
from tests.evaluation.openimages_cases import iou, row, slow_ap

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
    assert len(said) == 3 and sum("IsGroupOf" in text for text in said) == 1
    assert "no box is taken for one of a group" in caplog.text
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


def test_a_pandas_that_reads_ids_as_numbers_is_refused(tables, monkeypatch):
    monkeypatch.setattr(pandas, "__version__", "3.0.1")
    with pytest.raises(ConfigError, match="0012 for 12"):
        read_openimages_truth(tables, None)


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
    # By the letter: whatever a chain of Subcategory leads to, whichever way, but the root.
    parents: dict[str, set[str]] = {}
    parts = set()

    def walk(node):
        for child in node.get("Subcategory", ()):
            parents.setdefault(child["LabelName"], set()).add(node["LabelName"])
            walk(child)
        parts.update((part["LabelName"], node["LabelName"]) for part in node.get("Part", ()))

    def ancestors(name):
        return {name}.union(*(ancestors(parent) for parent in parents.get(name, ())))

    walk(json.loads((folder / "bbox_labels_600_hierarchy.json").read_text()))
    for name, wider in above.items():
        assert wider == ancestors(name) - {name, "/m/0bl9f"}
    assert sum(len(wider) > 1 for wider in parents.values()) > 1
    assert any(whole not in ancestors(part) for part, whole in parts)


@pytest.mark.parametrize("by_image", [False, True])
def test_ties_are_those_of_the_shares_as_they_are_written(tables, by_image, monkeypatch):
    """Each detection is twice as wide as its box: IoU 0.5, or a bit less by the rounding."""
    rng = np.random.default_rng(5)
    corners = rng.integers(0, 300_000, (200, 2))
    sides = rng.integers(20_000, 300_000, (200, 2))
    scores = rng.permutation(200) / 1000
    boxes, results, truth, detections = [BOX_TITLES], [BY_BOX.strip()], [], []
    for image, ((x, y), (w, h), score) in enumerate(zip(corners, sides, scores)):
        x1, y1, x2, far, y2 = (f"{v / 1e6:.6f}" for v in (x, y, x + w, x + 2 * w, y + h))
        boxes.append(f"{image:04},x,/m/tail,1,{x1},{x2},{y1},{y2},0,0")
        results.append(f"{image:04},/m/tail,{score},{x1},{far},{y1},{y2}")
        if by_image:
            results[-1] = f"{image:04},/m/tail {score} {x1} {y1} {far} {y2}"
        truth.append(row(0, [float(t) for t in (x1, y1, x2, y2)], image=image))
        detections.append(row(0, [float(t) for t in (x1, y1, far, y2)], score, image=image))
    if by_image:
        results[0] = "ImageId,PredictionString"
    (tables / "val-annotations-bbox.csv").write_text("\n".join(boxes) + "\n")
    path = tables.parent / "found.csv"
    path.write_text("\n".join(results) + "\n")
    overlaps = [iou(d["box"], t["box"])[0] for d, t in zip(detections, truth)]
    assert 20 < sum(overlap < 0.5 for overlap in overlaps) < 180
    expected = slow_ap([()], truth, [], detections, 1)[0]
    assert evaluated(tables, path)["classes"]["Tail"]["ap"] == pytest.approx(expected, abs=1e-9)
    # However many lines are read at once.
    monkeypatch.setattr(openimages_files, "_LINES_BY_IMAGE", 3)
    monkeypatch.setattr(openimages_files, "_LINES_BY_BOX", 3)
    assert evaluated(tables, path)["classes"]["Tail"]["ap"] == pytest.approx(expected, abs=1e-9)

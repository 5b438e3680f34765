from __future__ import annotations

import json

from sniper.data.dataset import Dataset
from sniper.evaluation import CocoReport, reason_not_evaluated, write_report
from sniper.evaluation.report import ClassNumbers

NAN = float("nan")


def make_report(per_class):
    numbers = {
        "ap": 0.1234,
        "ap50": 1.0,
        "ap75": 0.0,
        "ap_small": NAN,
        "ap_medium": 0.5,
        "ap_large": 0.999,
        **{f"ar_{kind}": 0.25 for kind in ("1", "10", "100", "small", "medium", "large")},
    }
    classes = {name: ClassNumbers(7, ap, 0.75, 0.25) for name, ap in per_class.items()}
    sizes = {"all": 12, "small": 0, "medium": 5, "large": 7}
    return CocoReport(
        dataset="COCO_x",
        num_images=3,
        classes=classes,
        num_objects=sizes,
        num_detections=99,
        evaluator="somebody 1.2",
        **numbers,
    )


def make_dataset(has_annotations):
    return Dataset(
        name="COCO_x",
        image_set="x",
        class_names=("__background__", "cat"),
        category_ids=(0, 1),
        records=(),
        annotation_path="x.json",
        has_annotations=has_annotations,
    )


def test_table_is_aligned_and_in_percent():
    names = ["a", "a long name", "b", "c", "d"]
    lines = make_report(dict.fromkeys(names, 0.5) | {"c": NAN}).table().splitlines()
    assert lines[0] == "COCO_x: 3 images, box AP in percent"
    assert lines[1].split() == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR"]
    assert lines[2].split() == ["12.3", "100.0", "0.0", "-", "50.0", "99.9", "25.0"]
    assert len(lines[1]) == len(lines[2])
    assert [line.split()[-3:] for line in lines[5:8]] == [
        ["0", "-", "25.0"],
        ["5", "50.0", "25.0"],
        ["7", "99.9", "25.0"],
    ]
    assert lines[8] == "AR with 1 / 10 / 100 detections an image: 25.0 / 25.0 / 25.0"
    assert lines[-1] == "99 detections, by somebody 1.2"
    classes = lines[11:-1]
    assert len({line.index("|") for line in [lines[10], *classes[:2]]}) == 1
    shown = "|".join(classes).split("|")
    assert sorted(cell.strip().rsplit(None, 4)[0] for cell in shown) == sorted(names)
    assert [cell.split()[1:] for cell in shown if cell.strip().startswith("c")] == [
        ["7", "-", "75.0", "25.0"]
    ]


def test_of_thousands_of_classes_the_best_and_the_worst_are_shown():
    per_class = {f"class{i}": i / 3130 if i % 2 else NAN for i in range(3130)}
    report = make_report(per_class)
    lines = report.table().splitlines()
    assert "of 3130; all are in the report" in lines[10]
    shown = [cell.split()[0] for line in lines[12:-1] for cell in line.split("|")]
    best, worst = ([f"class{i}" for i in r] for r in (range(3129, 3090, -2), range(39, 0, -2)))
    assert sorted(shown) == sorted([*best, *worst])
    assert len(report.as_dict()["classes"]) == 3130


def test_dict_is_strict_json_and_complete():
    content = make_report({"cat": 0.5, "dog": NAN}).as_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["ap"] == 0.1234 and content["ap_small"] is None
    assert content["per_class"] == {"cat": 0.5, "dog": None}
    assert content["classes"]["dog"] == {"objects": 7, "ap": None, "ap50": 0.75, "ar": 0.25}
    assert content["evaluator"] == "somebody 1.2" and content["num_objects"]["all"] == 12
    assert {"dataset", "num_images", "ar_100", "ap75"} <= set(content)


def test_numbers_or_the_reason_are_saved(tmp_path):
    path = tmp_path / "out" / "report.json"
    report = make_report({"cat": 0.5})
    write_report(path, make_dataset(True), report)
    assert json.loads(path.read_text()) == report.as_dict()
    write_report(path, make_dataset(False), None)
    assert json.loads(path.read_text()) == {
        "dataset": "COCO_x",
        "not_evaluated": "COCO_x is not evaluated: x.json has no annotations",
    }


def test_reason():
    assert reason_not_evaluated(make_dataset(True)) is None
    assert "no annotations" in reason_not_evaluated(make_dataset(False))

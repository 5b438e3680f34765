"""`sniper evaluate`: result files of any detector, against the evaluators' own numbers."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sniper.data.coco import read_coco_truth
from sniper.data.rle import decompressed_runs
from sniper.data.voc import read_voc_truth
from sniper.evaluation import evaluate_voc, protocol_named
from sniper.evaluation.voc_files import VocRows
from sniper.tools.evaluate import main

LIB = Path(__file__).resolve().parents[2] / "lib"
FIELDS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar_100")
CATEGORIES = [{"id": 9, "name": "kite"}, {"id": 4, "name": "ant"}, {"id": 70, "name": "bee"}]


def random_box(rng):
    x, y = rng.uniform(0, 300, 2)
    return [x, y, *rng.uniform(5, 180, 2)]


@pytest.fixture
def coco_case(tmp_path):
    """Random objects and near misses of them, with more decimals than our own files have."""
    rng = np.random.default_rng(3)
    images = [{"id": i, "width": 500, "height": 480} for i in rng.permutation(1000)[:20].tolist()]
    truth, found = [], []
    for image in images:
        for _ in range(int(rng.integers(0, 8))):
            box = random_box(rng)
            category = CATEGORIES[int(rng.integers(3))]["id"]
            truth.append(
                {"id": len(truth) + 1, "image_id": image["id"], "category_id": category}
                | {"bbox": box, "area": box[2] * box[3], "iscrowd": int(rng.random() < 0.1)}
            )
            for _ in range(int(rng.integers(0, 4))):
                near = (np.array(box) + rng.normal(0, 6, 4)).clip(1).tolist()
                found.append(
                    {"image_id": image["id"], "category_id": category, "bbox": near}
                    | {"score": float(rng.choice([0.5, rng.random()]))}
                )
        found.append(
            {"image_id": image["id"], "category_id": 4, "bbox": random_box(rng), "score": 0.3}
        )
    order = rng.permutation(len(found))
    return CocoCase(tmp_path, images, truth, [found[i] for i in order])


class CocoCase:
    def __init__(self, folder, images, truth, found):
        self.content = {"images": images, "annotations": truth, "categories": CATEGORIES}
        self.found = found
        self.truth = folder / "instances_x.json"
        self.results = folder / "results.json"
        self.report = folder / "out" / "report.json"

    def run(self, *more):
        self.truth.write_text(json.dumps(self.content))
        self.results.write_text(json.dumps(self.found))
        return main(
            ["--protocol", "coco", "--truth", str(self.truth), "--results", str(self.results)]
            + ["--out", str(self.report), *more]
        )

    def numbers(self):
        return json.loads(self.report.read_text())

    def reference(self, kind="bbox"):
        """The statistics that pycocotools itself reads from the two files."""
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(self.truth))
            evaluator = COCOeval(truth, truth.loadRes(str(self.results)), kind)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        return evaluator.stats.tolist()


def test_the_numbers_are_those_of_pycocotools(coco_case, capsys):
    assert coco_case.run() == 0
    numbers, reference = coco_case.numbers(), coco_case.reference()
    ours = [-1 if numbers[name] is None else numbers[name] for name in FIELDS]
    assert ours == pytest.approx(reference[: len(FIELDS)], abs=1e-9)
    assert 0.05 < reference[0] < 0.95
    assert numbers["dataset"] == "COCO_x" and numbers["num_detections"] == len(coco_case.found)
    assert "box AP in percent" in capsys.readouterr().out


def run_lengths(polygons):
    mask = coco_mask.frPyObjects(polygons, 480, 500)[0]
    return mask | {"counts": mask["counts"].decode()}


def test_masks_are_evaluated_where_all_detections_have_them(coco_case):
    for entry in [*coco_case.content["annotations"], *coco_case.found]:
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h * 0.7, x, y + h]]
    for entry in coco_case.content["annotations"]:
        if entry["iscrowd"]:
            entry["segmentation"] = run_lengths(entry["segmentation"])
    polygons = [entry["segmentation"] for entry in coco_case.found]
    # pycocotools takes no polygons, and the boxes' sizes where results have boxes.
    for entry in coco_case.found:
        entry["segmentation"] = run_lengths(entry["segmentation"])
    boxes = [entry.pop("bbox") for entry in coco_case.found]
    assert coco_case.run() == 0
    numbers, reference = coco_case.numbers(), coco_case.reference("segm")
    ours = [-1 if numbers["masks"][name] is None else numbers["masks"][name] for name in FIELDS]
    assert ours == pytest.approx(reference[: len(FIELDS)], abs=1e-9)
    for entry, polygon in zip(coco_case.found[::2], polygons[::2]):
        entry["segmentation"] = polygon
    assert coco_case.run() == 0
    assert coco_case.numbers() == numbers
    for entry, box in zip(coco_case.found, boxes):
        entry["bbox"] = box
    del coco_case.found[0]["segmentation"]
    assert coco_case.run() == 0
    assert "masks" not in coco_case.numbers()


def test_our_own_files_give_the_report_of_the_test_run(coco_case, tmp_path):
    assert coco_case.run() == 0
    dataset, protocol = read_coco_truth(coco_case.truth), protocol_named("coco")
    table = protocol.read(coco_case.results, dataset)
    protocol.write(tmp_path / "ours", dataset, table)
    path = protocol.results_path(tmp_path / "ours", dataset)
    again = protocol.evaluate_files(dataset, path, leave_out_unknown=False)
    assert again.report.as_dict() == protocol.evaluate(dataset, table).as_dict()


def test_annotations_that_were_numbered_anew_are_matched_by_name(coco_case, caplog):
    coco_case.results = coco_case.results.with_name("detections_x_results.json")
    beside = coco_case.results.with_name("detections_x_report.json")
    assert coco_case.run() == 0
    before = json.loads(coco_case.report.read_text())
    beside.write_text(json.dumps({"categories": CATEGORIES}))
    coco_case.run()
    assert "matched by the names" not in caplog.text
    new_ids = {9: 4, 4: 70, 70: 9}
    turned = [{**c, "id": new_ids[c["id"]]} for c in CATEGORIES]
    objects = [
        {**o, "category_id": new_ids[o["category_id"]]} for o in coco_case.content["annotations"]
    ]
    coco_case.content |= {"categories": turned, "annotations": objects}
    assert coco_case.run() == 0 and "matched by the names" in caplog.text
    after = json.loads(coco_case.report.read_text())
    assert after["per_class"] == before["per_class"] and before["per_class"]["kite"] > 0
    # Without the report nothing tells that the numbers changed their meaning.
    beside.unlink()
    coco_case.run()
    assert json.loads(coco_case.report.read_text())["per_class"] != before["per_class"]


def test_unknown_images_and_categories_are_counted(coco_case, capsys):
    known = list(coco_case.found)
    coco_case.found += [known[0] | {"image_id": 5000}] * 3 + [known[0] | {"category_id": 1}] * 2
    coco_case.found.append(known[0] | {"image_id": None})
    assert coco_case.run() == 3
    shown = capsys.readouterr().err
    total = len(coco_case.found)
    assert f"6 of {total} detections belong to no image or category of COCO_x" in shown
    assert "image 5000 (3), category 1 (2), image None (1)" in shown
    assert not coco_case.report.exists()
    assert coco_case.run("--ignore-unknown") == 0
    with_them = coco_case.numbers()
    assert with_them.pop("left_out") == 6
    coco_case.found = known
    assert coco_case.run() == 0
    assert coco_case.numbers() == with_them


@pytest.mark.parametrize(
    ("spoil", "code", "text"),
    [
        (lambda case: case.found.append({"image_id": 1}), 3, "entry"),
        (lambda case: case.found[4].update(score=float("nan")), 3, "entry 4 .*not finite"),
        (lambda case: case.found[4].update(bbox=[1, 2, "3", 4]), 3, "entry 4"),
        (lambda case: case.found[4].update(score=10**400), 3, "entry 4"),
        (lambda case: case.found[4].update(image_id=True), 3, "entry 4|unknown|image True"),
        (lambda case: case.content.pop("annotations"), 3, "has no annotations"),
        (lambda case: case.content["annotations"][0].pop("bbox"), 3, "annotation 1 .*no 'bbox'"),
    ],
)
def test_what_is_broken_is_said(coco_case, capsys, spoil, code, text):
    spoil(coco_case)
    assert coco_case.run() == code
    assert re.search(text, capsys.readouterr().err)


def test_wrong_flags_and_missing_files(coco_case, tmp_path, capsys):
    assert coco_case.run() == 0
    paths = ["--truth", str(coco_case.truth), "--results", str(coco_case.results)]
    assert main(["--protocol", "cocoo", *paths]) == 2
    assert "did you mean 'coco'" in capsys.readouterr().err
    assert main(["--protocol", "coco", *paths[:2]]) == 2
    none = str(tmp_path / "none.json")
    assert main(["--protocol", "coco", "--truth", none, "--results", none]) == 3
    assert main(["--protocol", "coco", *paths[:3], none]) == 3
    assert main(["--help"]) == 0
    assert "--ignore-unknown" in capsys.readouterr().out


class VocCase:
    """A devkit without images, and result files."""

    def __init__(self, folder):
        self.devkit = folder / "devkit"
        self.year = self.devkit / "VOC2007"
        self.results = folder / "results"
        self.report = folder / "report.json"
        for path in (self.year / "ImageSets" / "Main", self.year / "Annotations", self.results):
            path.mkdir(parents=True)
        (self.year / "classes.txt").write_text("dog\ncat\n")
        rng = np.random.default_rng(5)
        self.names = ["000001", "000007", "street north"]
        self.rows = {"dog": [], "cat": []}
        self.list("test", self.names)
        for name in self.names:
            objects = ""
            for number in range(5):
                x, y, w, h = (int(v) + 1 for v in random_box(rng))
                klass = ("dog", "cat")[int(rng.integers(2))]
                objects += (
                    f"<object><name>{klass}</name><difficult>{int(number == 4)}</difficult><bndbox>"
                    f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
                    "</bndbox></object>"
                )
                corners = np.array([x, y, x + w, y + h]) + rng.normal(0, 3, 4)
                self.rows[klass].append((name, float(rng.random()), *corners.tolist()))
            text = f"<annotation><filename>a</filename>{objects}</annotation>"
            (self.year / "Annotations" / f"{name}.xml").write_text(text)
        self.write()

    def list(self, subset, names):
        path = self.year / "ImageSets" / "Main" / f"{subset}.txt"
        path.write_text("\n".join(names))
        return path

    def write(self, folder=None, prefix="comp4"):
        folder = folder or self.results
        folder.mkdir(parents=True, exist_ok=True)
        for klass, rows in self.rows.items():
            lines = "".join(f"{name} {' '.join(map(repr, row))}\n" for name, *row in rows)
            (folder / f"{prefix}_det_test_{klass}.txt").write_text(lines)

    def run(self, truth=None, *more):
        return main(
            ["--protocol", "VOC", "--truth", str(truth or self.devkit)]
            + ["--results", str(self.results), "--out", str(self.report), *more]
        )


def test_what_is_read_is_never_written_over(coco_case, tmp_path, capsys):
    assert coco_case.run() == 0
    before = coco_case.truth.read_bytes(), coco_case.results.read_bytes()
    for out in (coco_case.truth, coco_case.results, tmp_path, "."):
        assert coco_case.run("--out", str(out)) == 2
        assert "--out" in capsys.readouterr().err
    assert before == (coco_case.truth.read_bytes(), coco_case.results.read_bytes())


def test_boxes_without_extent_and_masks_of_some_are_told(coco_case, caplog):
    for found in coco_case.found[:2]:
        found["bbox"][2] = -3.0
    coco_case.found[5]["segmentation"] = run_lengths([[10.0, 10, 60, 10, 60, 60, 10, 60]])
    with caplog.at_level("WARNING", "sniper"):
        assert coco_case.run() == 0
    assert f"no object fits: 2 of {len(coco_case.found)}" in caplog.text
    assert f"1 of {len(coco_case.found)} detections have a segmentation" in caplog.text


def test_an_annotation_file_is_one_set(coco_case, capsys):
    assert coco_case.run("--image_set", "val") == 2
    assert "--image_set" in capsys.readouterr().err


@pytest.mark.parametrize(
    "counts, text",
    [
        ("", "no compressed run lengths"),
        ("xx", "no compressed run lengths"),
        ("0" * 40, "its runs cover 0 px of 240000"),
        ([-80, 240080], "no whole numbers"),
        ([1.5, 239998.5], "no whole numbers"),
        ([7], "its runs cover 7 px of 240000"),
    ],
)
def test_broken_masks_are_not_evaluated_as_empty_ones(coco_case, capsys, counts, text):
    polygon = [[10.0, 10, 60, 10, 60, 60, 10, 60]]
    for entry in (*coco_case.content["annotations"], *coco_case.found):
        entry["segmentation"] = run_lengths(polygon)
    assert coco_case.run() == 0
    coco_case.found[3]["segmentation"] = {"size": [480, 500], "counts": counts}
    assert coco_case.run() == 3
    assert text in capsys.readouterr().err


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_compressed_run_lengths_are_read_as_coco_writes_them(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    mask = np.asfortranarray(np.kron(mask, np.ones((9, 7))).astype(np.uint8))
    runs = decompressed_runs(coco_mask.encode(mask)["counts"])
    column_first = mask.reshape(-1, order="F")
    changes = np.flatnonzero(np.diff(column_first)) + 1
    expected = np.diff(np.concatenate([[0], changes, [column_first.size]]))
    np.testing.assert_array_equal(runs, [0, *expected] if column_first[0] else expected)


@pytest.fixture
def voc_case(tmp_path):
    return VocCase(tmp_path)


def test_voc_files_are_evaluated_as_they_are(voc_case, capsys):
    assert voc_case.run() == 0
    numbers = json.loads(voc_case.report.read_text())
    dataset = read_voc_truth(voc_case.year / "ImageSets" / "Main" / "test.txt")
    ids = {name: record.image_id for name, record in zip(voc_case.names, dataset.records)}
    none = VocRows(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))
    rows = [none]
    for own in voc_case.rows.values():
        table = np.array([row[1:] for row in own])
        rows.append(VocRows(np.int64([ids[row[0]] for row in own]), table[:, 0], table[:, 1:] - 1))
    expected = evaluate_voc(dataset, rows)
    assert numbers == expected.as_dict()
    assert numbers["metric"] == "11 points" and 0.1 < numbers["map50"] <= 1
    assert "mean" in capsys.readouterr().out


def test_voc_truth_and_results_may_be_named_in_many_ways(voc_case):
    assert voc_case.run() == 0
    expected = voc_case.report.read_text()
    test = voc_case.list("test", voc_case.names)
    for truth, more in (
        (voc_case.year, ()),
        (test, ()),
        (voc_case.devkit, ("--image_set", "2007_test")),
        (voc_case.devkit, ("--image_set", "07_test")),
        (voc_case.year, ("--image_set", "test")),
    ):
        voc_case.report.unlink()
        assert voc_case.run(truth, *more) == 0
        assert voc_case.report.read_text() == expected
    for path in voc_case.results.iterdir():
        path.unlink()
    voc_case.write(voc_case.results / "VOC2007" / "Main", "comp3")
    assert voc_case.run() == 0
    assert voc_case.report.read_text() == expected


def test_voc_problems_are_said(voc_case, capsys):
    voc_case.list("test_small", voc_case.names[:1])
    assert voc_case.run() == 0  # the names of the files tell which
    (voc_case.results / "comp4_det_test_small_dog.txt").write_text("")
    assert voc_case.run() == 2
    assert "--image_set" in capsys.readouterr().err
    name = ("--image_set", "2007_test")
    assert voc_case.run(None, *name) == 0
    dogs = voc_case.results / "comp4_det_test_dog.txt"
    text = dogs.read_text()
    dogs.write_text(text + "000009 0.5 1 2 3 4\n" * 2)
    (voc_case.results / "comp4_det_test_zebra.txt").write_text("000001 0.5 1 2 3 4\n")
    capsys.readouterr()
    assert voc_case.run(None, *name) == 3
    shown = capsys.readouterr().err
    assert "3 results are of another set" in shown
    assert "image '000009' (2), class 'zebra' (1)" in shown
    assert voc_case.run(None, *name, "--ignore-unknown") == 0
    assert json.loads(voc_case.report.read_text())["left_out"] == 3
    (voc_case.results / "comp4_det_test_zebra.txt").unlink()
    dogs.write_text(text + "000001 0.5 1 2 nan 4\n")
    assert voc_case.run(None, *name) == 3
    dogs.unlink()
    assert voc_case.run(None, *name) == 3
    assert "comp4_det_test_dog.txt" in capsys.readouterr().err
    assert voc_case.run(None, "--image_set", "2007_train") == 3
    assert voc_case.run(voc_case.results) == 3


def test_nothing_of_it_needs_mxnet(coco_case, voc_case):
    assert coco_case.run() == 0
    arguments = [
        ["--protocol", "coco", "--truth", str(coco_case.truth)]
        + ["--results", str(coco_case.results)],
        ["--protocol", "voc", "--truth", str(voc_case.devkit)]
        + ["--results", str(voc_case.results)],
    ]
    text = (
        "import sys\nsys.modules['mxnet'] = None\nfrom sniper.tools.cli import main\n"
        f"sys.exit(max(main(['evaluate', *argv]) for argv in {arguments!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={"PYTHONPATH": str(LIB), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "box AP in percent" in done.stdout and "IoU .7" in done.stdout

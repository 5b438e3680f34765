"""main_test.py: the same result for any number of jobs, any batch size and with cached levels."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from sniper.data import load_proposals
from sniper.inference.detector import Detector
from sniper.runs import detect_set
from sniper.tools.analyze import main as analyze
from sniper.tools.test import main as run_test
from tests.e2e.detection_runs import batches, interrupted, jobs


@pytest.mark.parametrize("name", ["first1", "first3", "first5"])
def test_blocks_and_batches_make_no_difference(runs, name, monkeypatch):
    expected = runs.plain(name)
    assert len(json.loads(expected)) > 10
    assert runs.run(name, *batches(16, 16)) == expected
    monkeypatch.setattr(detect_set, "_BLOCK_IMAGES", (2, 2))
    assert runs.run(name, *batches(1, 8)) == expected


def test_two_jobs_write_the_same_file(runs, one_image_blocks):
    found = runs.run("first5", *jobs(2), *batches(7, 1))
    output = runs.tiny.root / f"jobs_{runs.number}"
    assert found == runs.plain("first5")
    speed = json.loads((output / "results" / "detections_first5_report.json").read_text())["speed"]
    assert speed["jobs"] == 2 and speed["images"] == 5 and speed["images_per_s"] > 0
    assert speed["percent_of_pixels"] == pytest.approx(100, abs=1)
    assert speed["seconds"]["forward"] > 0 and speed["mode"] == "pyramid"


def test_class_agnostic_results_are_of_one_class_and_are_evaluated_as_such(runs, tmp_path):
    flags = ("TEST.CLASS_AGNOSTIC", True)
    output = runs.new_output()
    assert run_test(runs.arguments(output, "first5", *flags)) == 0
    results = json.loads(runs.results(output, "first5"))
    assert len(results) > 5 and {entry["category_id"] for entry in results} == {1}
    report = json.loads((output / "results" / "detections_first5_report.json").read_text())
    assert report["categories"] == [{"id": 1, "name": "object"}]
    truth = json.loads(
        (runs.tiny.root / "toy" / "annotations" / "instances_train.json").read_text()
    )
    assert 0 < report["num_objects"]["all"] <= len(truth["annotations"])
    assert 0 <= report["ap"] <= 1
    out = tmp_path / "analysis"
    arguments = runs.arguments(output, "first5", *flags)
    assert analyze([*arguments[:2], "--out", str(out), "--draw", "0", *arguments[2:]]) == 0
    found = json.loads((out / "analysis.json").read_text())
    assert found["confusion"]["names"] == ["__background__", "object"]
    assert found["ap50"] == pytest.approx(report["ap50"], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first1", "first3", "first5"])
@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (16, 16)])
def test_any_number_of_jobs_writes_the_same_file(runs, one_image_blocks, name, number, sizes):
    assert runs.run(name, *jobs(number), *batches(*sizes)) == runs.plain(name)


def proposals(path):
    found = load_proposals(path)
    return found.image_ids.tolist(), found.offsets.tolist(), found.boxes, found.scores


def extract(runs, output, name, folder, *overrides):
    """The proposal file of a run."""
    flags = ("TEST.EXTRACT_PROPOSALS", True, "TEST.PROPOSAL_SAVE_PATH", folder)
    assert run_test(runs.arguments(output, name, *flags, *overrides)) == 0
    assert not list((output / "results").glob("partial_*"))
    return proposals(folder / f"COCO_{name}_rpn.npz")


def test_proposals_go_the_same_way(runs, one_image_blocks, monkeypatch, tmp_path, capsys):
    first = extract(runs, runs.new_output(), "first3", tmp_path / "once")
    flags = ("TEST.EXTRACT_PROPOSALS", True, "TEST.PROPOSAL_SAVE_PATH", tmp_path / "twice")
    output = interrupted(runs, "first3", monkeypatch, *flags)
    second = extract(runs, output, "first3", tmp_path / "twice", *batches(5, 1))
    assert "2 of 3 images are done already" in capsys.readouterr().err
    for expected, found in zip(first, second):
        np.testing.assert_array_equal(found, expected)
    report = json.loads((tmp_path / "once" / "COCO_first3_rpn_report.json").read_text())
    assert report["num_proposals"] == len(first[2]) and report["speed"]["mode"] == "proposals"
    assert 0 <= report["recall_50"]["all"]["300"] <= 1


@pytest.mark.slow
def test_proposals_of_two_jobs(runs, one_image_blocks, tmp_path):
    expected = extract(runs, runs.new_output(), "first3", tmp_path / "one")
    found = extract(runs, runs.new_output(), "first3", tmp_path / "two", *jobs(2))
    for own, wanted in zip(found, expected):
        np.testing.assert_array_equal(own, wanted)


@pytest.fixture
def levels(monkeypatch):
    """Indices of the levels that the network of this process looks at."""
    original, seen = Detector.run_level, []

    def run_level(self, index, *arguments):
        seen.append(index)
        return original(self, index, *arguments)

    monkeypatch.setattr(Detector, "run_level", run_level)
    return seen


def test_cached_levels_are_read_back_and_never_stale(runs, levels, capsys):
    output = runs.new_output()

    def seen(*overrides):
        del levels[:]
        capsys.readouterr()
        assert run_test(runs.arguments(output, "first3", *overrides)) == 0
        return list(levels)

    first, both = ("TEST.USE_CACHE", [True, False]), ("TEST.USE_CACHE", [True, True])
    expected = runs.plain("first3")
    assert seen(*first) == [0, 1], "there is none yet"
    assert seen(*first) == [1]
    assert runs.results(output, "first3") == expected
    assert seen(*both) == [1]
    assert seen(*both, *batches(5, 5)) == []
    assert runs.results(output, "first3") == expected
    # NMS applies to what is in the cache, and valid ranges do where they choose no proposals.
    assert seen(*both, "TEST.NMS", 0.3) == []
    ranges = ("TEST.VALID_RANGES", [[-1, 50], [20, -1]], "TEST.NMS", 0.3)
    assert seen(*both, *ranges) == [0, 1]
    assert runs.results(output, "first3") == runs.run("first3", *ranges)
    every = ("TEST.PROPOSALS_AS_TRAINED", False)
    assert seen(*both, *every) == [0, 1]
    assert seen(*both, *every, *ranges) == []
    assert runs.results(output, "first3") == runs.run("first3", *every, *ranges)
    assert seen(*both) == [0, 1]
    # Another second level: the first one still holds.
    scales = ("TEST.SCALES", [[240, 320], [96, 96]])
    assert seen(*both, *scales) == [1]
    assert "removed cached detections with other weights" in capsys.readouterr().err
    assert runs.results(output, "first3") == runs.run("first3", *scales)
    shutil.copy(
        runs.trained / "SNIPER-0001.params", output / "tiny" / "train" / "SNIPER-0002.params"
    )
    assert seen(*both) == [0, 1]
    assert seen() == [0, 1], "without the key nothing is read"


def test_pictures_of_nested_folders_do_not_collide(runs, tmp_path):
    toy = tmp_path / "toy"
    shutil.copytree(runs.tiny.root / "toy" / "annotations", toy / "annotations")
    path = toy / "annotations" / "instances_first3.json"
    content = json.loads(path.read_text())
    names = ["north/a.jpg", "south/a.jpg", "south/deep/b.jpg"]
    for image, name in zip(content["images"], names):
        target = toy / "images" / "first3" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(runs.tiny.root / "toy" / "images" / "train" / image["file_name"], target)
        image["file_name"] = name
    path.write_text(json.dumps(content))
    overrides = ("dataset.dataset_path", toy, "TEST.VISUALIZATION_PATH", tmp_path / "drawn")
    arguments = runs.arguments(runs.new_output(), "first3", *overrides)
    assert run_test([*arguments[:2], "--vis", *arguments[2:]]) == 0
    drawn = tmp_path / "drawn" / "dets_final"
    assert sorted(str(p.relative_to(drawn)) for p in drawn.rglob("*.jpg")) == names

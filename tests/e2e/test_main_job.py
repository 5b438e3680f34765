"""Train, test, demo: the programs that users run, on a tiny set."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np

from sniper.config import load_config
from sniper.data import load_proposals
from sniper.models.weights import for_test, read_params
from sniper.tools.demo import main as demo_main
from sniper.tools.test import main as run_test


def _losses(folder):
    return [json.loads(line) for line in (folder / "tiny.jsonl").read_text().splitlines()]


def test_training_leaves_everything_that_a_run_needs(tiny, trained):
    names = {path.name for path in trained.iterdir()}
    assert {"SNIPER-symbol.json", "SNIPER-0001.params", "SNIPER-0002.params"} <= names
    assert {"SNIPER-0002.states", "SNIPER-0002.json", "config.yml", "classes.json"} <= names
    assert any(name.endswith(".log") for name in names)
    lines = _losses(trained)
    numbers = [value for line in lines for value in line.values() if not isinstance(value, str)]
    assert np.isfinite(numbers).all()
    assert lines[-1]["epoch"] == 1
    resolved = load_config(trained / "config.yml")
    assert (resolved.name, resolved.TRAIN.CHIP_SIZE) == ("tiny", 128)


def test_checkpoint_holds_unnormalised_box_layer(trained):
    arg, _ = read_params(trained / "SNIPER-0002.params")
    stds = np.float32([0.1, 0.1, 0.2, 0.2])
    weight = arg["bbox_pred_weight"].asnumpy()
    assert np.abs(weight).max() > 0
    at_test = for_test(arg)["bbox_pred_weight"].asnumpy()
    np.testing.assert_allclose(at_test, weight * stds[:, None], rtol=1e-6)


def test_val_set_is_evaluated(tiny, trained):
    assert run_test(["--cfg", str(tiny.cfg), "--vis"]) == 0
    results = tiny.root / "output" / "results"
    report = json.loads((results / "detections_val_report.json").read_text())
    assert "NaN" not in json.dumps(report)
    detections = json.loads((results / "detections_val_results.json").read_text())
    assert detections, "a detector with scores above 0.001 has detections"
    assert set(detections[0]) == {"image_id", "category_id", "bbox", "score"}
    assert len(list((tiny.root / "pictures" / "dets_final").glob("*.jpg"))) == 3


def test_keys_that_are_not_in_force_are_named(tiny, trained, tmp_path, capsys):
    keys = ["TEST.VISUALIZE_INTERMEDIATE_SCALES", "True", "TEST.VISUALIZATION_PATH", str(tmp_path)]
    assert run_test(["--cfg", str(tiny.cfg), "--vis", "--set", *keys]) == 0
    assert "VISUALIZE_INTERMEDIATE_SCALES is not in force" in capsys.readouterr().err


def test_results_do_not_depend_on_the_batch_size(tiny, trained):
    path = tiny.root / "output" / "results" / "detections_val_results.json"
    found = []
    for batches in ("[1, 1]", "[3, 2]"):
        assert run_test(["--cfg", str(tiny.cfg), "--set", "TEST.BATCH_IMAGES", batches]) == 0
        found.append(json.loads(path.read_text()))
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        np.testing.assert_allclose(one["score"], other["score"], atol=1e-4)
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=0.11)


def test_test_dev_set_gives_results_without_evaluation(tiny, trained):
    overrides = ["--set", "dataset.test_image_set", "test-dev2026"]
    assert run_test(["--cfg", str(tiny.cfg), *overrides]) == 0
    results = tiny.root / "output" / "results"
    path = results / "detections_test-dev2026_results.json"
    images = json.loads(
        (tiny.root / "toy" / "annotations" / "image_info_test-dev2026.json").read_text()
    )["images"]
    ids = {image["id"] for image in images}
    assert {row["image_id"] for row in json.loads(path.read_text())} <= ids
    report = (results / "detections_test-dev2026_report.json").read_text()
    assert "annotations" in report, "it says why there are no figures"


def test_demo_draws_a_picture(tiny, trained, tmp_path):
    image = next((tiny.root / "toy" / "images" / "val").iterdir())
    out = tmp_path / "drawn.png"
    arguments = ["--cfg", str(tiny.cfg), "--im_path", str(image), "--out", str(out)]
    assert demo_main(arguments) == 0
    assert cv2.imread(str(out)).shape == cv2.imread(str(image)).shape


def test_demo_falls_back_to_the_newest_model(tiny, trained, tmp_path, monkeypatch):
    image = next((tiny.root / "toy" / "images" / "val").iterdir())
    monkeypatch.chdir(tiny.root)
    out = tmp_path / "drawn.jpg"
    assert demo_main(["--im_path", str(image), "--out", str(out), "--set", "gpus", "cpu"]) == 0
    assert out.exists()


def test_proposals_and_negative_chips(tiny):
    rpn = ("TRAIN.ONLY_PROPOSAL", "True", "TRAIN.end_epoch", "1", "TEST.TEST_EPOCH", "1")
    folder = tiny.train("rpn", overrides=rpn)
    assert "RCNNAcc" not in _losses(folder)[0]
    extract = ("TEST.EXTRACT_PROPOSALS", "True", "dataset.test_image_set", "train")
    arguments = ["--cfg", str(tiny.cfg), "--set", "output_path", str(tiny.root / "rpn")]
    assert run_test([*arguments, *rpn, *extract]) == 0
    proposals = load_proposals(tiny.root / "proposals" / "COCO_train_rpn.npz")
    assert len(proposals.image_ids) == 6
    assert len(proposals.boxes) > 6
    negatives = ("TRAIN.USE_NEG_CHIPS", "True", "TRAIN.end_epoch", "1")
    tiny.train("negatives", overrides=negatives)
    log = next(tiny.model_folder("negatives").glob("*.log")).read_text()
    chips = re.findall(r"epoch 1: level \d: \d+ positive chips .*, (\d+) negative;", log)
    assert len(chips) == 2 and sum(map(int, chips)) > 0


def test_two_cpu_contexts_train(tiny):
    overrides = ("gpus", "cpu,cpu", "TRAIN.BATCH_IMAGES", "2", "TRAIN.end_epoch", "1")
    folder = tiny.train("two_contexts", overrides=overrides)
    assert (folder / "SNIPER-0001.params").exists()

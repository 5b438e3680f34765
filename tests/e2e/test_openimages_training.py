"""Open Images from the tables to results, by the programs; its weights start another detector."""

import json

import numpy as np
import pytest

from sniper.models.weights import read_params
from sniper.tools import cli
from sniper.tools.test import main as test_main
from sniper.tools.toy.settings import SceneSettings, ToySettings
from sniper.tools.toy.writer import make_toy_data

SOFT = ("TRAIN.SOFT_SAMPLING.ENABLE", "True", "TRAIN.CROWD_IOA", "0.9",
        "TRAIN.RPN_IGNORE_CROWD", "True")  # fmt: skip


@pytest.fixture(scope="module")
def open_images(tiny):
    """Arguments of a data set whose tables are all there."""
    scene = SceneSettings(classes=3, long_side_px=200, max_size_px=70, min_objects=4, max_objects=6)
    settings = ToySettings(train=8, val=3, test=0, test_dev=0, scene=scene, openimages=True)
    folder = tiny.root / "open"
    make_toy_data(folder, settings, workers=1, progress=lambda _: None)
    return ("dataset.dataset", "openimages", "dataset.dataset_path", str(folder),
            "dataset.NUM_CLASSES", "6", "TRAIN.MAX_UPDATES", "4")  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(tiny, open_images):
    return tiny.train("open_run", overrides=(*open_images, *SOFT))


def lines_of(folder):
    text = next(folder.glob("*.jsonl")).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_the_log_shows_what_background_counts(model_folder):
    weights = [line["SoftWeight"] for line in lines_of(model_folder) if "SoftWeight" in line]
    assert len(weights) >= 4 and all(0.25 <= value < 1 for value in weights)


def test_results_are_evaluated_by_the_rules_of_the_challenges(model_folder, tiny, open_images):
    arguments = ["--cfg", str(tiny.cfg), "--set", *open_images, *SOFT]
    arguments += ["output_path", str(tiny.root / "open_run"), "TEST.TEST_EPOCH", "1"]
    assert test_main(arguments) == 0
    (report,) = (tiny.root / "open_run").rglob("*report.json")
    assert 0 <= json.loads(report.read_text())["mAP"] <= 1


def test_detections_have_the_names_of_classes(model_folder, tiny, tmp_path):
    cfg, weights = model_folder / "config.yml", next(model_folder.glob("*.params"))
    picture = next((tiny.root / "open" / "images" / "val").iterdir())
    arguments = ["detect", str(picture), "--cfg", str(cfg), "--weights", str(weights)]
    assert cli.main([*arguments, "--out", str(tmp_path / "found"), "--threshold", "0"]) == 0
    (file,) = (tmp_path / "found").glob("*.json")
    content = json.loads(file.read_text())
    assert content["classes"][1:] == ["ring", "triangle", "star", "round-shape", "angular-shape"]


def test_its_weights_start_a_detector_of_other_classes(model_folder, tiny, capfd):
    """The main use in 2018. All but the scores of classes fit, and the log says so."""
    source = next(model_folder.glob("*.params"))
    prefix = tiny.root / "from_open"
    (tiny.root / "from_open-0000.params").write_bytes(source.read_bytes())
    overrides = ("network.pretrained", str(prefix), "TRAIN.MAX_UPDATES", "1", "TRAIN.lr", "1e-12")
    folder = tiny.train("other_classes", overrides=(*overrides, "TRAIN.warmup", "False"))
    log = capfd.readouterr().err + "".join(f.read_text() for f in folder.glob("*.log"))
    assert "cls_score_weight" in log and "(4, 32)" in log and "(6, 32)" in log
    given, _ = read_params(source)
    learned, _ = read_params(next(folder.glob("*.params")))
    for name in ("fc_new_1_weight", "rpn_cls_score_weight", "bbox_pred_weight", "conv_new_1_bias"):
        np.testing.assert_allclose(learned[name].asnumpy(), given[name].asnumpy(), atol=1e-6)
    assert learned["cls_score_weight"].shape == (4, 32)


def test_off_and_on_differ_in_the_class_loss_of_the_box_head_alone(tiny, open_images):
    """The first update sees the same chips: what the RPN says of them is the same."""
    runs = {}
    for name, value in (("soft_on", "True"), ("soft_off", "False")):
        overrides = (*open_images, "TRAIN.SOFT_SAMPLING.ENABLE", value, "TRAIN.MAX_UPDATES", "2")
        runs[name] = lines_of(tiny.train(name, overrides=overrides))
    first_on, first_off = (
        next(line for line in lines if "RPNLogLoss" in line) for lines in runs.values()
    )
    for name in ("RPNLogLoss", "RPNL1Loss", "RCNNLogLoss", "RCNNL1LossCRCNN"):
        assert first_on[name] == first_off[name], name
    assert "SoftWeight" in first_on and "SoftWeight" not in first_off

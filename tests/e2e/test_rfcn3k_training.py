"""R-FCN-3K from annotations to archives, by the programs; its super-classes travel along."""

import json
import logging

import numpy as np
import pytest

from sniper import Predictor
from sniper.config import load_config
from sniper.models.archive import read_archive
from sniper.models.weights import read_params
from sniper.runs.load_model import load_model
from sniper.runs.plan import test_plan as plan_of_test
from sniper.tools import cli

SETTINGS = ("symbol", "mobilenetv2_3k", "TRAIN.MAX_UPDATES", "3", "network.FINE_ROIS", "8")
METRICS = ("RPNLogLoss", "RCNNLogLoss", "FineAcc", "FineLogLoss", "RCNNL1LossCRCNN")


@pytest.fixture(scope="module")
def model_folder(tiny):
    """Of a run with two super-classes, whose file is gone."""
    names = [entry["name"] for entry in categories(tiny)]
    table = tiny.root / "supers.json"
    table.write_text(json.dumps({"first": names[1:], "second": names[:1]}))
    folder = tiny.train("rfcn3k", overrides=(*SETTINGS, "network.SUPER_CLASSES", str(table)))
    table.unlink()
    return folder


def categories(tiny):
    file = tiny.root / "toy" / "annotations" / "instances_train.json"
    return json.loads(file.read_text())["categories"]


@pytest.fixture(scope="module")
def pictures(tiny):
    return sorted((tiny.root / "toy" / "images" / "val").iterdir())


def test_all_losses_are_in_the_log(model_folder):
    arg, _ = read_params(next(model_folder.glob("*.params")))
    assert arg["rfcn_cls_weight"].shape[0] == 49 * 3  # background and two super-classes
    assert arg["conv_new_3_weight"].shape[0] == 3
    assert not any(name.endswith("_test") for name in arg)
    lines = [json.loads(x) for x in next(model_folder.glob("*.jsonl")).read_text().splitlines()]
    losses = {name: [line[name] for line in lines if name in line] for name in METRICS}
    assert all(len(values) >= 3 and np.isfinite(values).all() for values in losses.values()), losses


def test_the_run_brings_its_super_classes_along(model_folder):
    cfg = load_config(model_folder / "config.yml")
    model = load_model(plan_of_test(cfg).detector, next(model_folder.glob("*.params")))
    assert model.spec.super_of == (2, 1, 1)


def test_archives_detect_as_the_run(model_folder, tiny, pictures):
    cfg, weights = str(model_folder / "config.yml"), str(next(model_folder.glob("*.params")))
    archive, int8 = (str(tiny.root / f"rfcn3k{end}.zip") for end in ("", "_int8"))
    common = ["--cfg", cfg, "--weights", weights]
    assert cli.main(["export", *common, "--out", archive]) == 0
    assert cli.main(["quantize", *common, "--out", int8, "--calib", "4", "--any-cpu"]) == 0
    assert read_archive(archive).detector.symbol.list_outputs()[-1] == "subcls_prob_reshape_output"
    assert "im_ids (N,) pass through" in read_archive(archive).meta["input"]
    of_run = Predictor(cfg, weights)(pictures)
    of_archive = Predictor(archive)(pictures)
    assert sum(map(len, of_run)) > 0
    for ours, theirs in zip(of_run, of_archive):
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
    quantised = Predictor(int8)(pictures)
    assert all(np.isfinite(found.scores).all() for found in quantised)
    assert sum(map(len, quantised)) > 0


def test_class_agnostic_detection_gives_objects_by_their_objectness(model_folder, pictures):
    files = str(model_folder / "config.yml"), str(next(model_folder.glob("*.params")))
    by_class, of_any = Predictor(*files)(pictures), Predictor(*files, class_agnostic=True)(pictures)
    for each, objects in zip(by_class, of_any):
        assert set(objects.classes) == {1} and objects.class_names[1:] == ("object",)
        # The score of a class is its share of the objectness.
        assert objects.scores[0] > each.scores[0] > 0


def test_weights_that_say_nothing_of_their_ids(model_folder, tmp_path, caplog, monkeypatch):
    """Weights of 2018: which output is class 1 is told, and can be chosen."""
    cfg = load_config(model_folder / "config.yml", ["network.FINE_ID_OFFSET", "1"])
    copy = tmp_path / "released.params"
    copy.write_bytes(next(model_folder.glob("*.params")).read_bytes())
    # The run has sent the log elsewhere.
    monkeypatch.setattr(logging.getLogger("sniper"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="sniper"):
        model = load_model(plan_of_test(cfg).detector, copy)
    assert "output 0 of the fine head is taken for class 2, 'class 2'" in caplog.text
    assert model.spec.fine.id_offset == 1


def test_training_refuses_the_ids_of_released_weights(tiny, capsys):
    overrides = (*SETTINGS, "network.FINE_ID_OFFSET", "1")
    assert tiny.run_train("rfcn3k_offset", overrides=overrides) == 2
    assert "FINE_ID_OFFSET" in capsys.readouterr().err

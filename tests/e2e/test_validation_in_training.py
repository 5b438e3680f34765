"""Validation during training: the figures of `main_test.py`, the best weights, clear errors."""

from __future__ import annotations

import json
import shutil
import sys
import types
from dataclasses import replace

import pytest

from sniper.errors import TrainingError
from sniper.models.weights import read_params
from sniper.tools.test import main as run_test
from sniper.training import keeper
from sniper.training.checkpoint import CheckpointFolder

SETTINGS = ("TRAIN.VALIDATE_EVERY", "1", "TRAIN.VALIDATION_SET", "val", "TRAIN.EMA_DECAY", "0.8")


def _lines(folder, kind):
    lines = [json.loads(line) for line in (folder / "tiny.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


@pytest.fixture(scope="module")
def curves():
    """Names of the curves that a stand-in for tensorboardX gets."""
    tags = set()
    writer = types.SimpleNamespace(
        add_scalar=lambda tag, value, step: tags.add(tag), close=lambda: tags.add("closed")
    )
    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = lambda folder: writer
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboardX", module)
        yield tags


@pytest.fixture(scope="module")
def validated(tiny, curves):
    return tiny.train("validated", overrides=SETTINGS)


def _weights(folder, name):
    arg, _ = read_params(folder / f"{name}.params")
    return {key: value.asnumpy().tobytes() for key, value in arg.items()}


def test_every_epoch_has_its_figures(validated):
    lines = _lines(validated, "validation")
    assert [(line["epoch"], line["update"], line["set"]) for line in lines] == [
        (0, 6, "COCO_val"),
        (1, 12, "COCO_val"),
    ]
    for line in lines:
        folder = validated / "validation" / f"epoch-{line['epoch'] + 1:04d}"
        report = json.loads((folder / "detections_val_report.json").read_text())
        assert {name: line[name] for name in ("ap", "ap50", "ar_100")} == {
            name: report[name] for name in ("ap", "ap50", "ar_100")
        }


def test_the_figures_are_those_of_the_averaged_weights_in_the_test_program(tiny, validated):
    command = ["--cfg", str(tiny.cfg), "--save_prefix", "SNIPER-ema"]
    output = str(tiny.root / "validated")
    assert run_test([*command, "--set", "output_path", output, "TEST.TEST_EPOCH", "2"]) == 0
    results = tiny.root / "validated" / "results"
    tested = json.loads((results / "detections_val_results.json").read_text())
    folder = validated / "validation" / "epoch-0002"
    assert json.loads((folder / "detections_val_results.json").read_text()) == tested
    assert tested, "a detector with scores above 0.001 has detections"


def test_the_best_weights_are_kept_and_can_be_tested(tiny, validated):
    about = json.loads((validated / "SNIPER-best.json").read_text())
    values = {line["epoch"] + 1: line["ap"] for line in _lines(validated, "validation")}
    assert about["value"] == max(values.values()) == values[about["epoch"]]
    assert about["averaged"]
    assert _weights(validated, "SNIPER-best") == _weights(
        validated, f"SNIPER-ema-{about['epoch']:04d}"
    )
    assert _weights(validated, "SNIPER-best") != _weights(validated, f"SNIPER-{about['epoch']:04d}")
    command = ["--cfg", str(tiny.cfg), "--save_prefix", "SNIPER-best"]
    assert run_test([*command, "--set", "output_path", str(tiny.root / "validated")]) == 0


def test_training_itself_does_not_notice(trained, validated):
    for with_it, without in zip(_lines(validated, "train"), _lines(trained, "train")):
        for name in ("update", "RPNLogLoss", "RCNNLogLoss"):
            assert with_it[name] == pytest.approx(without[name], rel=1e-6)
    assert not (trained / "SNIPER-best.params").exists()


def test_curves_for_tensorboard(validated, curves):
    assert {"train/RPNAcc", "run/lr", "epoch/RCNNLogLoss", "validation/ap", "closed"} <= curves


def test_a_run_that_was_killed_while_it_validated_validates_again(tiny, validated, tmp_path):
    copy = tiny.model_folder("again")
    shutil.copytree(validated, copy)
    newest = CheckpointFolder(copy, "SNIPER").newest()
    CheckpointFolder(copy, "SNIPER").save_state(
        newest, replace(newest.state, validated=6, best=None)
    )
    tiny.train("again", "--resume", overrides=SETTINGS)
    before, after = _lines(validated, "validation"), _lines(copy, "validation")
    assert len(after) == len(before) + 1
    assert after[-1]["ap"] == before[-1]["ap"]
    assert len(_lines(copy, "train")) == len(_lines(validated, "train"))
    assert CheckpointFolder(copy, "SNIPER").newest().state.validated == 12
    tiny.train("again", "--resume", overrides=SETTINGS)
    assert len(_lines(copy, "validation")) == len(after), "now it is done"


def test_a_set_without_annotations_is_refused_before_training(tiny, capsys):
    overrides = ("TRAIN.VALIDATE_EVERY", "1", "TRAIN.VALIDATION_SET", "test-dev2026")
    assert tiny.run_train("no_figures", overrides=overrides) == 2
    message = capsys.readouterr().err
    assert "TRAIN.VALIDATION_SET" in message
    assert "no annotations" in message
    assert not list(tiny.model_folder("no_figures").glob("*.params"))


def test_a_missing_set_is_named(tiny, capsys):
    overrides = ("TRAIN.VALIDATE_EVERY", "1", "TRAIN.VALIDATION_SET", "nowhere")
    assert tiny.run_train("missing", overrides=overrides) == 3
    assert "instances_nowhere.json" in capsys.readouterr().err


def test_a_broken_image_ends_the_run_after_the_checkpoint(tiny, tmp_path, capsys):
    toy = tmp_path / "toy"
    shutil.copytree(tiny.root / "toy", toy)
    broken = sorted((toy / "images" / "val").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:100])
    overrides = (*SETTINGS[:4], "dataset.dataset_path", str(toy), "TRAIN.end_epoch", "1")
    assert tiny.run_train("broken_image", overrides=overrides) == 3
    message = capsys.readouterr().err
    assert "the validation after epoch 1 failed" in message
    assert str(broken) in message
    assert "--resume" in message
    assert CheckpointFolder(tiny.model_folder("broken_image"), "SNIPER").newest().state.epoch == 1


def test_rpn_training_does_not_validate(tiny):
    overrides = ("TRAIN.ONLY_PROPOSAL", "True", "TRAIN.end_epoch", "1", *SETTINGS[:2])
    folder = tiny.train("rpn_only", overrides=overrides)
    assert not _lines(folder, "validation")


def test_weights_that_are_not_finite_are_neither_saved_nor_validated(tiny, monkeypatch, capsys):
    def broken(*groups):
        raise TrainingError("the weights are not finite any more, and are not saved")

    monkeypatch.setattr(keeper, "check_weights", broken)
    assert tiny.run_train("infinite", overrides=SETTINGS) == 1
    assert not list(tiny.model_folder("infinite").glob("SNIPER-0001*"))

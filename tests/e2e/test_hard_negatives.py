"""`sniper hard-negatives`: what the detector takes for objects, and training on with it."""

import pytest

from sniper.data import load_proposals
from sniper.tools.hard_negatives import main

SMALL = ["TRAIN.NUM_PROCESS", "0", "TRAIN.end_epoch", "1", "TRAIN.lr_step", "", "gpus", "cpu"]


def command(tiny, output, *more):
    keys = ["output_path", str(tiny.root / output), *SMALL, *more]
    return ["--cfg", str(tiny.cfg), "--epochs", "1", "--display", "1", "--set", *keys]


def test_a_detector_is_trained_on_in_a_folder_of_its_own(tiny, capfd, monkeypatch):
    # It has hardly learned anything, and is sure of nothing.
    monkeypatch.setattr("sniper.runs.test.LEAST_SCORE", 0.05)
    start = tiny.train("to_harden", overrides=tuple(SMALL))
    before = {path.name: path.stat().st_mtime_ns for path in start.glob("SNIPER*")}
    capfd.readouterr()
    assert main(command(tiny, "to_harden")) == 0
    said = capfd.readouterr().err
    assert said.index("1 of 2: what") < said.index("2 of 2: 1 epochs")
    assert "TEST.TEST_EPOCH 1" in said.splitlines()[-1] and "hard-negatives --cfg" in said
    assert ", 0 begin at their first values" in said and "around false alarms" in said
    folder = tiny.model_folder("to_harden_hard")
    proposals = folder / "mining" / "COCO_train_rpn.npz"
    found = load_proposals(proposals)
    assert len(found.image_ids) == 6 and found.scores.min() >= 0.05
    files = (proposals, folder / "SNIPER-0001.params")
    written = [path.stat().st_mtime_ns for path in files]
    assert main(command(tiny, "to_harden")) == 0
    said = capfd.readouterr().err
    assert "are done already" in said and "proposals of train are there" in said
    assert [path.stat().st_mtime_ns for path in files] == written
    assert {path.name: path.stat().st_mtime_ns for path in start.glob("SNIPER*")} == before


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ((), 3, "the weights are missing"),
        (("TRAIN.ONLY_PROPOSAL", "True"), 2, "hard negatives are errors of a detector"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tiny, capfd, more, code, said):
    assert main(command(tiny, "never_trained", *more)) == code
    assert said in capfd.readouterr().err
    assert not tiny.model_folder("never_trained_hard").exists()

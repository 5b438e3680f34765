"""The negative-mining pipeline: three stages, each of which goes on where it stopped."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sniper.data import load_proposals
from sniper.runs import mining
from sniper.tools.mine_negatives import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["TRAIN.NUM_PROCESS", "0", "TRAIN.end_epoch", "1", "TRAIN.lr_step", "", "gpus", "cpu"]
HEADS = {
    "mobilenetv2_e2e": [],
    "resnet_mx_18_e2e_mask": [
        *("network.ACTIVATION", "relu6", "TRAIN.WITH_MASK", "True", "TRAIN.AUTO_FOCUS", "True"),
        *("TRAIN.AUTO_FOCUS_DC_LOW", "5", "TRAIN.AUTO_FOCUS_SMALL_THRESH", "30"),
        *("TRAIN.AUTO_FOCUS_DC_HIGH", "50"),
    ],
}


RECIPES_2018 = (
    "sniper_res101_e2e",
    "sniper_res101_e2e_pascal_voc",
    "sniper_res50_e2e",
    "sniper_mobilenetv2_e2e",
    "sniper_res101_e2e_mask",
    "sniper_res101_e2e_autofocus",
    "sniper_res101_e2e_mask_autofocus",
)


def command(tiny, folder, symbol, *more):
    return [
        *("--cfg", str(tiny.cfg), "--rpn_epochs", "1", "--display", "1"),
        *("--prop_save_path", str(folder / "props"), "--prop_train_path", str(folder / "rpn")),
        *("--set", "output_path", str(folder / "out"), "symbol", symbol),
        *(*HEADS[symbol], *SMALL, *more),
    ]


@pytest.mark.parametrize("symbol", HEADS)
def test_three_stages_and_a_second_call(tiny, tmp_path, symbol, capfd):
    assert main(command(tiny, tmp_path, symbol)) == 0
    detector = tmp_path / "out_neg" / "tiny" / "train" / "SNIPER-0001.params"
    proposals = tmp_path / "props" / "COCO_train_rpn.npz"
    assert len(load_proposals(proposals).image_ids) == 6
    log = next(detector.parent.glob("*.log")).read_text()
    counts = [line for line in log.splitlines() if " negative; GT" in line]
    assert any("0 negative" not in line for line in counts), counts
    written = [path.stat().st_mtime_ns for path in (detector, proposals)]
    capfd.readouterr()
    assert main(command(tiny, tmp_path, symbol)) == 0
    said = capfd.readouterr().err
    assert "are done already" in said and "proposals of train are there" in said
    assert [path.stat().st_mtime_ns for path in (detector, proposals)] == written


def test_a_failing_stage_stops_the_run_and_the_next_call_goes_on(tiny, tmp_path, monkeypatch):
    from sniper.errors import DataError

    def fail(*args, **kwargs):
        raise DataError("the disk of the proposals is gone")

    monkeypatch.setattr(mining, "test", fail)
    assert main(command(tiny, tmp_path, "mobilenetv2_e2e")) == 3
    assert not (tmp_path / "out_neg").exists()
    weights = tmp_path / "rpn" / "tiny" / "train" / "SNIPER-0001.params"
    trained = weights.stat().st_mtime_ns
    monkeypatch.undo()
    assert main(command(tiny, tmp_path, "mobilenetv2_e2e")) == 0
    assert weights.stat().st_mtime_ns == trained


def test_old_proposals_are_made_again(tiny, tmp_path):
    assert main(command(tiny, tmp_path, "mobilenetv2_e2e")) == 0
    proposals = tmp_path / "props" / "COCO_train_rpn.npz"
    good = load_proposals(proposals).boxes
    np.savez(proposals, boxes=np.zeros((0, 4), np.float32))
    weights = tmp_path / "rpn" / "tiny" / "train" / "SNIPER-0001.params"
    weights.touch()
    assert main(command(tiny, tmp_path, "mobilenetv2_e2e")) == 0
    np.testing.assert_array_equal(load_proposals(proposals).boxes, good)


def test_a_recipe_with_negative_chips_keeps_its_folder(tiny, tmp_path):
    more = ("TRAIN.USE_NEG_CHIPS", "True")
    assert main(command(tiny, tmp_path, "mobilenetv2_e2e", *more)) == 0
    assert (tmp_path / "out" / "tiny" / "train" / "SNIPER-0001.params").exists()


def test_training_mines_in_one_go_and_resumes(tiny, capfd):
    mine = ("TRAIN.USE_NEG_CHIPS", "mine", "TRAIN.MINING_EPOCHS", "1", *SMALL)
    folder = tiny.train("mined", overrides=mine)
    proposals = folder / "mining" / "COCO_train_rpn.npz"
    assert len(load_proposals(proposals).boxes) > 6
    said = capfd.readouterr().err
    assert said.index("mining 2 of 2") < said.index("mining is done")
    log = next(folder.glob("*.log")).read_text()
    counts = re.findall(r"positive chips .*, (\d+) negative;", log)
    assert sum(map(int, counts)) > 0
    files = (proposals, folder / "SNIPER-0001.params", *folder.glob("mining/network/*/*/*.params"))
    assert len(files) == 3
    written = [path.stat().st_mtime_ns for path in files]
    assert tiny.run_train("mined", "--resume", overrides=mine) == 0
    said = capfd.readouterr().err
    assert said.count("are done already") == 2 and "proposals of train are there" in said
    assert [path.stat().st_mtime_ns for path in files] == written


def test_several_workers_do_not_mine(tiny, capfd):
    mine = ("TRAIN.USE_NEG_CHIPS", "mine", "default.kvstore", "dist_sync", *SMALL)
    assert tiny.run_train("mined_by_many", overrides=mine) == 2
    assert "sniper mine-negatives" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES_2018)
def test_every_recipe_of_2018(tiny, tmp_path, recipe):
    keys = {
        "output_path": tmp_path / "out",
        "gpus": "cpu",
        "network.pretrained": "",
        "network.WIDTH": 0.125,
        "dataset.dataset": "coco",
        "dataset.root_path": tiny.root,
        "dataset.dataset_path": tiny.root / "toy",
        "dataset.image_set": "train",
        "dataset.NUM_CLASSES": 4,
        "TRAIN.CHIP_SIZE": 128,
        "TRAIN.SCALES": [2.0, 1.0, 128.0],
        "TRAIN.BATCH_IMAGES": 2,
        "TRAIN.end_epoch": 1,
        "TRAIN.lr_step": "",
        "TRAIN.MAX_UPDATES": 2,
        "TRAIN.NUM_PROCESS": 0,
        "TEST.SCALES": [[64, 64], [128, 128], [160, 160]],
        "TEST.BATCH_IMAGES": [1, 1, 1],
    }
    words = [word for pair in keys.items() for word in map(str, pair)]
    folders = ["--prop_save_path", str(tmp_path / "p"), "--prop_train_path", str(tmp_path / "r")]
    assert main(["--cfg", recipe, "--rpn_epochs", "1", *folders, "--set", *words]) == 0
    assert (tmp_path / "out" / recipe / "train" / "SNIPER-0001.params").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--cfg", "no_such_recipe"], 2, "no such config file"),
        (["--rpn_epochs", "0"], 2, "expected int (>= 1)"),
        (["--nonsense"], 2, "unrecognized"),
    ],
)
def test_mistakes_are_answered_at_once(arguments, code, said, capsys):
    try:
        assert main(arguments) == code
    except SystemExit as end:  # of the parser
        assert end.code == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [(["--help"], 0, "--prop_save_path"), (["--nonsense"], 2, "unrecognized")],
)
def test_the_script_hands_on_arguments_and_exit_codes(arguments, code, said):
    script = ROOT / "scripts" / "train_neg_props_and_sniper.sh"
    result = subprocess.run(
        ["bash", str(script), *arguments], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == code
    assert said in result.stdout + result.stderr

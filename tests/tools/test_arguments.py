"""Numbers on command lines: what makes no sense is refused with exit code 2 and a sentence."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest

from sniper import load_config
from sniper.data.detections import ImageDetections
from sniper.data.sources import open_source
from sniper.errors import ConfigError
from sniper.inference.prediction import best_first
from sniper.runs.predictor import Predictor
from sniper.tools.arguments import as_bytes, as_image_size
from sniper.tools.cli import main
from tests.conftest import REPO

WRONG = {
    "report --max-size": ["", "MB", "0", "5xB", "nan", "inf", "1e9"],
    "plan-memory --device-memory": ["lots", "0GB"],
    "plan-memory --image-size": ["0x5", "5x", "640"],
    "bench --generated": ["0x5", "a x b"],
    "detect a.jpg --out o --threshold": ["50", "nan", "-0.1", "1.01", "inf", "half"],
    "detect a.jpg --out o --every": ["0", "-3", "1.5"],
    "detect a.jpg --out o --batch": ["0"],
    "analyze --score": ["30", "nan", "-1"],
    "analyze --worst": ["-1"],
    "check-data --limit": ["-1"],
    "show-chips --images": ["-5"],
    "check-data --workers": ["0"],
    "chip-stats --epoch": ["-1"],
    "show-chips --tensors": ["-1"],
    "suggest-scales --min-side": ["nan", "0"],
    "suggest-scales --chip-size": ["0"],
    "train --momentum": ["99", "nan"],
    "train --display": ["-1"],
    "quantize --out q.zip --calib": ["0"],
    "quantize --out q.zip --eval": ["-1"],
    "mine-negatives --rpn_epochs": ["0"],
    "make-toy-data t --long-side": ["0"],
    "make-toy-data t --sizes 10": ["nan"],
    "plot-log x --smooth": ["0"],
    "launch --timeout": ["nan", "0"],
    "launch --port": ["70000"],
    "import-weights resnet50 x --pixel-means 1 2": ["nan"],
}


@pytest.mark.parametrize(
    ("command", "value"), [(command, value) for command in WRONG for value in WRONG[command]]
)
def test_numbers_out_of_range_are_refused(command, value, capsys):
    words = command.split()
    flag = next(word for word in reversed(words) if word.startswith("--"))
    assert main([*words, value]) == 2
    error = capsys.readouterr().err
    assert flag in error and value in error and "expected" in error


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TRAIN.RPN_POSITIVE_OVERLAP", "70"),
        ("TEST.PROPOSAL_OP.nms_thresh", "nan"),
        ("TEST.NMS", "30"),
        ("TEST.CHIP_HYPERPARAMS", "[[3, 20, 4]]"),
        ("TEST.CHIP_HYPERPARAMS", "[[3, nan, 4]]"),
    ],
)
def test_shares_of_the_configuration_are_not_percentages(key, value):
    with pytest.raises(ConfigError, match=key):
        load_config("sniper_mobilenetv2_toy", [key, value])


@pytest.mark.parametrize("threshold", [50, -0.1, float("nan")])
def test_thresholds_in_python_are_refused_as_well(threshold):
    with pytest.raises(ConfigError, match="0 to 1"):
        Predictor("sniper_mobilenetv2_toy", threshold=threshold)
    nothing = ImageDetections(np.zeros((0, 5), np.float32), np.zeros(0, np.int32))
    prediction = best_first(nothing, ("__background__",), 0.0, name="a", width=8, height=8)
    with pytest.raises(ConfigError, match="0 to 1"):
        prediction.filter(threshold)
    with pytest.raises(ConfigError, match="0 to 1"):
        prediction.draw(np.zeros((8, 8, 3), np.uint8), threshold)


@pytest.mark.parametrize("every", [0, 0.5, float("nan")])
def test_frames_are_taken_in_whole_numbers(every):
    with pytest.raises(ConfigError, match="every"):
        open_source(np.zeros((4, 4, 3), np.uint8), every=every)


@pytest.mark.parametrize(
    "command",
    [
        ["plain_train.py", "none", "--updates", "0"],
        ["plain_train.py", "none", "--updates", "-3"],
        ["plain_detect.py", "a.jpg", "a.params", "--threshold", "nan"],
    ],
)
def test_examples_refuse_them_too(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(REPO / "examples" / command[0]), run_name="__main__")
    assert end.value.code == 2 and command[-2] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20MB", 20_000_000), ("1.5 kB", 1500), ("7", 7), ("2gb", 2 * 10**9), ("3B", 3),
        ("15.5GiB", 31 * 2**29), ("0.5Ki", 512),
    ],
)  # fmt: skip
def test_sizes_in_their_units(text, size):
    assert as_bytes(text) == size


def test_sizes_of_images():
    assert as_image_size("1920x1080") == (1920, 1080)

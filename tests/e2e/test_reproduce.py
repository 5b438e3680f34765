"""`sniper reproduce`: a run is repeated bit for bit, and whatever was changed is found and named."""

from __future__ import annotations

import json
import shutil

import cv2
import pytest

from sniper.targets import rpn
from sniper.tools.reproduce import main as reproduce

SETTINGS = ("TRAIN.NUM_PROCESS", "0")


def _copy_of_data(tiny, folder):
    shutil.copytree(tiny.root / "toy", folder)
    return folder


@pytest.fixture(scope="module")
def run(tiny):
    """A finished run of two epochs with six updates each."""
    return tiny.train("repeated", overrides=SETTINGS)


def _result(capsys, *arguments):
    code = reproduce([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def test_a_run_is_the_same_again(run, capsys, tmp_path):
    out = tmp_path / "found.json"
    code, text = _result(capsys, run, "--json", out)
    assert code == 0, text
    assert "the same machine, packages, code, settings and data" in text
    assert "IDENTICAL: updates 1 to 12; compared 12 batches, and the weights 13 times" in text
    found = json.loads(out.read_text())
    assert found["identical"] and found["changes"] == [] and found["digest"] in text

"""`sniper plan-memory`."""

from __future__ import annotations

import json

import pytest

from sniper.tools.plan_memory import main

CPU = ["--cfg", "sniper_mobilenetv2_toy", "--image-size", "160x120", "--mode", "single"]


def run(*flags):
    return main([*CPU, *flags, "--set", "gpus", "cpu"])


def test_a_table_and_what_fits(capsys):
    assert run("--batch", "4", "--device-memory", "600MB") == 0
    out = capsys.readouterr().out
    assert out.startswith("sniper_mobilenetv2_toy on the CPU, fp32\nMB")
    rows = {line[:18].strip(): line[18:].split() for line in out.splitlines()[2:10]}
    parts = ("weights", "gradients", "optimizer", "batch", "activations", "workspace")
    total = sum(int(rows[name][0]) for name in parts)
    assert abs(total - int(rows["total"][0])) <= len(parts)
    assert rows["gradients"][1] == "-"
    assert "training, 4 chip(s) of 128 px" in out
    assert "largest training batch in 0.6 GB:" in out and "testing fits into 0.6 GB" in out


def test_json_has_everything_and_too_little_memory_is_said(capsys, tmp_path):
    assert run("--device-memory", "100MB", "--json", str(tmp_path / "plan.json")) == 0
    assert "not even one chip can be trained in 0.1 GB" in capsys.readouterr().out
    content = json.loads((tmp_path / "plan.json").read_text())
    training = content["training"]
    assert training["total_bytes"] == sum(training["bytes"].values())
    assert training["largest_batch"] == 0 and content["device_memory_bytes"] == 1e8
    assert content["on_gpu"] is False


def test_the_largest_batch_fits_and_one_more_does_not(capsys):
    assert run("--device-memory", "600MB", "--json", "-") == 0
    batch = json.loads(capsys.readouterr().out)["training"]["largest_batch"]
    for more, fits in ((0, True), (1, False)):
        run("--batch", str(batch + more), "--json", "-")
        training = json.loads(capsys.readouterr().out)["training"]
        assert (training["total_bytes"] + training["beside_bytes"] <= 600e6) is fits


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--chip-size", "100"], "CHIP_SIZE"),
        (["--measure", "--set", "gpus", "0"], "peaks are measured on one CPU device"),
        (["--mode", "focus"], "FocusPixel branch"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(flags, message, capsys):
    assert main(["--cfg", "sniper_mobilenetv2_toy", *flags]) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


@pytest.mark.parametrize("flags", [["--device-memory", "lots"], ["--image-size", "0x5"]])
def test_sizes_have_a_form(flags, capsys):
    assert main(flags) == 2
    assert "expected" in capsys.readouterr().err

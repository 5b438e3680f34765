"""`sniper plot-log`: what it reads, what it refuses, what it draws."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from sniper.errors import DataError
from sniper.tools.plot_log import main, read_run, run_names
from sniper.vis.curves import Curve, running_mean


def _write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(text + "\n" for text in texts))
    return path


def _train(update, epoch=0, loss=None, **others):
    values = {"RPNAcc": 0.5, "RPNLogLoss": 1.0 / update if loss is None else loss}
    return {"kind": "train", "epoch": epoch, "batch": 1, "update": update, **values, **others}


def _validation(update, **figures):
    return {"kind": "validation", "epoch": 0, "update": update, "set": "COCO_val", **figures}


def test_curves_of_a_run(tmp_path):
    lines = [
        _train(10, lr=0.1, chips_per_s=5.0, loss_scale=1.0, time=1e9),
        {"kind": "epoch", "epoch": 0, "update": 10, "RPNAcc": 0.1, "RPNLogLoss": 9.0},
        _validation(10, ap=0.2, ap50=0.4, ap_small=None, ar_100=0.3),
        _train(20, epoch=1, lr=0.01, chips_per_s=6.0, MaskLogLoss=0.5),
        _validation(20, ap=0.3, ap50=None),
    ]
    run = read_run(_write(tmp_path / "x.jsonl", lines), "x")
    assert list(run.metrics) == ["RPNAcc", "RPNLogLoss", "MaskLogLoss"]
    assert run.metrics["RPNLogLoss"].updates.tolist() == [10, 20]
    assert run.metrics["RPNLogLoss"].values.tolist() == [0.1, 0.05]
    assert run.metrics["MaskLogLoss"].updates.tolist() == [20]
    assert run.lr.values.tolist() == [0.1, 0.01]
    assert run.speed.values.tolist() == [5.0, 6.0]
    assert list(run.validation) == ["ap", "ap50"]
    assert run.validation["ap50"].updates.tolist() == [10]
    assert list(run.epoch_ends) == [10]


def test_lines_of_older_versions(tmp_path):
    line = {"epoch": 0, "batch": 10, "update": 10, "RPNAcc": 0.78, "RCNNLogLoss": 1.5}
    run = read_run(_write(tmp_path / "x.jsonl", [line]), "x")
    assert list(run.metrics) == ["RPNAcc", "RCNNLogLoss"]
    assert run.lr is None
    assert run.speed is None


def test_a_resumed_run_replaces_what_it_trained_again(tmp_path):
    lines = [_train(10), _train(20), _train(30, loss=7.0), _validation(30, ap=0.1), _train(40)]
    lines += [_train(30, loss=0.5), _validation(30, ap=0.2), _train(50, loss=0.25)]
    run = read_run(_write(tmp_path / "x.jsonl", lines), "x")
    assert run.metrics["RPNLogLoss"].updates.tolist() == [10, 20, 30, 50]
    assert run.metrics["RPNLogLoss"].values.tolist() == [0.1, 0.05, 0.5, 0.25]
    assert run.validation["ap"].values.tolist() == [0.2]


def test_a_validation_at_the_point_of_the_resume_stays(tmp_path):
    lines = [_train(10), _validation(10, ap=0.1), _train(20), _train(15), _train(20)]
    run = read_run(_write(tmp_path / "x.jsonl", lines), "x")
    assert run.validation["ap"].updates.tolist() == [10]
    assert run.metrics["RPNLogLoss"].updates.tolist() == [10, 15, 20]


def test_a_new_run_in_the_same_file_replaces_the_old_one(tmp_path):
    lines = [_train(10), _validation(10, ap=0.9), _train(20), _train(5), _train(12)]
    run = read_run(_write(tmp_path / "x.jsonl", lines), "x")
    assert run.metrics["RPNLogLoss"].updates.tolist() == [5, 12]
    assert not run.validation


def test_broken_lines_are_named_and_left_out(tmp_path, capsys):
    cut = json.dumps(_train(20))[:30]
    path = _write(tmp_path / "x.jsonl", [_train(10), cut, "", _train(30), '{"update": "x"}', "[1]"])
    run = read_run(path, "x")
    assert run.metrics["RPNAcc"].updates.tolist() == [10, 30]
    error = capsys.readouterr().err
    assert f"{path}:2 is broken" in error
    assert f"{path}:5 is broken" in error
    assert f"{path}:6 is broken" in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the log is empty"),
        ("\n\n", "the log is empty"),
        ("10:32:11 Epoch[0] Batch [10/50]\n", "no log of a training run"),
        ('{"a": 1}\n', "no log of a training run"),
        ('{"kind": "validation", "update": 3, "ap": 0.1}\n', "no line of training yet"),
        ("\x00\ufffd\n", "no log of a training run"),
    ],
)
def test_files_that_are_no_logs_are_refused(tmp_path, capsys, text, message):
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    assert main([str(path)]) == 3
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error
    assert not path.with_suffix(".png").exists()


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_run(tmp_path / "nothing.jsonl", "x")


def test_wrong_flags(tmp_path, capsys):
    path = str(_write(tmp_path / "x.jsonl", [_train(10)]))
    for flags in (["--out", "x.pdf"], ["--names", "a", "b"], ["--smooth", "0"]):
        assert main([path, *flags]) == 2
    assert "--names must give 1" in capsys.readouterr().err


def test_names_tell_runs_apart(tmp_path):
    paths = [tmp_path / "a" / "t" / "x.jsonl", tmp_path / "b" / "t" / "x.jsonl"]
    assert run_names(paths[:1]) == ["x"]
    assert run_names(paths) == ["a/t/x", "b/t/x"]
    assert run_names([paths[0], tmp_path / "y.jsonl"]) == ["x", "y"]
    assert run_names([paths[0], paths[0]]) == ["1: x", "2: x"]


def _coloured(image, colour):
    """Pixels near an RGB colour."""
    rgb = image[:, :, ::-1].astype(int)
    return int((np.abs(rgb - np.array(colour)).max(axis=2) < 40).sum())


BLUE, ORANGE = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)


def test_pictures_of_one_run_and_of_two(tmp_path, capsys):
    first = [_train(10 * i, lr=0.1 / i, epoch=i // 9) for i in range(1, 40)]
    one = _write(tmp_path / "one.jsonl", [*first, _validation(300, ap=0.25, ap50=0.5)])
    other = _write(tmp_path / "other.jsonl", [_train(10 * i, loss=2.0 / i) for i in range(1, 9)])
    assert main([str(one)]) == 0
    alone = cv2.imread(str(tmp_path / "one.png"))
    assert _coloured(alone, BLUE) > 500
    assert _coloured(alone, ORANGE) == 0
    out = tmp_path / "deep" / "both.png"
    names = ["--names", "lr 0.1", "lr 0.2", "--out", str(out)]
    assert main([str(one), str(other), *names]) == 0
    assert _coloured(cv2.imread(str(out)), ORANGE) > 200
    text = capsys.readouterr().out
    assert "best ap 25.0, best ap50 50.0" in text
    assert "lr 0.2: 80 updates" in text


def test_a_single_line_makes_a_picture(tmp_path):
    assert main([str(_write(tmp_path / "x.jsonl", [_train(10, lr=0.0)]))]) == 0
    assert (tmp_path / "x.png").exists()


def test_running_mean_weighs_values_with_their_updates():
    updates = np.array([10, 20, 30, 32, 42])
    values = np.array([1.0, 2.0, 3.0, 100.0, 5.0])
    means = running_mean(Curve(updates, values), 3)
    # 8 updates lie between two values on average: 12 to both sides, and less near the ends.
    expected = [1.0, 2.0, (20 + 30 + 200 + 50) / 32, (30 + 200 + 50) / 22, 5.0]
    np.testing.assert_allclose(means, expected)
    values[1] = np.nan
    means = running_mean(Curve(updates, values), 3)
    np.testing.assert_allclose(means[:2], [1.0, (10 + 30) / 20])

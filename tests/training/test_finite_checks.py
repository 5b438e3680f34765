"""What stops a run: losses, gradients and weights that are not finite."""

import types

import mxnet as mx
import numpy as np
import pytest

from sniper import files
from sniper.errors import TrainingError
from sniper.loader.train import Batch
from sniper.training.finite_checks import check_step, check_weights
from sniper.training.stepper import StepResult

LOSSES = {"RPNLogLoss": 0.5, "RCNNLogLoss": 0.25}


def _batch():
    data = {"data": np.zeros((4, 3, 8, 8), np.float32)}
    label = {"label": np.ones((4, 6), np.float32)}
    return Batch(data, label, 17, [f"{name}.jpg" for name in "abca"], [0] * 4)


def _result(outputs=None, **changes):
    outputs = outputs or {"rpn_cls_prob": np.zeros((4, 2, 3, 2), np.float32)}
    settings = {"updated": True, "skipped": False, "loss_scale": 1.0, **changes}
    return StepResult(outputs, **settings)


def _check(tmp_path, result, losses=LOSSES):
    check_step(_batch(), result, losses, epoch=3, file=tmp_path / "bad_batch.npz")


def test_good_steps_pass_and_so_do_updates_that_the_loss_scale_skips(tmp_path):
    _check(tmp_path, _result())
    _check(tmp_path, _result(updated=False, skipped=True, loss_scale=1024.0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_loss_is_named_with_its_images_and_the_batch_is_saved(tmp_path, value):
    outputs = {
        "rpn_cls_prob": np.zeros((4, 2, 3, 2), np.float32),
        "cls_prob_reshape": np.zeros((1, 4, 5, 3), np.float32).reshape(4, 5, 3),
        "roi_label": np.zeros((20,), np.float32),
    }
    outputs["cls_prob_reshape"][1, 2, 0] = np.nan
    outputs["roi_label"][13] = np.inf
    with pytest.raises(TrainingError) as caught:
        _check(tmp_path, _result(outputs), {**LOSSES, "RCNNLogLoss": value})
    text = str(caught.value)
    assert "the loss is not finite: RCNNLogLoss" in text
    assert "epoch 3, batch 17" in text
    assert "images b.jpg, c.jpg\n" in text, "chips 1 and 2 alone"
    assert "--resume" in text
    with np.load(tmp_path / "bad_batch.npz") as saved:
        assert saved["data"].shape == (4, 3, 8, 8)
        assert saved["label"].shape == (4, 6)


def test_all_images_are_named_when_no_output_tells_which(tmp_path):
    names = tuple(f"conv{index}_weight" for index in range(7))
    with pytest.raises(TrainingError) as caught:
        _check(tmp_path, _result(updated=False, skipped=True, bad_gradients=names))
    text = str(caught.value)
    assert "gradients are not finite: conv0_weight" in text
    assert "conv4_weight and 2 more" in text
    assert "images a.jpg, b.jpg, c.jpg\n" in text


def test_the_loss_is_named_even_if_the_batch_cannot_be_saved(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "os", types.SimpleNamespace(fsync=full, getpid=lambda: 1))
    with pytest.raises(TrainingError) as caught:
        _check(tmp_path, _result(), {"RPNLogLoss": np.nan})
    assert "the loss is not finite: RPNLogLoss" in str(caught.value)
    assert "could not be saved" in str(caught.value)


def test_bad_weights_are_not_saved():
    good = {"a_weight": mx.nd.ones((2, 2))}
    check_weights(good, {})
    with pytest.raises(TrainingError, match="a_moving_var"):
        check_weights(good, {"a_moving_var": mx.nd.array([1.0, np.inf])})

"""Masks and FocusPixels are trained from annotations to checkpoint by the training program."""

import json
import logging

import numpy as np
import pytest

from sniper.models.weights import read_params

HEADS = (
    *("TRAIN.WITH_MASK", "True", "TRAIN.AUTO_FOCUS", "True"),
    *("TRAIN.AUTO_FOCUS_DC_LOW", "5", "TRAIN.AUTO_FOCUS_SMALL_THRESH", "64"),
    *("TRAIN.AUTO_FOCUS_DC_HIGH", "90", "TRAIN.MAX_UPDATES", "3"),
)
METRICS = ("RPNLogLoss", "RCNNLogLoss", "AutoFocusAcc", "AutoFocusLogLoss", "MaskLogLoss")
# The tiny recipe is one for MobileNetV2.
RESNET = ("network.RPN_FEAT_STRIDE", "16", "network.ACTIVATION", "relu6")


def run(tiny, symbol, *overrides):
    """Parameters and lines of the log of a short run."""
    resnet = RESNET if symbol.startswith("resnet") else ()
    name = "_".join(("heads", symbol, *overrides[1::2]))
    folder = tiny.train(name, overrides=("symbol", symbol, *HEADS, *resnet, *overrides))
    arg, _ = read_params(next(folder.glob("*.params")))
    lines = next(folder.glob("*.jsonl")).read_text().splitlines()
    return arg, [json.loads(line) for line in lines]


@pytest.mark.parametrize("symbol", ["mobilenetv2_e2e_mask", "resnet_mx_18_e2e_mask"])
def test_all_heads_train(tiny, symbol):
    arg, lines = run(tiny, symbol)
    for layer in ("conv_new_out", "mask_out", "mask_deconv"):
        weight = arg[f"{layer}_weight"].asnumpy()
        assert np.isfinite(weight).all() and weight.any()
    losses = {name: [line[name] for line in lines if name in line] for name in METRICS}
    assert all(len(values) >= 3 and np.isfinite(values).all() for values in losses.values()), losses


def test_proposals_of_a_mask_recipe_train_without_the_other_heads(tiny, caplog):
    with caplog.at_level(logging.INFO):
        arg, lines = run(tiny, "resnet_mx_18_e2e_mask", "TRAIN.ONLY_PROPOSAL", "True")
    assert caplog.text.count("is ignored: TRAIN.ONLY_PROPOSAL") == 2
    assert not any(name.startswith(("mask", "conv_new", "stage4")) for name in arg)
    assert all("MaskLogLoss" not in line and "AutoFocusAcc" not in line for line in lines)
    assert any("RPNLogLoss" in line for line in lines)

"""Norms up to which nothing is trained use their stored statistics, as in detection."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper.config import load_config
from sniper.models.assembly import build_detector
from sniper.models.untrained_norms import with_stored_statistics
from sniper.models.weights import fixed_names
from sniper.runs.plan import train_plan


def network():
    body = mx.sym.BatchNorm(mx.sym.Variable("data"), name="bn_data")
    body = mx.sym.Convolution(body, num_filter=4, kernel=(3, 3), name="conv0", no_bias=True)
    body = mx.sym.BatchNorm(body, name="bn0", fix_gamma=False)
    return mx.sym.Convolution(body, num_filter=2, kernel=(1, 1), name="conv1", no_bias=True)


NORMS = ["bn_data_gamma", "bn_data_beta"], ["conv0_weight"], ["bn0_gamma", "bn0_beta"]


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ([], []),
        ([*NORMS[0]], ["bn_data"]),
        ([*NORMS[0], *NORMS[2]], ["bn_data"]),
        ([*NORMS[0], *NORMS[1]], ["bn_data"]),
        ([*NORMS[0], *NORMS[1], *NORMS[2]], ["bn_data", "bn0"]),
        (["bn_data_beta", "conv0_weight"], []),
        ([*NORMS[1], *NORMS[2]], []),
    ],
)
def test_which_ones(fixed, expected):
    symbol = network()
    trained = [name for name in symbol.list_arguments() if name != "data" and name not in fixed]
    changed, norms = with_stored_statistics(symbol, trained)
    assert norms == expected and (changed is symbol) == (not expected)
    assert changed.list_arguments() == symbol.list_arguments()
    # These are the norms whose statistics MXNet would not update.
    left = statistics_after_a_step(symbol, trained)
    assert [name for name in ("bn_data", "bn0") if name in left] == expected


def statistics_after_a_step(symbol, trained):
    """Names of the norms whose stored mean is as it was."""
    requests = {name: "write" for name in trained}
    bound = symbol.simple_bind(mx.cpu(), grad_req=requests, data=(2, 3, 8, 8))
    rng = np.random.default_rng(0)
    for array in bound.arg_arrays:
        array[:] = rng.normal(1, 1, array.shape)
    bound.forward(is_train=True)
    bound.backward([mx.nd.ones(bound.outputs[0].shape)])
    mx.nd.waitall()  # statistics are written in the backward pass
    return [name for name in ("bn_data", "bn0") if not bound.aux_dict[f"{name}_moving_mean"].sum()]


def test_training_computes_what_detection_does():
    symbol = network()
    changed, _ = with_stored_statistics(symbol, ["conv1_weight"])
    bound = changed.simple_bind(mx.cpu(), grad_req="null", data=(2, 3, 8, 8))
    rng = np.random.default_rng(0)
    for array in (*bound.arg_arrays, *bound.aux_arrays):
        array[:] = rng.uniform(0.5, 2, array.shape)
    in_training = bound.forward(is_train=True)[0].asnumpy()
    np.testing.assert_array_equal(in_training, bound.forward(is_train=False)[0].asnumpy())


@pytest.mark.parametrize(
    "recipe", ["sniper_res101_e2e", "sniper_mobilenetv2_e2e", "res101_mx_3k", "open_res101_mx_e2e"]
)
def test_no_network_of_2018_changes(recipe):
    plan = train_plan(load_config(recipe, ["gpus", "cpu"]))
    symbol = build_detector(plan.detector, train=True)
    fixed = fixed_names(symbol, plan.weights.fixed)
    trained = set(symbol.list_arguments()).difference(fixed, ["data"])
    assert with_stored_statistics(symbol, trained)[1] == []

"""A network of a few hundred weights with the losses of a detector, for tests of the step."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from sniper.loader.train import Batch
from sniper.models.assembly import DetectorSpec
from sniper.training.step_settings import StepSettings
from sniper.training.stepper import Stepper

CLASSES, SIDE, FEATURES = 5, 6, 8
SETTINGS = {
    "lr": 0.1,
    "steps": (6,),
    "warmup_lr": 0.02,
    "warmup_step": 4,
    "momentum": 0.9,
    "wd": 0.01,
    "fixed": ("conv0_weight",),
}


def toy_symbol(images, *, frozen=False, scale=1.0, fp16=False):
    """Two losses, batch norm, a frozen layer and one with a learning-rate multiplier."""
    body = mx.sym.Variable("data")
    body = mx.sym.Convolution(
        body, num_filter=FEATURES, kernel=(3, 3), pad=(1, 1), no_bias=True, name="conv0"
    )
    body = mx.sym.BatchNorm(body, fix_gamma=False, use_global_stats=frozen, name="bn0")
    if fp16:  # element-wise: MXNet has no fp16 convolution on the CPU
        body = mx.sym.cast(body, "float16")
        gain = mx.sym.Variable("gain_weight", shape=(1, FEATURES, 1, 1))
        body = mx.sym.cast(mx.sym.broadcast_mul(body, gain), "float32")
    body = mx.sym.Activation(body, act_type="relu")
    with mx.AttrScope(__lr_mult__="0.25"):
        body = mx.sym.FullyConnected(body, num_hidden=16, name="slow")
    body = mx.sym.Activation(body, act_type="tanh")
    scores = mx.sym.FullyConnected(body, num_hidden=CLASSES, name="cls")
    deltas = mx.sym.FullyConnected(body, num_hidden=4, name="delta")
    probability = mx.sym.SoftmaxOutput(
        scores,
        mx.sym.Variable("label"),
        normalization="valid",
        use_ignore=True,
        ignore_label=-1,
        grad_scale=scale,
        name="prob",
    )
    error = mx.sym.smooth_l1(deltas - mx.sym.Variable("box_target"), scalar=1.0)
    box_loss = mx.sym.MakeLoss(
        mx.sym.Variable("box_weight") * error, grad_scale=scale / images, name="box_loss"
    )
    return mx.sym.Group([probability, box_loss])


def toy_shapes(images):
    return {
        "data": (images, 3, SIDE, SIDE),
        "label": (images,),
        "box_target": (images, 4),
        "box_weight": (images, 4),
    }


def toy_weights(symbol, images, seed=0):
    shapes = toy_shapes(images)
    arg_shapes, _, aux_shapes = symbol.infer_shape(**shapes)
    rng = np.random.default_rng(seed)

    def value(name, shape):
        if name.endswith(("gamma", "var", "gain_weight")):
            return np.ones(shape)
        return 0.3 * rng.standard_normal(shape) * (not name.endswith(("mean", "beta", "bias")))

    named = [
        (name, shape)
        for name, shape in zip(symbol.list_arguments(), arg_shapes)
        if name not in shapes
    ]
    arg = {name: mx.nd.array(value(name, shape)) for name, shape in named}
    names = zip(symbol.list_auxiliary_states(), aux_shapes)
    return arg, {name: mx.nd.array(value(name, shape)) for name, shape in names}


def toy_batch(images, seed, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "data": rng.standard_normal((images, 3, SIDE, SIDE)),
        "label": rng.integers(0, CLASSES, images),
        "box_target": rng.standard_normal((images, 4)),
        "box_weight": rng.integers(0, 2, (images, 4)),
    }
    arrays = {name: value.astype(np.float32) for name, value in {**arrays, **changes}.items()}
    data = {"data": arrays.pop("data")}
    return Batch(data, arrays, seed, [f"{i}.jpg" for i in range(images)], [0] * images)


def joined(first, second):
    """One batch with the chips of two."""

    def both(group):
        one, other = getattr(first, group), getattr(second, group)
        return {name: np.concatenate([one[name], other[name]]) for name in one}

    return Batch(both("data"), both("label"), first.index, [], [])


def toy_spec(images, scale=1.0):
    return DetectorSpec("resnet_mx_18_e2e", CLASSES, (1,), (1,), 16, images, loss_scale=scale)


def make_stepper(
    images=4, *, devices=1, kvstore=None, frozen=False, fp16=False, seed=0, **settings
):
    settings = StepSettings(**{**SETTINGS, **settings})
    symbol = toy_symbol(images, frozen=frozen, scale=settings.loss_scale, fp16=fp16)
    return Stepper(
        toy_spec(images, settings.loss_scale),
        symbol,
        [mx.cpu(i) for i in range(devices)],
        toy_shapes(images),
        *toy_weights(symbol, images, seed),
        settings,
        kvstore=kvstore,
    )


def values(stepper):
    """All parameters and statistics as NumPy arrays."""
    arg, aux = stepper.params()
    return {name: value.asnumpy() for name, value in {**arg, **aux}.items()}


def is_statistic(name):
    return "moving" in name


def assert_same(one, other, **tolerance):
    """Equal bit for bit, or within a tolerance."""
    assert one.keys() == other.keys()
    for name in one:
        if tolerance:
            np.testing.assert_allclose(one[name], other[name], err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)

"""Weight files, `_test` tensors, starting values and the load report."""

import dataclasses
import os
import resource
import signal
import struct

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import ConfigError, DataError, TrainingError
from sniper.models.assembly import DetectorSpec, build_detector, train_input_shapes
from sniper.models.initialisers import initial_value
from sniper.models.weights import (
    fixed_names,
    for_test,
    initialise,
    read_params,
    with_test_params,
    write_params,
)

SPEC = DetectorSpec(
    "mobilenetv2_e2e", 4, (1, 2), (0.5, 1), 32, batch_images=1, width=0.25, fc_channels=16
)


def as_nd(**arrays):
    return {name: mx.nd.array(value, dtype=value.dtype) for name, value in arrays.items()}


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    arg = as_nd(
        a_weight=rng.normal(size=(3, 2, 1, 1)).astype(np.float32),
        b_weight=rng.normal(size=(5,)).astype(np.float16),
    )
    return arg, as_nd(a_moving_var=rng.random(7).astype(np.float32))


@pytest.fixture(scope="module")
def network():
    return build_detector(SPEC, train=True), train_input_shapes(SPEC, 64)


def test_round_trip_keeps_values_types_and_order(tmp_path, tensors):
    arg, aux = tensors
    write_params(tmp_path / "new" / "m-0001.params", arg, aux)
    arg2, aux2 = read_params(tmp_path / "new" / "m-0001.params")
    assert list(arg2) == list(arg) and list(aux2) == list(aux)
    for name, value in {**arg, **aux}.items():
        read = {**arg2, **aux2}[name]
        assert read.dtype == value.dtype
        np.testing.assert_array_equal(read.asnumpy(), value.asnumpy())


def test_files_are_byte_for_byte_those_of_mxnet(tmp_path, tensors):
    arg, aux = tensors
    write_params(tmp_path / "ours.params", arg, aux)
    theirs = {f"arg:{k}": v for k, v in arg.items()} | {f"aux:{k}": v for k, v in aux.items()}
    mx.nd.save(str(tmp_path / "theirs.params"), theirs)
    assert (tmp_path / "ours.params").read_bytes() == (tmp_path / "theirs.params").read_bytes()


def test_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path, tensors):
    path = tmp_path / "m-0001.params"
    write_params(path, *tensors)
    before = path.read_bytes()
    large = {"big_weight": mx.nd.ones((100_000,))}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"m-0001\.params"):
            write_params(path, large, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("keep", [0, 4, 20, 60, -1])
def test_truncated_files_are_refused(tmp_path, tensors, keep):
    path = tmp_path / "m-0001.params"
    write_params(path, *tensors)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"m-0001\.params"):
        read_params(path)


def test_missing_foreign_and_nameless_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="gone-0000"):
        read_params(tmp_path / "gone-0000.params")
    (tmp_path / "page.params").write_text("<html>not found</html>")
    with pytest.raises(DataError, match="no MXNet parameter file"):
        read_params(tmp_path / "page.params")
    mx.nd.save(str(tmp_path / "bare.params"), {"weight": mx.nd.ones((1,))})
    with pytest.raises(DataError, match="prefix"):
        read_params(tmp_path / "bare.params")
    mx.nd.save(str(tmp_path / "list.params"), [mx.nd.ones((1,))])
    with pytest.raises(DataError, match="no named tensors"):
        read_params(tmp_path / "list.params")
    header = struct.pack("<QQQ", 0x112, 0, 2**60)
    (tmp_path / "huge.params").write_bytes(header + b"x" * 100)
    with pytest.raises(DataError, match="damaged"):
        read_params(tmp_path / "huge.params")


def test_test_tensors_hold_plain_deltas():
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    bias = np.array([1, 2, 3, 4], np.float32)
    arg = as_nd(bbox_pred_weight=weight, bbox_pred_bias=bias, fc_test_weight=bias)
    full = with_test_params(arg)
    assert set(full) - set(arg) == {"bbox_pred_weight_test", "bbox_pred_bias_test"}
    factors = np.array([0.1, 0.1, 0.2, 0.2], np.float32)
    tested = for_test(full)
    assert set(tested) == set(arg)
    np.testing.assert_allclose(tested["bbox_pred_weight"].asnumpy(), weight * factors[:, None])
    np.testing.assert_allclose(tested["bbox_pred_bias"].asnumpy(), bias * factors)
    # "_test" inside a name is no suffix.
    np.testing.assert_array_equal(tested["fc_test_weight"].asnumpy(), bias)
    np.testing.assert_array_equal(full["bbox_pred_weight"].asnumpy(), weight)


def test_rpn_only_weights_have_no_test_tensors():
    arg = as_nd(rpn_conv_3x3_bias=np.zeros(2, np.float32))
    assert set(with_test_params(arg)) == set(arg)


def test_starting_values_from_scratch(network):
    arg, aux, report = initialise(*network, None, seed=3)
    assert report.loaded == 0 and not report.missing and not report.reshaped
    assert set(report.initialised) == set(arg) | set(aux)
    for name, value in {**arg, **aux}.items():
        data, layer = value.asnumpy(), name.rpartition("_")[0]
        assert data.dtype == np.float32
        if name.endswith(("_bias", "_beta", "_moving_mean")) or layer == "offset":
            assert not data.any(), name
        elif name.endswith(("_gamma", "_moving_var")):
            assert (data == 1).all(), name
        else:
            head = not layer.endswith("conv2d")
            std = 0.01 if head else np.sqrt(2 / np.prod(data.shape[1:]))
            assert abs(data.std() / std - 1) < 6 / np.sqrt(2 * data.size), name


def test_starting_values_depend_on_seed_and_name_only(network):
    first, _, _ = initialise(*network, None, seed=1)
    again, _, _ = initialise(*network, None, seed=1)
    other, _, _ = initialise(*network, None, seed=2)
    rpn = build_detector(SPEC, train=True, rpn_only=True)
    small, _, _ = initialise(rpn, train_input_shapes(SPEC, 64, rpn_only=True), None, seed=1)
    for name in first:
        np.testing.assert_array_equal(first[name].asnumpy(), again[name].asnumpy())
    name = "seq-3-block1-exp-conv2d_weight"
    assert (first[name].asnumpy() != other[name].asnumpy()).all()
    np.testing.assert_array_equal(first[name].asnumpy(), small[name].asnumpy())
    twin = "seq-3-block2-exp-conv2d_weight"
    assert (first[name].asnumpy() != first[twin].asnumpy()).all()


def test_pretrained_tensors_are_loaded_and_the_report_names_the_rest(network):
    arg, aux, _ = initialise(*network, None, seed=1)
    stored = {n: v for n, v in arg.items() if n.endswith(("conv2d_weight", "gamma", "beta"))}
    first = stored["first-3x3-conv-conv2d_weight"]
    stored["first-3x3-conv-conv2d_weight"] = mx.nd.ones(first.shape).astype("float16")
    wanted = stored["seq-1-block0-exp-conv2d_weight"].shape
    stored["seq-1-block0-exp-conv2d_weight"] = mx.nd.ones((7, 3))
    stored["fc1_weight"] = mx.nd.ones((2, 2))
    new, new_aux, report = initialise(*network, (stored, aux), seed=9)
    assert new["first-3x3-conv-conv2d_weight"].dtype == np.float32
    assert (new["first-3x3-conv-conv2d_weight"].asnumpy() == 1).all()
    assert report.unexpected == ("fc1_weight",)
    assert report.reshaped == (("seq-1-block0-exp-conv2d_weight", (7, 3), wanted),)
    assert not report.missing
    heads = {"rpn_conv_3x3_weight", "offset_bias", "cls_score_weight", "fc_new_2_bias"}
    assert heads < set(report.initialised)
    assert report.loaded + len(report.initialised) == len(new) + len(new_aux)
    text = str(report)
    assert "fc1_weight" in text and f"(7, 3) -> {wanted}" in text


def test_missing_backbone_tensors_are_an_error_that_names_them(network):
    arg, aux, _ = initialise(*network, None, seed=1)
    del arg["seq-2-block1-linear-conv2d_weight"], aux["last-1x1-conv-batchnorm_moving_var"]
    with pytest.raises(DataError, match=r"seq-2-block1-linear-conv2d_weight, last-1x1-conv"):
        initialise(*network, (arg, aux), seed=1)
    _, _, report = initialise(*network, (arg, aux), seed=1, allow_missing=True)
    assert report.missing == report.initialised
    assert len(report.missing) == 2


def test_heads_of_a_detector_are_kept_unless_reset(network):
    arg, aux, _ = initialise(*network, None, seed=1)
    arg = with_test_params(arg)
    kept, _, report = initialise(*network, (arg, aux), seed=2)
    assert not report.unexpected and not report.initialised
    np.testing.assert_array_equal(
        kept["cls_score_weight"].asnumpy(), arg["cls_score_weight"].asnumpy()
    )
    reset, _, report = initialise(*network, (arg, aux), seed=2, reset_heads=True)
    assert "cls_score_weight" in report.initialised
    assert (reset["cls_score_weight"].asnumpy() != arg["cls_score_weight"].asnumpy()).any()


def test_shapes_that_do_not_fit_are_a_config_error(network):
    symbol, shapes = network[0], dict(network[1])
    with pytest.raises(ConfigError, match="do not fit"):
        initialise(symbol, {**shapes, "data": (1, 3, 64)}, None, seed=0)
    del shapes["gt_boxes"]
    with pytest.raises(ConfigError, match="gt_boxes"):
        initialise(symbol, shapes, None, seed=0)


def test_fixed_names_match_anywhere_once_and_only_parameters(network):
    symbol, _ = network
    names = fixed_names(symbol, ["gamma", "beta", "batchnorm"])
    assert names == [n for n in symbol.list_arguments() if n.endswith(("gamma", "beta"))]
    assert fixed_names(symbol, []) == fixed_names(symbol, [""]) == []
    # The label tensors bbox_target and bbox_weight are no parameters.
    layers = ("rpn_bbox_pred", "bbox_pred")
    expected = [f"{layer}_{kind}" for layer in layers for kind in ("weight", "bias")]
    assert fixed_names(symbol, ["bbox_"]) == expected


def test_start_from_scratch_keeps_the_gradient_alive(network):
    legacy, _, _ = initialise(*network, None, seed=1)
    scratch, _, _ = initialise(*network, None, seed=1, init="scratch")
    for name in ("rpn_conv_3x3_weight", "conv_new_1_weight", "fc_new_1_weight", "fc_new_2_weight"):
        fan_in = np.prod(legacy[name].shape[1:])
        assert scratch[name].asnumpy().std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        assert legacy[name].asnumpy().std() == pytest.approx(0.01, rel=0.1)
    changed = {n for n in legacy if not np.array_equal(legacy[n].asnumpy(), scratch[n].asnumpy())}
    residual = {n for n in changed if n.endswith("_gamma")}
    assert len(residual) == 10, "the blocks of MobileNetV2 that have a shortcut"
    for name in residual:
        assert not scratch[name].asnumpy().any()
    assert len(changed) == len(residual) + 4, "the layers that predict still start at N(0, 0.01)"


def test_bottlenecks_from_scratch_begin_as_identities():
    spec = dataclasses.replace(SPEC, symbol="resnet_mx_50_e2e", feature_stride=16, width=0.125)
    shapes = train_input_shapes(spec, 64)
    arg, aux, _ = initialise(build_detector(spec, train=True), shapes, None, 0, init="scratch")
    ends = {name for name in arg if name.endswith("_conv3_weight")}
    zero = {name for name in ends if not arg[name].asnumpy().any()}
    assert len(ends) == 3 + 4 + 6 + 3
    assert ends - zero == {f"stage{stage}_unit1_conv3_weight" for stage in (1, 2, 3, 4)}
    internals = build_detector(spec, train=True).get_internals()
    names = ("stage3_unit1_plus_output", "stage3_unit6_plus_output")
    stage = mx.sym.Group([internals[name] for name in names])
    image = mx.nd.random.normal(shape=shapes["data"])
    own = {name: arg[name] for name in stage.list_arguments() if name != "data"}
    running = {name: aux[name] for name in stage.list_auxiliary_states()}
    first, last = stage.bind(mx.cpu(), {"data": image, **own}, aux_states=running).forward()
    assert first.asnumpy().any()
    np.testing.assert_array_equal(first.asnumpy(), last.asnumpy())


def test_deconvolution_from_scratch_keeps_the_size_of_its_input():
    # Inputs come first in its weight, and each of its outputs is made of one pixel.
    value = initial_value("mask_deconv_weight", (64, 16, 2, 2), seed=0, init="scratch")
    assert value.std() == pytest.approx((2 / 64) ** 0.5, rel=0.1)


def test_start_from_scratch_does_not_touch_loaded_tensors(network):
    arg, aux, _ = initialise(*network, None, seed=1)
    kept, _, _ = initialise(*network, (arg, aux), seed=1, init="scratch")
    name = "seq-3-block1-linear-batchnorm_gamma"
    np.testing.assert_array_equal(kept[name].asnumpy(), arg[name].asnumpy())

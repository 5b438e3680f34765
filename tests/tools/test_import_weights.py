"""The imported MobileNetV2 against a plain NumPy version of its source model."""

import cv2
import mxnet as mx
import numpy as np
import pytest

from sniper.errors import DataError
from sniper.models.assembly import DetectorSpec, build_detector, train_input_shapes
from sniper.models.backbones.blocks import NormSettings
from sniper.models.backbones.mobilenetv2 import MobileNetOptions, mobilenetv2_features
from sniper.models.weights import initialise, read_params
from sniper.tools.import_weights import PIXEL_MEANS, main
from sniper.tools.weights.folded_mobilenet import convert_mobilenetv2, read_folded

# (expansion, output channels, stride) of the 17 blocks of MobileNetV2 1.0.
BLOCKS = (
    [(1, 16, 1)]
    + [(6, 24, 2), (6, 24, 1)]
    + [(6, 32, 2)]
    + [(6, 32, 1)] * 2
    + [(6, 64, 2)]
    + [(6, 64, 1)] * 3
    + [(6, 96, 1)] * 3
    + [(6, 160, 2)]
    + [(6, 160, 1)] * 2
    + [(6, 320, 1)]
)
NAMES = [f"seq-{i}-block{j}" for i, n in enumerate((1, 2, 3, 4, 3, 3, 1)) for j in range(n)]
SIDE = 64
GREY = (127.5, 127.5, 127.5)


def source_layers():
    """Random folded layers whose activations keep a sensible size."""
    rng = np.random.default_rng(5)

    def layer(name, *shape):
        weight = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        return {f"{name}_weight": weight, f"{name}_bias": rng.normal(0, 0.5, shape[0])}

    layers = layer("conv0", 32, 3, 3, 3)
    channels = 32
    for index, (expansion, out, _) in enumerate(BLOCKS):
        inner = channels * expansion
        if expansion > 1:
            layers |= layer(f"b{index}_exp", inner, channels, 1, 1)
        layers |= layer(f"b{index}_dw", inner, 1, 3, 3)
        layers |= layer(f"b{index}_proj", out, inner, 1, 1)
        channels = out
    layers |= layer("conv_last", 1280, channels, 1, 1)
    return {name: value.astype(np.float32) for name, value in layers.items()}


def conv(x, layers, name, stride=1, act=True):
    """TF "SAME" convolution plus bias on one image (C, H, W); depthwise for (C, 1, 3, 3)."""
    weight, bias = layers[f"{name}_weight"], layers[f"{name}_bias"]
    size = weight.shape[2]
    if size == 1:
        y = np.tensordot(weight[:, :, 0, 0], x, 1)
    else:
        sides = [(0, 0)]
        for side in x.shape[1:]:
            total = max((-(-side // stride) - 1) * stride + size - side, 0)
            sides.append((total // 2, total - total // 2))
        x = np.pad(x, sides)
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
        windows = windows[:, ::stride, ::stride]
        if weight.shape[1] == 1:
            y = np.einsum("chwij,cij->chw", windows, weight[:, 0])
        else:
            y = np.einsum("chwij,ocij->ohw", windows, weight)
    y = y + bias[:, None, None]
    return np.clip(y, 0, 6) if act else y


def source_features(rgb, layers):
    """Outputs of the source model by our block names, for RGB pixels (3, H, W) in 0..255."""
    taps = {"first-3x3-conv": conv(rgb / 127.5 - 1, layers, "conv0", 2)}
    x = taps["first-3x3-conv"]
    for index, ((expansion, out, stride), name) in enumerate(zip(BLOCKS, NAMES)):
        y = conv(x, layers, f"b{index}_exp") if expansion > 1 else x
        y = conv(y, layers, f"b{index}_dw", stride)
        y = conv(y, layers, f"b{index}_proj", act=False)
        x = taps[name] = x + y if stride == 1 and x.shape[0] == out else y
    taps["last-1x1-conv"] = conv(x, layers, "conv_last")
    return taps


def our_features(rgb, arrays, pixel_means, names, **options):
    """Outputs of our network, given the same pixels minus the means."""
    symbol = mobilenetv2_features(
        mx.sym.Variable("data"),
        MobileNetOptions(NormSettings(frozen=True), **{"padding": "tf_same", **options}),
    )
    inner = symbol.get_internals()
    group = mx.sym.Group([inner[f"{name}_output"] for name in names])
    data = rgb - np.asarray(pixel_means, np.float32)[::-1, None, None]
    executor = group.simple_bind(mx.cpu(), grad_req="null", data=(1, 3, *rgb.shape[1:]))
    arg, aux = ({n: mx.nd.array(v) for n, v in part.items()} for part in arrays)
    executor.copy_params_from(arg, aux, allow_extra_params=True)
    executor.forward(is_train=False, data=mx.nd.array(data[None]))
    return [output.asnumpy()[0] for output in executor.outputs]


def our_names():
    shortcuts = [f"{n}-shortcut" if n[-1] != "0" else f"{n}-linear-batchnorm" for n in NAMES]
    return ["first-3x3-conv-cut", *shortcuts, "last-1x1-conv-relu6"]


def pixels(side=SIDE):
    return np.random.default_rng(1).integers(0, 256, (3, side, side)).astype(np.float32)


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-4 * np.abs(theirs).max())


def test_all_features_equal_the_source_when_both_pad_with_grey():
    layers, rgb, means = source_layers(), pixels(), GREY
    expected = source_features(rgb, layers)
    arrays = convert_mobilenetv2(layers, means)
    ours = our_features(rgb, arrays, means, our_names())
    for (name, theirs), feature in zip(expected.items(), ours):
        assert theirs.std() > 0.05, name
        assert_close(feature, theirs)


def test_with_our_means_only_the_end_of_rows_and_columns_differs():
    layers, rgb = source_layers(), pixels()
    expected = source_features(rgb, layers)
    arrays = convert_mobilenetv2(layers, PIXEL_MEANS)
    names = ["first-3x3-conv-cut", "seq-1-block0-linear-batchnorm", "seq-2-block0-linear-batchnorm"]
    sources = ("first-3x3-conv", "seq-1-block0", "seq-2-block0")
    # The padded row and column reach one cell further with every 3x3 convolution of stride 1.
    for ours, source, margin in zip(
        our_features(rgb, arrays, PIXEL_MEANS, names), sources, (1, 2, 2)
    ):
        theirs = expected[source]
        assert_close(ours[:, :-margin, :-margin], theirs[:, :-margin, :-margin])
        assert np.abs(ours[:, -1] - theirs[:, -1]).max() > 0.01


def cosine(a, b):
    return np.vdot(a, b) / np.sqrt(np.vdot(a, a) * np.vdot(b, b))


def test_real_weights_on_a_real_picture(coco_mini):
    """The imported backbone away from the borders, at them, and with the padding of 2018."""
    path = coco_mini.parents[1] / "weights" / "mbv2_1.0_oidv4_folded_nchw.npz"
    if not path.is_file():
        pytest.skip("no shared weights here: set SNIPER_SHARED to the folder with weights/")
    layers = read_folded(path)
    picture = next(iter(sorted((coco_mini / "images").rglob("*.jpg"))))
    bgr = cv2.imread(str(picture))[:160, :192]
    rgb = bgr[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
    expected = source_features(rgb, layers)
    # name of the source, our name, rows and columns at the end that the padding reaches
    taps = [
        ("first-3x3-conv", "first-3x3-conv-cut", 1),
        ("seq-1-block1", "seq-1-block1-shortcut", 3),
        ("seq-2-block2", "seq-2-block2-shortcut", 4),
        ("last-1x1-conv", "last-1x1-conv-relu6", None),
    ]
    names = [name for _, name, _ in taps]
    exact = our_features(rgb, convert_mobilenetv2(layers, GREY), GREY, names)
    arrays = convert_mobilenetv2(layers, PIXEL_MEANS)
    ours = our_features(rgb, arrays, PIXEL_MEANS, names)
    of_2018 = our_features(rgb, arrays, PIXEL_MEANS, names[1:], padding="symmetric")
    for (source, _, margin), ours_grey, feature in zip(taps, exact, ours):
        theirs = expected[source]
        assert_close(ours_grey, theirs)
        assert 0.999 < cosine(feature, theirs) < 1 - 1e-6
        if margin:
            assert_close(feature[:, :-margin, :-margin], theirs[:, :-margin, :-margin])
    for (source, *_), feature in zip(taps[1:], of_2018):
        assert cosine(feature, expected[source]) < 0.9


def test_means_are_in_bgr_order():
    layers, means = source_layers(), (10.0, 100.0, 200.0)
    rgb = np.broadcast_to(np.array([200, 100, 10], np.float32)[:, None, None], (3, 32, 32))
    (first,) = our_features(rgb, convert_mobilenetv2(layers, means), means, ["first-3x3-conv-cut"])
    assert_close(first[:, 2, 2], source_features(rgb, layers)["first-3x3-conv"][:, 2, 2])


def test_written_file_starts_a_detector(tmp_path, capsys):
    np.savez(tmp_path / "src.npz", **{k: v.astype(np.float16) for k, v in source_layers().items()})
    prefix = tmp_path / "model" / "mobilenetv2"
    assert main(["mobilenetv2", str(tmp_path / "src.npz"), "--out", str(prefix)]) == 0
    assert "tf_same" in capsys.readouterr().out
    spec = DetectorSpec("mobilenetv2_e2e", 3, (1, 2), (1,), 32, 1, padding="tf_same")
    symbol = build_detector(spec, train=True, rpn_only=True)
    shapes = train_input_shapes(spec, 64, rpn_only=True)
    _, _, report = initialise(symbol, shapes, read_params(f"{prefix}-0000.params"), seed=0)
    assert not report.missing and not report.unexpected and not report.reshaped
    assert set(report.initialised) == {
        f"rpn_{layer}_{kind}"
        for layer in ("conv_3x3", "cls_score", "bbox_pred")
        for kind in ("weight", "bias")
    }


def test_another_file_is_replaced_on_demand_only(tmp_path, capsys):
    np.savez(tmp_path / "src.npz", **source_layers())
    argv = ["mobilenetv2", str(tmp_path / "src.npz"), "--out", str(tmp_path / "m")]
    (tmp_path / "m-0000.params").write_bytes(b"mine")
    assert main(argv) == 3
    assert (tmp_path / "m-0000.params").read_bytes() == b"mine"
    assert "--overwrite" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 0
    assert main(argv) == 0
    assert "the same already" in capsys.readouterr().out


def test_missing_source_says_where_to_get_it(tmp_path, capsys):
    assert main(["mobilenetv2", str(tmp_path / "none.npz")]) == 3
    message = capsys.readouterr().err
    assert "none.npz" in message and "@mediapipe/objectron" in message


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: a.pop("b7_dw_bias"), "b7_dw_bias"),
        (lambda a: a.update(b3_exp_weight=np.zeros((144, 24, 3, 3))), r"\(144, 24, 1, 1\)"),
        (lambda a: a.update(conv_last_bias=np.full(1280, np.nan)), "conv_last_bias"),
    ],
)
def test_wrong_sources_are_refused_by_name(tmp_path, change, word):
    arrays = source_layers()
    change(arrays)
    np.savez(tmp_path / "src.npz", **arrays)
    with pytest.raises(DataError, match=word):
        read_folded(tmp_path / "src.npz")


def test_foreign_file_is_refused(tmp_path):
    (tmp_path / "src.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="npz"):
        read_folded(tmp_path / "src.npz")

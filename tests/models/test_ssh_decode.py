"""From the maps of SSH's modules to boxes: beside a loop over anchors, and in whole networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sniper.errors import ConfigError
from sniper.inference.decode import decode_batch
from sniper.loader.windows import TestBatch
from sniper.models.assembly import (
    WindowOutputs,
    build_detector,
    decode,
    inference_input_shapes,
    short_output_names,
)
from sniper.models.heads.ssh import MOST_GROWTH, SshModule, decode_module
from sniper.models.lazy import mx
from sniper.models.spec import ProposalSettings
from sniper.models.weights import initialise
from tests.models.test_networks_ssh import NETWORKS, spec_ssh

HEIGHT, WIDTH = 53, 70  # content of a window of 64x96 px


def maps(rng, stride, height=64, width=96, anchors=2):
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    face = rng.random((anchors * rows, columns), np.float32)
    deltas = rng.normal(0, 0.3, (4 * anchors, rows, columns)).astype(np.float32)
    return np.stack([1 - face, face]), deltas


def slow(prob, deltas, stride, anchors, *, legacy, top_n, min_side, size=(HEIGHT, WIDTH)):
    """The rules of the original one anchor at a time."""
    found = []
    height, width = size
    for row in range(math.ceil(height / stride)):
        for column in range(math.ceil(width / stride)):
            for number, (x1, y1, x2, y2) in enumerate(anchors):
                w, h = x2 - x1 + 1, y2 - y1 + 1
                dx, dy, dw, dh = deltas[4 * number : 4 * number + 4, row, column].astype(float)
                x = x1 + column * stride + w / 2 + dx * w
                y = y1 + row * stride + h / 2 + dy * h
                w, h = w * math.exp(min(dw, MOST_GROWTH)), h * math.exp(min(dh, MOST_GROWTH))
                less = 0 if legacy else 1
                box = (x - w / 2, y - h / 2, x + w / 2 - less, y + h / 2 - less)
                limits = (width - 1, height - 1) * 2
                box = [min(max(value, 0), most) for value, most in zip(box, limits)]
                score = float(prob[1, number * deltas.shape[1] + row, column])
                if min(box[2] - box[0], box[3] - box[1]) + 1 >= min_side and score > 1e-3:
                    found.append((score, box))
    found.sort(key=lambda entry: -entry[0])
    return found[:top_n] if top_n >= 0 else found


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    ("legacy", "top_n", "min_side"), [(False, -1, 0), (True, -1, 0), (True, 7, 12), (False, 0, 0)]
)
def test_boxes_are_those_of_a_loop(number, legacy, top_n, min_side):
    module = SshModule(number)
    anchors = module.anchors(spec_ssh())
    prob, deltas = maps(np.random.default_rng(number), module.stride)
    options = {"top_n": top_n, "min_side": min_side}
    boxes, scores = decode_module(
        *(prob, deltas, anchors, module.stride, (HEIGHT, WIDTH)), legacy_ends=legacy, **options
    )
    expected = slow(prob, deltas, module.stride, anchors, legacy=legacy, **options)
    assert len(boxes) == len(scores) == len(expected)
    assert boxes.dtype == scores.dtype == np.float32
    if expected:
        np.testing.assert_allclose(boxes, [box for _, box in expected], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(scores[:, 1], np.float32([score for score, _ in expected]))
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)


def test_a_perfect_prediction_gives_the_box():
    """Targets are made with sides of x2 - x1 + 1; the original's end is one px behind the last."""
    anchors = np.float32([[0, 0, 15, 15]])
    x1, y1, x2, y2 = box = np.array([21, 12, 40, 25], float)
    w, h = x2 - x1 + 1, y2 - y1 + 1
    targets = ((x1 + w / 2 - 24) / 16, (y1 + h / 2 - 16) / 16, np.log(w / 16), np.log(h / 16))
    prob = np.zeros((2, 3, 4), np.float32)
    prob[1, 1, 2] = 0.9
    deltas = np.zeros((4, 3, 4), np.float32)
    deltas[:, 1, 2] = targets
    for legacy, more in ((False, 0), (True, 1)):
        boxes, _ = decode_module(prob, deltas, anchors, 8, (100, 100), legacy_ends=legacy)
        np.testing.assert_allclose(boxes, [box + [0, 0, more, more]], atol=1e-4)


def test_wild_deltas_stay_finite():
    prob = np.full((2, 2, 1), 0.5, np.float32)
    deltas = np.full((8, 1, 1), 1e6, np.float32)
    anchors = SshModule(1).anchors(spec_ssh())
    with np.errstate(over="raise"):
        boxes, _ = decode_module(prob, deltas, anchors, 8, (8, 8))
    assert np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes <= 7).all()


@pytest.mark.parametrize("symbol", NETWORKS)
def test_networks_detect_at_any_size(symbol):
    """Every module gives its best boxes; what is left of the window's padding does not count."""
    spec = spec_ssh(symbol, width=0.1, rpn_channels=8, proposal=ProposalSettings(9, 0.7, 0, 300))
    for rpn_only in (False, True):
        graph = build_detector(spec, train=False, rpn_only=rpn_only)
        shapes = inference_input_shapes(spec, 2, 75, 41, rpn_only=rpn_only)
        arg, aux, _ = initialise(graph, shapes, None, seed=0, init="scratch")
        executor = graph.simple_bind(mx.cpu(), grad_req="null", **shapes)
        executor.copy_params_from(arg, aux)
        rng = np.random.default_rng(0)
        inputs = {name: mx.nd.array(rng.normal(0, 50, shape)) for name, shape in shapes.items()}
        outputs = [output.asnumpy() for output in executor.forward(**inputs)]
        outputs = dict(zip(short_output_names(graph.list_outputs()), outputs))
        window = WindowOutputs(spec, outputs, 1, np.float32([70, 40, 1]))
        found = decode(window, rpn_only=rpn_only)
        # Three modules; of the last one 3x2 cells of two anchors each lie in the window.
        assert found.boxes.shape == (27, 4) and found.scores.shape == (27, 2)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [39, 69, 39, 69]).all()
        for start in (0, 9, 18):
            assert (np.diff(found.scores[start : start + 9, 1]) <= 0).all()


def test_modules_can_be_left_out_on_a_level():
    """Of a batch whose second window only fills it."""
    rng = np.random.default_rng(0)
    outputs = {}
    for stride in (8, 16, 32):
        prob, deltas = maps(rng, stride)
        outputs[f"rpn_cls_prob_stride{stride}"] = prob[None]
        outputs[f"rpn_bbox_pred_stride{stride}"] = deltas[None]
    spec = spec_ssh(proposal=ProposalSettings(-1, 0.7, 0, 300))
    found = decode(WindowOutputs(spec, outputs, 0, np.float32([64, 96, 2])))
    counts = [int((found.strides == stride).sum()) for stride in (8, 16, 32)]
    assert 0 < counts[2] < counts[1] < counts[0] and sum(counts) == len(found.boxes)
    batch = TestBatch(
        np.zeros((2, 3, 64, 96), np.float32),
        np.float32([[64, 96, 2]] * 2),
        np.array([5, 5]),
        np.array([0, 0]),
        np.array([False, True]),
    )
    (whole,) = decode_batch([found, found], batch)
    (part,) = decode_batch([found, found], batch, skip_strides=(32,))
    assert len(whole.boxes) == sum(counts)
    np.testing.assert_array_equal(part.boxes, whole.boxes[: -counts[2]])
    np.testing.assert_array_equal(part.scores, whole.scores[: -counts[2]])
    found.strides = None
    with pytest.raises(ConfigError, match="no modules of several strides"):
        decode_batch([found, found], batch, skip_strides=(32,))


def test_ends_follow_the_rules_of_the_boxes():
    rng = np.random.default_rng(0)
    outputs = {}
    for number in (1, 2, 3):
        stride = 4 << number
        prob, deltas = maps(rng, stride)
        outputs[f"rpn_cls_prob_stride{stride}"] = prob[None]
        outputs[f"rpn_bbox_pred_stride{stride}"] = deltas[None]
    info = np.float32([64, 96, 1])
    exact = decode(WindowOutputs(spec_ssh(), outputs, 0, info)).boxes
    legacy = decode(WindowOutputs(spec_ssh(legacy_boxes=True), outputs, 0, info)).boxes
    inside = (exact[:, 2:] < [94, 62]).all(axis=1) & (exact[:, 2:] > 0).all(axis=1)
    assert inside.sum() > 5
    np.testing.assert_allclose(
        legacy[inside] - exact[inside], [[0, 0, 1, 1]] * inside.sum(), atol=1e-4
    )

"""The operator that mines anchors, inside MXNet: graphs, JSON, gradients, errors."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper import ops
from sniper.errors import OpsError
from sniper.native import _native
from tests.native.mining_inputs import M1, M3, MODULES, random_mining

INPUTS = ("cls_prob", "im_info", "gt_boxes", "ignore_boxes")
OUTPUTS = ("label", "bbox_target", "bbox_weight", "count")


def arrays_of(settings, seed=0, ignored=3):
    arrays, boxes = random_mining(np.random.default_rng(seed), 2, 7, 9, 8, ignored, **settings)
    return dict(zip(INPUTS, [*arrays, boxes] if ignored else arrays))


def graph_of(arrays, settings):
    variables = {name: mx.sym.Variable(name) for name in arrays}
    return mx.sym.Group(ops.anchor_mining_target(**variables, **settings, name="m1"))


@pytest.mark.parametrize("ignored", [0, 3])
@pytest.mark.parametrize("module", MODULES)
def test_graph_survives_json_and_equals_nd_and_host(module, ignored):
    settings = {**MODULES[module], "batch_size": 40}
    arrays = arrays_of(settings, ignored=ignored)
    graph = mx.sym.load_json(graph_of(arrays, settings).tojson())
    assert graph.list_outputs() == [f"m1_{name}_output" for name in OUTPUTS]
    tensors = {name: mx.nd.array(array) for name, array in arrays.items()}
    from_graph = graph.bind(mx.cpu(), tensors).forward()
    from_nd = ops.anchor_mining_target(**tensors, **settings)
    host = _native.anchor_mining_target(**arrays, **settings)
    assert host[3].any(0).all()
    for a, b, c in zip(from_graph, from_nd, host):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
        np.testing.assert_array_equal(a.asnumpy(), c)


@pytest.mark.parametrize(
    "change",
    [{"border": 0}, {"batch_size": 9}, {"fg_fraction": 0.02}, {"positive_overlap": 0.7},
     {"negative_overlap": 0.1}, {"ignore_overlap": 0.05}, {"base_size": 12}, {"ratios": (2,)}],
    ids=str,
)  # fmt: skip
def test_every_attribute_reaches_the_kernel(change):
    settings = {**M1, "border": 20}
    arrays = arrays_of(settings, seed=1)
    default = _native.anchor_mining_target(**arrays, **settings)
    expected = _native.anchor_mining_target(**arrays, **{**settings, **change})
    tensors = {name: mx.nd.array(array) for name, array in arrays.items()}
    outputs = ops.anchor_mining_target(**tensors, **{**settings, **change})
    assert any((a != b).any() for a, b in zip(expected, default))
    for output, wanted in zip(outputs, expected):
        np.testing.assert_array_equal(output.asnumpy(), wanted)


def test_no_gradient_with_and_without_a_block_in_front():
    """Graphs from files may have no BlockGrad in front: the operator's own backward must do."""
    ops.load_library()
    arrays = arrays_of(M1)
    variables = {name: mx.sym.Variable(name) for name in arrays}
    plain = mx.sym.AnchorMiningTarget(
        *variables.values(), scales=(1, 2), feature_stride=8, with_ignore=True
    )
    for graph in (plain, graph_of(arrays, M1)):
        executor = graph.simple_bind(mx.cpu(), **{name: a.shape for name, a in arrays.items()})
        for name, array in arrays.items():
            executor.arg_dict[name][:] = array
            executor.grad_dict[name][:] = 7
        heads = [mx.nd.ones(output.shape) for output in executor.forward(is_train=True)]
        executor.backward(heads)
        assert not any(gradient.asnumpy().any() for gradient in executor.grad_arrays)


def test_a_module_learns_from_its_own_probabilities():
    """In a graph: softmax, targets of the same pass, loss. Only anchors that are trained have a
    gradient, which is that of their mean."""
    arrays = arrays_of(M1, ignored=0)
    scores = mx.sym.Variable("scores")
    truth = [mx.sym.Variable(name) for name in ("im_info", "gt_boxes")]
    probabilities = mx.sym.softmax(scores, axis=1)
    label, *_ = ops.anchor_mining_target(probabilities, *truth, **M1, batch_size=16)
    label = mx.sym.reshape(label, shape=(0, 14, 9))
    loss = mx.sym.SoftmaxOutput(
        scores, label, multi_output=True, use_ignore=True, ignore_label=-1, normalization="valid"
    )
    graph = mx.sym.Group([loss, mx.sym.BlockGrad(label)])
    executor = graph.simple_bind(
        mx.cpu(), grad_req="write", scores=(2, 2, 14, 9), im_info=(2, 3), gt_boxes=(2, 8, 5)
    )
    rng = np.random.default_rng(0)
    executor.arg_dict["scores"][:] = rng.normal(0, 1, (2, 2, 14, 9))
    for name in ("im_info", "gt_boxes"):
        executor.arg_dict[name][:] = arrays[name]
    before, kept = (output.asnumpy() for output in executor.forward(is_train=True))
    executor.backward()
    gradient = executor.grad_dict["scores"].asnumpy()
    assert 0 < (kept == 1).sum() and (kept >= 0).sum() == 32
    np.testing.assert_allclose(
        gradient[:, 1], np.where(kept >= 0, before[:, 1] - kept, 0) / 32, atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scales": ()}, ["scales"]),
        ({"scales": (0,)}, ["scales", "1e-06"]),
        ({"feature_stride": 0}, ["argument 'feature_stride' is '0'"]),
        ({"base_size": 1.5}, ["base_size", "1.5"]),
        ({"border": -1}, ["border", "-1"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"fg_fraction": 2}, ["fg_fraction", "from 0 to 1"]),
        ({"negative_overlap": 0.6}, ["'negative_overlap' is larger than 'positive_overlap'"]),
        ({"ignore_overlap": "much"}, ["ignore_overlap", "much"]),
        ({"cls_prob": mx.nd.zeros((2, 2, 13, 9))}, ["cls_prob", "(N, 2, 2 * h, w)"]),
        ({"cls_prob": mx.nd.zeros((2, 4, 14, 9))}, ["cls_prob", "(N, 2, A * h, w)"]),
        ({"im_info": mx.nd.zeros((1, 3))}, ["im_info", "(2, 3)"]),
        ({"gt_boxes": mx.nd.zeros((2, 8, 4))}, ["gt_boxes", "(2, rows, 5)"]),
        ({"ignore_boxes": mx.nd.zeros((1, 8, 5))}, ["ignore_boxes", "(2, ignored rows, 5)"]),
        ({"ignore_boxes": np.zeros((2, 8, 5))}, ["ignore_boxes", "ndarray"]),
        ({"gt_boxes": mx.sym.Variable("gt")}, ["gt_boxes", "Symbol"]),
    ],
    ids=str,
)
def test_front_refuses_wrong_arguments(change, words):
    arguments = {name: mx.nd.array(array) for name, array in arrays_of(M1).items()}
    ops.anchor_mining_target(**arguments, **M1)
    with pytest.raises(OpsError) as caught:
        ops.anchor_mining_target(**{**arguments, **M1, **change})
    assert all(word in str(caught.value) for word in ["anchor_mining_target", *words])


@pytest.mark.parametrize(
    ("attributes", "shape", "words"),
    [
        ({"feature_stride": 8}, (1, 2, 4, 4), "attribute 'scales' is missing"),
        ({"scales": "(1, 2)"}, (1, 2, 4, 4), "attribute 'feature_stride' is missing"),
        ({**M1, "colour": 1}, (1, 2, 4, 4), "unknown attribute 'colour'"),
        ({**M3, "border": "nan"}, (1, 2, 4, 4), "attribute 'border' is 'nan'"),
        (M1, (64, 2, 4096, 4096), "at most 536870911 anchors in all images"),
    ],
    ids=str,
)
def test_graph_refuses_wrong_attributes_and_shapes(attributes, shape, words):
    ops.load_library()
    inputs = [mx.sym.Variable(name) for name in INPUTS[:3]]
    with pytest.raises(mx.base.MXNetError, match="AnchorMiningTarget: ") as caught:
        mx.sym.AnchorMiningTarget(*inputs, **attributes).infer_shape(
            cls_prob=shape, im_info=(shape[0], 3), gt_boxes=(shape[0], 8, 5)
        )
    assert words in str(caught.value)

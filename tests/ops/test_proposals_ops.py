"""The proposal operators inside MXNet: golden vectors, graphs, gradients, errors."""

import re

import mxnet as mx
import numpy as np
import pytest

from sniper import ops
from sniper.errors import OpsError
from sniper.native import _native

RESNET = {"scales": (2, 4, 7, 10, 13, 16, 24), "ratios": (0.5, 1, 2), "feature_stride": 16}
SMALL = {"scales": (1, 2), "ratios": (1,), "feature_stride": 16, "post_nms_top_n": 6}
TARGET_INPUTS = ("cls_prob", "bbox_pred", "im_info", "gt_boxes", "valid_ranges")
TARGET_OUTPUTS = ("rois", "label", "bbox_target", "bbox_weight")


def small_arrays(seed=0):
    """Inputs of both operators for SMALL: A = 2, a 3 x 4 map, 2 images."""
    rng = np.random.default_rng(seed)
    arrays = {
        "cls_prob": rng.random((2, 4, 3, 4)),
        "bbox_pred": rng.normal(0, 0.3, (2, 8, 3, 4)),
        "im_info": [[48, 64, 1], [40, 60, 1]],
        "gt_boxes": [[[1, 2, 30, 25, 3], [-1] * 5], [[-1] * 5] * 2],
        "valid_ranges": [[0, 512], [0, 512]],
    }
    return {name: np.asarray(values, np.float32) for name, values in arrays.items()}


def small_target_arrays(seed=0):
    arrays = small_arrays(seed)
    arrays["cls_prob"] = arrays["cls_prob"].reshape(2, 2, 6, 4)
    return arrays


def variables(names):
    return [mx.sym.Variable(name) for name in names]


def test_golden_nd(golden):
    data = np.load(golden / "golden_multi_proposal_exact.npz")
    inputs = [mx.nd.array(data[name]) for name in ("cls_prob", "bbox_pred", "im_info")]
    rois, scores = ops.multi_proposal(*inputs, **RESNET)
    np.testing.assert_allclose(rois.asnumpy(), data["rois"], atol=1e-4)
    np.testing.assert_array_equal(scores.asnumpy(), data["score"])


def test_golden_target_in_a_graph_forward_and_backward(golden):
    data = np.load(golden / "golden_multi_proposal_target.npz")
    outputs = ops.multi_proposal_target(*variables(TARGET_INPUTS), **RESNET)
    graph = mx.sym.Group(list(outputs))
    shapes = {name: data[name].shape for name in TARGET_INPUTS}
    executor = graph.simple_bind(mx.cpu(), grad_req="write", **shapes)
    for name in TARGET_INPUTS:
        executor.arg_dict[name][:] = data[name]
        executor.grad_dict[name][:] = 7
    got = executor.forward(is_train=True)
    for name, value in zip(TARGET_OUTPUTS, got):
        np.testing.assert_allclose(value.asnumpy(), data[name], atol=1e-4, err_msg=name)
    executor.backward([mx.nd.ones(value.shape) for value in got])
    for name in TARGET_INPUTS:
        assert not executor.grad_dict[name].asnumpy().any(), name


@pytest.mark.parametrize("operator", ["MultiProposal", "MultiProposalTarget"])
def test_unblocked_operator_has_a_zero_gradient(operator):
    """Graphs from JSON files have no BlockGrad in front: the operator's own backward must do."""
    ops.load_library()
    arrays = small_arrays() if operator == "MultiProposal" else small_target_arrays()
    names = list(arrays)[: 3 if operator == "MultiProposal" else 5]
    graph = getattr(mx.sym, operator)(
        *variables(names), scales=(1, 2), ratios=(1,), rpn_post_nms_top_n=6
    )
    executor = graph.simple_bind(mx.cpu(), **{name: arrays[name].shape for name in names})
    for name in names:
        executor.arg_dict[name][:] = arrays[name]
        executor.grad_dict[name][:] = 7
    outputs = executor.forward(is_train=True)
    executor.backward([mx.nd.ones(value.shape) for value in outputs])
    assert not any(executor.grad_dict[name].asnumpy().any() for name in names)


def test_gradient_of_a_neighbour_loss_is_untouched_with_grad_req_add():
    """The RPN box loss meets the proposal operator at bbox_pred: only the loss may contribute."""
    arrays = small_target_arrays()
    symbols = variables(TARGET_INPUTS)
    rois, *_ = ops.multi_proposal_target(*symbols, **SMALL)
    loss = mx.sym.MakeLoss(mx.sym.square(symbols[1]))
    graph = mx.sym.Group([loss, mx.sym.BlockGrad(rois)])
    shapes = {name: array.shape for name, array in arrays.items()}
    executor = graph.simple_bind(mx.cpu(), grad_req="add", **shapes)
    for name, array in arrays.items():
        executor.arg_dict[name][:] = array
        executor.grad_dict[name][:] = 0
    for _ in range(2):
        executor.forward(is_train=True)
        executor.backward()
    gradient = executor.grad_dict["bbox_pred"].asnumpy()
    np.testing.assert_allclose(gradient, 4 * arrays["bbox_pred"], rtol=1e-5)


def test_output_names():
    rois, scores = ops.multi_proposal(*variables(TARGET_INPUTS[:3]), **SMALL)
    assert rois.list_outputs() == ["rois_output"]
    assert scores.list_outputs() == ["rois_score_output"]
    targets = ops.multi_proposal_target(*variables(TARGET_INPUTS), **SMALL, name="t")
    names = [output for target in targets for output in target.list_outputs()]
    assert names == [f"t_{name}_output" for name in TARGET_OUTPUTS]


def test_graph_survives_json_and_equals_nd_and_host():
    arrays = small_arrays()
    names = TARGET_INPUTS[:3]
    graph = mx.sym.Group(list(ops.multi_proposal(*variables(names), **SMALL, min_size=10)))
    graph = mx.sym.load_json(graph.tojson())
    bound = graph.bind(mx.cpu(), {name: mx.nd.array(arrays[name]) for name in names})
    from_graph = [value.asnumpy() for value in bound.forward()]
    from_nd = ops.multi_proposal(*(mx.nd.array(arrays[n]) for n in names), **SMALL, min_size=10)
    from_host = _native.multi_proposal(*(arrays[name] for name in names), **SMALL, min_size=10)
    for a, b, c in zip(from_graph, from_nd, from_host):
        np.testing.assert_array_equal(a, b.asnumpy())
        np.testing.assert_array_equal(a, c)


def test_attributes_of_2018_symbol_files_are_accepted():
    ops.load_library()
    arrays = small_arrays()
    rois, _ = mx.nd.MultiProposal(
        *(mx.nd.array(arrays[name]) for name in TARGET_INPUTS[:3]),
        feature_stride=16, scales=(1, 2), ratios=[1], rpn_pre_nms_top_n=6000,
        rpn_post_nms_top_n=6, threshold=0.7, rpn_min_size=0, batch_size=2,
    )  # fmt: skip
    assert rois.shape == (12, 5)


def test_two_devices_at_once():
    arrays = small_target_arrays()
    graph = mx.sym.Group(list(ops.multi_proposal_target(*variables(TARGET_INPUTS), **SMALL)))
    expected = _native.multi_proposal_target(*arrays.values(), **SMALL)
    executors = [
        graph.bind(
            mx.cpu(i),
            {n: mx.nd.array(a, ctx=mx.cpu(i)) for n, a in arrays.items()},
            grad_req="null",
        )
        for i in (0, 1)
    ]
    for _ in range(20):
        results = [executor.forward() for executor in executors]
        for outputs in results:
            for value, wanted in zip(outputs, expected):
                np.testing.assert_array_equal(value.asnumpy(), wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scales": ()}, ["scales", "()"]),
        ({"scales": "(1, 2"}, ["scales"]),
        ({"scales": range(1, 2000)}, ["scales", "1 to 1024 numbers"]),
        ({"ratios": (1, -1)}, ["ratios", "-1"]),
        ({"feature_stride": 16.5}, ["feature_stride", "16.5"]),
        ({"post_nms_top_n": 0}, ["post_nms_top_n", "0"]),
        ({"pre_nms_top_n": -2}, ["pre_nms_top_n", "-2"]),
        ({"nms_thresh": float("nan")}, ["argument 'nms_thresh' is 'nan', expected a number from"]),
        ({"min_size": -1}, ["min_size", "-1"]),
        ({"cls_prob": mx.nd.zeros((2, 6, 3, 4))}, ["cls_prob", "(2, 6, 3, 4)"]),
        ({"bbox_pred": mx.nd.zeros((2, 8, 3))}, ["bbox_pred", "(2, 8, 3)"]),
        ({"im_info": mx.nd.zeros((2, 3), dtype="float16")}, ["im_info", "float16"]),
        ({"im_info": np.zeros((2, 3))}, ["im_info", "ndarray"]),
        ({"im_info": mx.sym.Variable("x")}, ["im_info", "Symbol"]),
    ],
)
def test_front_refuses_wrong_arguments(change, words):
    arrays = small_arrays()
    arguments = {name: mx.nd.array(arrays[name]) for name in TARGET_INPUTS[:3]}
    with pytest.raises(OpsError) as caught:
        ops.multi_proposal(**{**arguments, **SMALL, **change})
    assert all(word in str(caught.value) for word in ["multi_proposal", *words])


def test_a_graph_is_refused_in_the_same_words():
    with pytest.raises(OpsError, match="^multi_proposal: argument 'min_size' is '-1', expected a"):
        ops.multi_proposal(*variables(TARGET_INPUTS[:3]), **SMALL, min_size=-1)


def test_lists_may_be_anything_that_can_be_listed():
    tensors = [mx.nd.array(small_arrays()[name]) for name in TARGET_INPUTS[:3]]
    expected = ops.multi_proposal(*tensors, **SMALL)[0].asnumpy()
    for scales in (np.float32([1, 2]), (scale for scale in (1, 2)), [np.int64(1), np.float64(2)]):
        got = ops.multi_proposal(*tensors, **{**SMALL, "scales": scales})[0].asnumpy()
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scales", (1, 1e7)), ("ratios", (0,)), ("feature_stride", 4097), ("pre_nms_top_n", -2),
        ("pre_nms_top_n", 2**32), ("post_nms_top_n", 100001), ("nms_thresh", 1.01),
        ("min_size", 1e7), ("max_masks", 0),
    ],
)  # fmt: skip
def test_graph_and_host_have_the_same_limits(name, value):
    arrays = small_target_arrays().values()
    limits = []
    for function, inputs in (
        (ops.multi_proposal_target_mask, map(mx.nd.array, arrays)),
        (_native.multi_proposal_target_mask, arrays),
    ):
        with pytest.raises(OpsError, match=name) as caught:
            function(*inputs, **{**SMALL, name: value})
        limits.append(re.findall(r"from \S+ to [-+e\d]+", str(caught.value)))
    assert len(limits[0]) == 1 and limits[0] == limits[1]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"scales": "(1, x)"}, "attribute 'scales' is '(1, x)', expected 1 to 1024 numbers"),
        ({"scales": "()"}, "expected 1 to 1024 numbers"),
        ({"ratios": "-1"}, "expected 1 to 1024 numbers from 1e-06 to 1e+06"),
        ({"threshold": 1.5}, "expected a number from 0 to 1"),
        ({"feature_stride": "16.5"}, "expected an integer"),
        ({"rpn_post_nms_top_n": 0}, "expected an integer from 1 to 100000"),
        ({"colour": "red"}, "unknown attribute 'colour'"),
    ],
)
def test_operator_refuses_wrong_attributes(attributes, words):
    ops.load_library()
    arrays = small_arrays()
    with pytest.raises(mx.base.MXNetError, match="^MultiProposal: ") as caught:
        mx.nd.MultiProposal(*(mx.nd.array(arrays[n]) for n in TARGET_INPUTS[:3]), **attributes)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_legacy_gt_centre_must_be_a_bool():
    ops.load_library()
    arrays = small_target_arrays()
    with pytest.raises(mx.base.MXNetError, match="expected True or False"):
        mx.nd.MultiProposalTarget(*map(mx.nd.array, arrays.values()), legacy_gt_centre="maybe")


def test_label_mode_makes_labels_of_super_classes():
    """On both target operators; the test data's only box is of class 3."""
    ops.load_library()
    inputs = list(map(mx.nd.array, small_target_arrays().values()))
    shape = {"scales": (1, 2), "ratios": (1,), "rpn_post_nms_top_n": 6}
    for operator in (mx.nd.MultiProposalTarget, mx.nd.MultiProposalTargetMask):
        plain = operator(*inputs, **shape)[1].asnumpy()
        same = operator(*inputs, **shape, label_mode="class")[1].asnumpy()
        super_classes = operator(
            *inputs, **shape, label_mode="super_class", super_of=(1, 1, 5)
        )[1].asnumpy()  # fmt: skip
        assert set(np.unique(plain)) == {0, 3}
        np.testing.assert_array_equal(same, plain)
        np.testing.assert_array_equal(super_classes, np.where(plain > 0, 5, 0))


def test_a_large_table_of_classes():
    arrays = small_target_arrays()
    arrays["gt_boxes"][0, 0, 4] = 21841
    *_, labels = ops.multi_proposal_target_fine(
        *map(mx.nd.array, arrays.values()), super_of=[1] * 21841, max_fine=2, **SMALL
    )
    assert labels[0, 0].asscalar() == 21840


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"label_mode": "super_class"}, "'super_class' and the attribute 'super_of' need each"),
        ({"super_of": (1, 1)}, "'super_class' and the attribute 'super_of' need each other"),
        ({"label_mode": "fine"}, "label_mode' is 'fine', expected 'class' or 'super_class'"),
        ({"label_mode": "super_class", "super_of": (0,)}, "65536 integers from 1 to 65536"),
        ({"label_mode": "super_class", "super_of": (1, 1.5)}, "'(1, 1.5)', expected 1 to 65536"),
        ({"label_mode": "super_class", "super_of": ()}, "1 to 65536 integers"),
    ],
)
def test_wrong_label_modes_are_refused(attributes, words):
    ops.load_library()
    inputs = map(mx.nd.array, small_target_arrays().values())
    with pytest.raises(mx.base.MXNetError) as caught:
        mx.nd.MultiProposalTargetMask(*inputs, scales=(1, 2), ratios=(1,), **attributes)
    assert words in str(caught.value)


def test_front_of_fine_classes_speaks_of_its_own_arguments():
    inputs = list(map(mx.nd.array, small_target_arrays().values()))
    for change, words in (
        ({"max_fine": 0}, "multi_proposal_target_fine: argument 'max_fine' is '0'"),
        ({"super_of": (1, -1)}, "multi_proposal_target_fine: argument 'super_of' is '(1, -1)'"),
    ):
        with pytest.raises(OpsError) as caught:
            ops.multi_proposal_target_fine(*inputs, **{"super_of": (1,), **SMALL, **change})
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"bbox_pred": (2, 8, 3, 4), "im_info": (2, 3)}, "'cls_prob' has an unknown shape"),
        (
            {"cls_prob": (2, 4, 3, 4), "bbox_pred": (2, 8, 0, 4), "im_info": (2, 3)},
            "unknown or empty dimension",
        ),
        (
            {"cls_prob": (2, 4, 3, 5), "bbox_pred": (2, 8, 3, 4), "im_info": (2, 3)},
            "expected (2, 4, 3, 4) for 2 anchors",
        ),
        ({"cls_prob": (2, 4, 3, 4), "bbox_pred": (2, 8, 3, 4), "im_info": (1, 3)}, "(2, 3)"),
    ],
)
def test_graph_refuses_wrong_and_unknown_shapes(shapes, words):
    ops.load_library()
    graph = mx.sym.MultiProposal(*variables(TARGET_INPUTS[:3]), scales=(1, 2), ratios=(1,))
    with pytest.raises(mx.base.MXNetError) as caught:
        graph.infer_shape(**shapes)
    assert "MultiProposal: input" in str(caught.value) and words in str(caught.value)


def test_graph_refuses_float16():
    ops.load_library()
    graph = mx.sym.MultiProposal(*variables(TARGET_INPUTS[:3]), scales=(1, 2), ratios=(1,))
    with pytest.raises(mx.base.MXNetError, match="float16"):
        graph.infer_type(cls_prob="float16")


@pytest.mark.parametrize("name", TARGET_INPUTS)
def test_target_refuses_a_wrong_shape_of_each_input(name):
    ops.load_library()
    shapes = {key: array.shape for key, array in small_target_arrays().items()}
    shapes[name] = (*shapes[name][:-1], shapes[name][-1] + 1)
    graph = mx.sym.MultiProposalTarget(*variables(TARGET_INPUTS), scales=(1, 2), ratios=(1,))
    with pytest.raises(mx.base.MXNetError, match="MultiProposalTarget: input"):
        graph.infer_shape(**shapes)


@pytest.mark.parametrize("suffix", ["", "_mask", "_fine"])
def test_crowds_and_weights_in_a_graph_equal_those_of_the_host(suffix):
    arrays = small_target_arrays()
    arrays["crowd_boxes"] = np.float32([[[0, 0, 63, 47, 0]], [[0, 0, 30, 30, 2]]])
    extra = {"super_of": (1, 2, 1)} if suffix == "_fine" else {}
    soft = {"crowd_ioa": 0.6, "soft_sampling": (0.25, 50, 20), **extra, **SMALL}
    make = getattr(ops, f"multi_proposal_target{suffix}")
    outputs = make(*variables(TARGET_INPUTS), crowd_boxes=mx.sym.Variable("crowd_boxes"), **soft)
    assert outputs[-1].list_outputs() == [f"multi_proposal_target{suffix}_label_weight_output"]
    graph = mx.sym.load_json(mx.sym.Group(list(outputs)).tojson())
    executor = graph.bind(mx.cpu(), {name: mx.nd.array(a) for name, a in arrays.items()})
    from_graph = [value.asnumpy() for value in executor.forward()]
    tensors = [mx.nd.array(arrays[name]) for name in TARGET_INPUTS]
    from_nd = make(*tensors, crowd_boxes=mx.nd.array(arrays["crowd_boxes"]), **soft)
    host = _native.multi_proposal_target_mask if suffix else _native.multi_proposal_target
    legacy = {"legacy_cap": False} if suffix == "_fine" else {}
    from_host = host(**arrays, **soft, **legacy)
    assert len(from_graph) == len(from_nd) == len(from_host)
    for a, b, c in zip(from_graph, from_nd, from_host):
        np.testing.assert_array_equal(a, b.asnumpy())
        np.testing.assert_array_equal(a, c)
    assert (from_graph[1] == -1).any() and from_graph[-1].min() < 1


def test_each_of_the_two_options_alone():
    arrays = small_target_arrays()
    tensors = [mx.nd.array(array) for array in arrays.values()]
    plain = ops.multi_proposal_target(*tensors, **SMALL)
    crowd = mx.nd.array(np.float32([[[0, 0, 63, 47, 0]]] * 2))
    with_crowd = ops.multi_proposal_target(*tensors, crowd_boxes=crowd, **SMALL)
    weighted = ops.multi_proposal_target(*tensors, soft_sampling=(0.25, 50, 20), **SMALL)
    assert (len(plain), len(with_crowd), len(weighted)) == (4, 4, 5)
    for ours, theirs in zip(weighted, plain):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())
    assert (with_crowd[1].asnumpy() == -1).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"soft_sampling": (0.25, 50)}, "soft_sampling.*three numbers"),
        ({"soft_sampling": (2, 50, 20)}, "soft_sampling.*three numbers"),
        ({"soft_sampling": (0.25, 50, -1)}, "soft_sampling"),
        ({"crowd_ioa": 2}, "crowd_ioa"),
        ({"crowd_boxes": mx.nd.zeros((3, 2, 5))}, "crowd_boxes"),
        ({"crowd_boxes": mx.nd.zeros((2, 2, 4))}, "crowd_boxes"),
    ],
)
def test_wrong_crowds_and_weights_are_refused(change, message):
    tensors = [mx.nd.array(array) for array in small_target_arrays().values()]
    with pytest.raises(OpsError, match=message):
        ops.multi_proposal_target(*tensors, **{**SMALL, **change})

"""The operators of the mask head inside MXNet: golden vectors, graphs, gradients, errors."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper import ops
from sniper.errors import OpsError
from sniper.native import _native

RESNET = {"scales": (2, 4, 7, 10, 13, 16, 24), "ratios": (0.5, 1, 2), "feature_stride": 16}
SMALL = {"scales": (1, 2), "ratios": (1,), "feature_stride": 16, "post_nms_top_n": 6}
INPUTS = ("cls_prob", "bbox_pred", "im_info", "gt_boxes", "valid_ranges")
OUTPUTS = ("rois", "label", "bbox_target", "bbox_weight", "mask_rois", "mask_ids")


def small_arrays(images=2, seed=0):
    """Inputs of the target operator for SMALL (A = 2, a 3 x 4 map), and polygons of its GT."""
    rng = np.random.default_rng(seed)
    gt = np.full((images, 3, 5), -1)
    gt[:, 0] = (1, 2, 30, 25, 3)
    gt[0, 1] = (20, 10, 50, 40, 7)
    polygons = np.full((images, 3, 20), -1)
    polygons[:, 0, :9] = (2, 1, 6, 1, 2, 30, 2, 30, 25)
    polygons[:, 1, :11] = (6, 1, 8, 20, 10, 50, 10, 50, 40, 20, 40)
    arrays = {
        "cls_prob": rng.random((images, 2, 6, 4)),
        "bbox_pred": rng.normal(0, 0.3, (images, 8, 3, 4)),
        "im_info": [[48, 64, 1]] * images,
        "gt_boxes": gt,
        "valid_ranges": [[0, 512]] * images,
        "gt_masks": polygons,
    }
    return {name: np.asarray(values, np.float32) for name, values in arrays.items()}


def mask_graph(**settings):
    """All outputs of both operators, wired as in the training graph."""
    variables = {name: mx.sym.Variable(name) for name in (*INPUTS, "gt_masks")}
    outputs = ops.multi_proposal_target_mask(*(variables[n] for n in INPUTS), **settings)
    masks = ops.mask_rcnn_target(outputs[4], variables["gt_masks"], outputs[5])
    return mx.sym.Group([*outputs, *masks])


def test_golden_chain_in_a_graph_forward_and_backward(golden):
    inputs = np.load(golden / "golden_multi_proposal_target.npz")
    expected = np.load(golden / "golden_multi_proposal_target_mask_outputs.npz")
    masks = np.load(golden / "golden_mask_rcnn_target.npz")
    arrays = {**{name: inputs[name] for name in INPUTS}, "gt_masks": masks["mask_polys"]}
    executor = mask_graph(**RESNET).simple_bind(
        mx.cpu(), grad_req="write", **{name: array.shape for name, array in arrays.items()}
    )
    for name, array in arrays.items():
        executor.arg_dict[name][:] = array
        executor.grad_dict[name][:] = 7
    outputs = executor.forward(is_train=True)
    for name, output in zip(OUTPUTS, outputs):
        np.testing.assert_allclose(output.asnumpy(), expected[name], atol=1e-4, err_msg=name)
    # The masks were made from mask_rois with all their digits: exact.
    np.testing.assert_array_equal(outputs[4].asnumpy(), masks["rois"])
    np.testing.assert_array_equal(outputs[6].asnumpy(), masks["mask_targets"])
    np.testing.assert_array_equal(outputs[7].asnumpy(), masks["mask_cls"])
    executor.backward([mx.nd.ones(output.shape) for output in outputs])
    assert not any(gradient.asnumpy().any() for gradient in executor.grad_arrays)


def test_output_names():
    outputs = mask_graph(**SMALL, name="t").list_outputs()
    targets = [f"t_{name}_output" for name in OUTPUTS]
    assert outputs == [
        *targets,
        "mask_rcnn_target_mask_targets_output",
        "mask_rcnn_target_mask_cls_output",
    ]


def test_graph_survives_json_and_equals_nd_and_host():
    arrays = small_arrays()
    settings = {**SMALL, "max_masks": 4, "legacy_areas": False, "min_size": 2}
    graph = mx.sym.load_json(mask_graph(**settings).tojson())
    bound = graph.bind(mx.cpu(), {name: mx.nd.array(array) for name, array in arrays.items()})
    from_graph = [output.asnumpy() for output in bound.forward()]
    tensors = [mx.nd.array(arrays[name]) for name in INPUTS]
    from_nd = ops.multi_proposal_target_mask(*tensors, **settings)
    from_nd += ops.mask_rcnn_target(from_nd[4], mx.nd.array(arrays["gt_masks"]), from_nd[5])
    host = _native.multi_proposal_target_mask(*(arrays[name] for name in INPUTS), **settings)
    host += _native.mask_rcnn_target(host[4], arrays["gt_masks"], host[5])
    assert (host[5] >= 0).any() and (host[6] == 1).any()
    for a, b, c in zip(from_graph, from_nd, host):
        np.testing.assert_array_equal(a, b.asnumpy())
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("switch", ["legacy_gt_centre", "legacy_areas", "legacy_min_size"])
@pytest.mark.parametrize("operator", ["multi_proposal_target", "multi_proposal_target_mask"])
def test_legacy_attributes_reach_the_kernel(operator, switch):
    arrays = small_arrays(seed=3)
    arrays["bbox_pred"][:, 2::4] -= 1.5  # narrow boxes
    inputs = [arrays[name] for name in INPUTS]
    settings = {**SMALL, "post_nms_top_n": 30, "min_size": 5, switch: False}
    outputs = getattr(ops, operator)(*map(mx.nd.array, inputs), **settings)
    expected = getattr(_native, operator)(*inputs, **settings)
    default = getattr(_native, operator)(*inputs, **{**settings, switch: True})
    assert any((a != b).any() for a, b in zip(expected, default))
    for output, wanted in zip(outputs, expected):
        np.testing.assert_array_equal(output.asnumpy(), wanted)


def test_attributes_of_2018_symbol_files_are_accepted():
    ops.load_library()
    arrays = small_arrays()
    *_, rois, ids = mx.nd.MultiProposalTargetMask(
        *(mx.nd.array(arrays[name]) for name in INPUTS), scales=(1, 2), ratios=(1,),
        batch_size=2, max_masks=5, max_gts=100, max_crowd=10, rpn_post_nms_top_n=6, workspace=128,
    )  # fmt: skip
    targets, classes = mx.nd.MaskRcnnTarget(
        rois, mx.nd.array(arrays["gt_masks"]), ids, batch_size=2, mask_size=14, num_proposals=5,
        max_polygon_len=500, max_num_gts=100, num_classes=80, ignore_label=-1, workspace=512,
    )  # fmt: skip
    assert targets.shape == classes.shape == (10, 14, 14)


def test_unblocked_operators_have_a_zero_gradient():
    """Graphs from JSON files have no BlockGrad in front: the operators' own backward must do."""
    ops.load_library()
    arrays = small_arrays()
    variables = {name: mx.sym.Variable(name) for name in arrays}
    outputs = mx.sym.MultiProposalTargetMask(
        *(variables[name] for name in INPUTS), scales=(1, 2), ratios=(1,), rpn_post_nms_top_n=6
    )
    masks = mx.sym.MaskRcnnTarget(outputs[4], variables["gt_masks"], outputs[5])
    graph = mx.sym.Group([outputs, masks])
    executor = graph.simple_bind(mx.cpu(), **{name: a.shape for name, a in arrays.items()})
    for name, array in arrays.items():
        executor.arg_dict[name][:] = array
        executor.grad_dict[name][:] = 7
    heads = [mx.nd.ones(output.shape) for output in executor.forward(is_train=True)]
    executor.backward(heads)
    assert not any(gradient.asnumpy().any() for gradient in executor.grad_arrays)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_masks": 0}, ["max_masks", "0"]),
        ({"legacy_areas": 2}, ["argument 'legacy_areas' is '2', expected True or False"]),
        ({"legacy_min_size": "no"}, ["legacy_min_size"]),
        ({"legacy_gt_centre": None}, ["legacy_gt_centre"]),
        ({"gt_boxes": mx.nd.zeros((1, 3, 5))}, ["gt_boxes", "(2, rows, 5)"]),
        ({"im_info": mx.nd.zeros((2, 3)).tostype("row_sparse")}, ["im_info", "row_sparse"]),
        ({"cls_prob": mx.nd.zeros((2, 2, 6, 5))}, ["cls_prob", "(2, 2, 6, 4)"]),
        ({"scales": (1e300, 1)}, ["scales", "1e+300"]),
    ],
)
def test_target_front_refuses_wrong_arguments(change, words):
    arrays = small_arrays()
    arguments = {name: mx.nd.array(arrays[name]) for name in INPUTS}
    with pytest.raises(OpsError) as caught:
        ops.multi_proposal_target_mask(**{**arguments, **SMALL, **change})
    assert all(word in str(caught.value) for word in ["multi_proposal_target_mask", *words])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask_size": 0}, ["mask_size", "0"]),
        ({"mask_size": 28.5}, ["mask_size", "28.5"]),
        ({"ignore_label": float("nan")}, ["ignore_label", "nan"]),
        ({"rois": mx.nd.zeros((4, 4))}, ["rois", "(4, 4)"]),
        ({"mask_polys": mx.nd.zeros((3, 9))}, ["mask_polys"]),
        ({"mask_ids": mx.nd.zeros((3, 1))}, ["mask_ids", "(4, 1)"]),
        ({"mask_ids": mx.nd.zeros((4, 1), dtype="int32")}, ["mask_ids", "int32"]),
        ({"mask_ids": mx.sym.Variable("ids")}, ["mask_ids", "Symbol"]),
    ],
)
def test_mask_front_refuses_wrong_arguments(change, words):
    arguments = {
        "rois": mx.nd.zeros((4, 5)),
        "mask_polys": mx.nd.zeros((1, 3, 9)),
        "mask_ids": mx.nd.zeros((4, 1)),
    }
    ops.mask_rcnn_target(**arguments)
    with pytest.raises(OpsError) as caught:
        ops.mask_rcnn_target(**{**arguments, **change})
    assert all(word in str(caught.value) for word in ["mask_rcnn_target", *words])


@pytest.mark.parametrize(
    ("shapes", "attributes", "words"),
    [
        ({"mask_polys": (1, 3, 9), "mask_ids": (4, 1)}, {}, "'rois' has an unknown shape"),
        ({"rois": (4, 4), "mask_polys": (1, 3, 9), "mask_ids": (4, 1)}, {}, "(R, 5)"),
        ({"rois": (4, 5), "mask_polys": (3, 9), "mask_ids": (4, 1)}, {}, "(N, G, L)"),
        ({"rois": (4, 5), "mask_polys": (1, 3, 9), "mask_ids": (4, 2)}, {}, "(4, 1)"),
        ({"rois": (900, 5), "mask_polys": (1, 3, 9), "mask_ids": (900, 1)}, {"mask_size": 1000},
         "pixels in all"),
        ({"rois": (4, 5), "mask_polys": (1, 3, 9), "mask_ids": (4, 1)}, {"mask_size": 2000},
         "an integer from 1 to 1024"),
        ({"rois": (4, 5), "mask_polys": (1, 3, 9), "mask_ids": (4, 1)}, {"colour": "red"},
         "unknown attribute 'colour'"),
    ],
)  # fmt: skip
def test_mask_graph_refuses_wrong_shapes_and_attributes(shapes, attributes, words):
    ops.load_library()
    with pytest.raises(mx.base.MXNetError) as caught:
        variables = [mx.sym.Variable(name) for name in ("rois", "mask_polys", "mask_ids")]
        mx.sym.MaskRcnnTarget(*variables, **attributes).infer_shape(**shapes)
    assert "MaskRcnnTarget: " in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize("name", INPUTS)
def test_target_graph_refuses_a_wrong_shape_of_each_input(name):
    ops.load_library()
    shapes = {key: small_arrays()[key].shape for key in INPUTS}
    shapes[name] = (*shapes[name][:-1], shapes[name][-1] + 1)
    variables = [mx.sym.Variable(key) for key in INPUTS]
    graph = mx.sym.MultiProposalTargetMask(*variables, scales=(1, 2), ratios=(1,))
    with pytest.raises(mx.base.MXNetError, match="MultiProposalTargetMask: input"):
        graph.infer_shape(**shapes)

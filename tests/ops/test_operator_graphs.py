"""What every operator owes a graph: JSON, gradients that add up, batches of any size."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from tests.ops import operator_cases

SIZES = {
    "images": 2, "height": 4, "width": 5, "scales": 3, "ratios": 2, "post": 12, "rows": 4,
    "masks": 3, "poison": 0,
}  # fmt: skip
# Not 16 images, 300 rois and 21 anchors; and exactly 16 and more images.
BATCHES = [
    {**SIZES, "images": 1, "post": 1, "scales": 1, "ratios": 1, "masks": 1},
    {**SIZES, "images": 16, "post": 7, "height": 3},
    {**SIZES, "images": 17, "post": 13, "masks": 5, "width": 9},
    {**SIZES, "images": 3, "post": 450, "height": 33, "width": 40, "scales": 9, "ratios": 5},
]
FAN_OUT = 9  # from 8 uses on, MXNet sums gradients in place unless the process is prepared


def tensors_of(call):
    return {name: mx.nd.array(array) for name, array in call.arrays.items()}


def outputs_of(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("name", operator_cases.CASES)
def test_json_round_trip(name):
    call = operator_cases.CASES[name](SIZES, np.random.default_rng(0))
    variables = {key: mx.sym.Variable(key) for key in call.arrays}
    graph = mx.sym.Group(list(outputs_of(call.front(**variables, **call.attributes))))
    again = mx.sym.load_json(graph.tojson())
    assert again.list_outputs() == graph.list_outputs()
    _, shapes, _ = again.infer_shape(**{key: array.shape for key, array in call.arrays.items()})
    assert shapes == call.shapes
    got = again.bind(mx.cpu(), tensors_of(call)).forward()
    expected = outputs_of(call.front(**tensors_of(call), **call.attributes))
    for output, wanted in zip(got, expected):
        np.testing.assert_array_equal(output.asnumpy(), wanted.asnumpy())


@pytest.mark.parametrize("grad_req", ["write", "add"])
@pytest.mark.parametrize("name", operator_cases.CASES)
def test_nine_uses_beside_a_loss_add_up(name, grad_req):
    """Each input feeds nine operators and a loss; only what is differentiable adds to the loss."""
    call = operator_cases.CASES[name](SIZES, np.random.default_rng(0))
    variables = {key: mx.sym.Variable(key) for key in call.arrays}
    heads = [mx.sym.MakeLoss(mx.sym.square(variable)) for variable in variables.values()]
    for use in range(FAN_OUT):
        outputs = call.front(**variables, **call.attributes, name=f"use{use}")
        heads += outputs_of(outputs)
    shapes = {key: array.shape for key, array in call.arrays.items()}
    executor = mx.sym.Group(heads).simple_bind(mx.cpu(), grad_req=grad_req, **shapes)
    for key, array in call.arrays.items():
        executor.arg_dict[key][:] = array
        executor.grad_dict[key][:] = 1
    for _ in range(2):
        outputs = executor.forward(is_train=True)
        executor.backward([mx.nd.ones(output.shape) for output in outputs])
    own = operator_gradients(call)
    for key, array in call.arrays.items():
        once = 2 * array + FAN_OUT * own[key]
        expected = once if grad_req == "write" else 1 + 2 * once
        np.testing.assert_allclose(
            executor.grad_dict[key].asnumpy(), expected, rtol=1e-4, atol=1e-3, err_msg=key
        )


def operator_gradients(call):
    """Gradients of the sum of the outputs of one use; 0 for all but pooling and convolution."""
    tensors = tensors_of(call)
    for tensor in tensors.values():
        tensor.attach_grad()
    with mx.autograd.record():
        outputs = outputs_of(call.front(**tensors, **call.attributes))
    mx.autograd.backward(list(outputs))
    gradients = {key: tensor.grad.asnumpy() for key, tensor in tensors.items()}
    differentiable = {key for key, gradient in gradients.items() if gradient.any()}
    assert differentiable <= {"data", "trans", "offset", "weight", "bias"}
    return gradients


@pytest.mark.parametrize("sizes", BATCHES, ids=["one", "sixteen", "seventeen", "large"])
@pytest.mark.parametrize("name", operator_cases.CASES)
def test_batches_of_other_sizes_equal_the_host(name, sizes):
    call = operator_cases.CASES[name](sizes, np.random.default_rng(2))
    results = outputs_of(call.front(**tensors_of(call), **call.attributes))
    outputs = [output.asnumpy() for output in results]
    assert [output.shape for output in outputs] == call.shapes
    for output, expected in zip(outputs, call.host() if call.host else ()):
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize(
    "name", ["multi_proposal", "multi_proposal_target_mask", "multi_proposal_target_fine"]
)
def test_images_of_a_batch_do_not_meet(name):
    """Sixteen images in one call, and one by one."""
    call = operator_cases.CASES[name]({**SIZES, "images": 16}, np.random.default_rng(3))
    together = [output.asnumpy() for output in call.front(**tensors_of(call), **call.attributes)]
    rows = SIZES["post"]
    for image in range(16):
        single = {key: mx.nd.array(array[image : image + 1]) for key, array in call.arrays.items()}
        alone = [output.asnumpy() for output in call.front(**single, **call.attributes)]
        alone[0][:, 0] = image
        for output, own in list(zip(together, alone))[:4]:
            np.testing.assert_array_equal(output[image * rows : (image + 1) * rows], own)

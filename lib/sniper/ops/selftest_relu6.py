"""Quick numeric self-test of ReLU6: the limits, values beside them, and the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mxnet as mx

from sniper.ops.relu6 import relu6
from sniper.ops.selftest_expect import expect


def relu6_self_test() -> None:
    """The gradient passes at both limits."""
    data = mx.nd.array([-1, 0, 2.5, 6, 7])
    data.attach_grad()
    with mx.autograd.record():
        output = relu6(data)
    output.backward(mx.nd.array([1, 2, 3, 4, 5]))
    expect("relu6", "output", output, [0, 0, 2.5, 6, 6])
    expect("relu6", "gradient", data.grad, [0, 2, 3, 4, 0])


SELF_TESTS: Mapping[str, Callable[[], None]] = {"relu6": relu6_self_test}

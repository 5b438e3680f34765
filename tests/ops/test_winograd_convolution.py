"""3x3 convolutions with fewer multiplications against MXNet's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from sniper import ops
from sniper.errors import OpsError

ROOT = Path(__file__).resolve().parents[2]
# Sizes around the tiles of 4 cells and strips of 8, the 16 lanes, and the chunks of 192 channels
# and 128 filters.
CASES = {
    "one of all": {"channels": 1, "filters": 1, "map": (1, 1), "pad": (1, 1)},
    "one tile": {"channels": 16, "filters": 16, "map": (4, 4), "pad": (1, 1)},
    "without padding": {"channels": 3, "filters": 20, "map": (9, 14), "pad": (0, 0)},
    "more padding than the window has": {"channels": 5, "filters": 7, "map": (6, 3), "pad": (2, 4)},
    "several strips": {"channels": 17, "filters": 33, "map": (10, 70), "pad": (1, 1), "relu": True},
    "several chunks of channels": {"channels": 400, "filters": 24, "map": (9, 13), "pad": (1, 1)},
    "several chunks of filters": {"channels": 40, "filters": 300, "map": (7, 13), "pad": (1, 1)},
    "several blocks of tiles": {"channels": 64, "filters": 64, "map": (70, 66), "pad": (1, 1)},
    "batch": {"images": 3, "channels": 208, "filters": 130, "map": (5, 6), "pad": (1, 1),
              "bias": True, "relu": True},
}  # fmt: skip


def inputs_of(case, seed=0):
    """Attributes and tensors."""
    rng = np.random.default_rng(seed)
    channels, filters = case["channels"], case["filters"]
    arrays = [
        rng.normal(0, 1, (case.get("images", 1), channels, *case["map"])),
        rng.normal(0, 0.1, (filters, channels, 3, 3)),
    ]
    if case.get("bias"):
        arrays.append(rng.normal(0, 1, filters))
    attributes = {"num_filter": filters, "pad": case["pad"], "relu": case.get("relu", False)}
    return attributes, [array.astype(np.float32) for array in arrays]


def ours(attributes, arrays):
    return ops.winograd_convolution(*map(mx.nd.array, arrays), **attributes).asnumpy()


def of_mxnet(attributes, arrays):
    output = mx.nd.Convolution(
        *map(mx.nd.array, arrays), num_filter=attributes["num_filter"], kernel=(3, 3),
        pad=attributes["pad"], no_bias=len(arrays) < 3,
    )  # fmt: skip
    return (mx.nd.relu(output) if attributes["relu"] else output).asnumpy()


def assert_equal_to_mxnet(case):
    attributes, arrays = inputs_of(case)
    wanted, found = of_mxnet(attributes, arrays), ours(attributes, arrays)
    assert found.shape == wanted.shape
    largest = np.abs(wanted).max()
    assert largest > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * largest)
    assert np.linalg.norm(found - wanted) < 5e-6 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_mxnet(name):
    assert_equal_to_mxnet(CASES[name])


def in_a_process(code, **variables):
    environment = {**os.environ, **variables}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "lib"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_wide_registers_the_numbers_are_the_same_but_for_rounding():
    code = (
        "import sniper\n"
        "from tests.ops.test_winograd_convolution import CASES, assert_equal_to_mxnet\n"
        "from sniper import native\n"
        "assert native.isa() == 'baseline'\n"
        "for name in ('batch', 'several strips'): assert_equal_to_mxnet(CASES[name])\n"
    )
    in_a_process(code, SNIPER_MAX_ISA="baseline")


def test_bits_do_not_depend_on_the_number_of_threads():
    code = (
        "import hashlib, sniper\n"
        "from tests.ops.test_winograd_convolution import CASES, inputs_of, ours\n"
        "for name in ('several blocks of tiles', 'batch'):\n"
        "    print(hashlib.sha256(ours(*inputs_of(CASES[name])).tobytes()).hexdigest())\n"
    )
    # More threads than cores would spin.
    found = {
        in_a_process(code, OMP_NUM_THREADS=threads, OMP_WAIT_POLICY="passive")
        for threads in ("1", "3")
    }
    assert len(found) == 1


def test_an_image_has_the_same_bits_alone_and_in_a_batch():
    attributes, (data, weight, bias) = inputs_of(CASES["batch"])
    together = ours(attributes, (data, weight, bias))
    for row, image in enumerate(data):
        alone = ours(attributes, (image[None], weight, bias))
        np.testing.assert_array_equal(together[row], alone[0])


def test_memory_of_an_earlier_call_has_no_effect():
    """Values that are not finite stay in unused lanes and rows."""
    attributes, arrays = inputs_of(CASES["several chunks of channels"])
    expected = ours(attributes, arrays)
    bad, bad_arrays = inputs_of({"channels": 300, "filters": 140, "map": (16, 60), "pad": (1, 1)})
    assert np.isnan(ours(bad, [np.full_like(bad_arrays[0], np.nan), bad_arrays[1]])).any()
    np.testing.assert_array_equal(ours(attributes, arrays), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_filter": 0}, "num_filter"),
        ({"pad": (1,)}, "pad"),
        ({"num_filter": 5}, "weight"),
        ({"pad": (0, 0)}, "as large as the window"),
    ],
)
def test_wrong_use_is_refused(change, message):
    attributes, arrays = inputs_of({"channels": 2, "filters": 3, "map": (2, 2), "pad": (1, 1)})
    with pytest.raises(OpsError, match=message):
        ours({**attributes, **change}, arrays)


@pytest.mark.parametrize("attribute", [{"kernel": (5, 5)}, {"stride": (2, 2)}, {"dilate": (2, 2)}])
def test_other_convolutions_are_refused(attribute):
    ops.load_library()
    tensors = [mx.nd.ones((1, 2, 8, 8)), mx.nd.ones((3, 2, 3, 3))]
    with pytest.raises(mx.MXNetError, match=next(iter(attribute))):
        mx.nd.WinogradConvolution(
            *tensors, **{"num_filter": 3, "kernel": (3, 3), "no_bias": True, **attribute}
        ).wait_to_read()

"""Chip generation and multi-scale NMS inside MXNet: equal to the host functions, padded."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import OpsError
from sniper.native import _native
from sniper.ops.chips import chip_generator
from sniper.ops.nms import multi_scale_nms
from sniper.ops.selftest import SELF_TESTS

LEVEL = {"width": 640, "height": 480, "factor": 1.667, "stride": 57}
COLUMNS = ("dets", "levels", "classes", "images", "valid_ranges")


def boxes_im(count=60, seed=0):
    corners = np.random.default_rng(seed).uniform(0, [600, 440], (count, 2))
    return np.hstack([corners, corners + 30]).astype(np.float32)


def detections(count=300, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 120, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(10, 90, (count, 2))])
    return {
        "dets": np.hstack([boxes, rng.uniform(0.001, 1, (count, 1))]).astype(np.float32),
        "levels": rng.integers(0, 2, count).astype(np.float32),
        "classes": rng.integers(1, 4, count).astype(np.float32),
        "images": rng.integers(0, 3, count).astype(np.float32),
        "valid_ranges": np.float32([[-1, 60], [40, -1]]),
    }


def host_merge(arrays, threshold, limit):
    index = {k: arrays[k].astype(np.int32) for k in ("levels", "classes", "images")}
    return _native.multi_scale_nms(
        arrays["dets"],
        valid_ranges=arrays["valid_ranges"],
        sigma=0.55,
        nms_threshold=threshold,
        max_per_image=limit,
        **index,
    )


def forward(symbol, arrays):
    """Outputs of a bound graph; also runs its backward, which must give zeros."""
    shapes = {name: array.shape for name, array in arrays.items()}
    executor = symbol.simple_bind(mx.cpu(), grad_req="write", **shapes)
    for name, array in arrays.items():
        executor.arg_dict[name][:] = array
        executor.grad_dict[name][:] = 5
    outputs = executor.forward(is_train=True)
    executor.backward([mx.nd.ones(output.shape) for output in outputs])
    for grad in executor.grad_arrays:
        np.testing.assert_array_equal(grad.asnumpy(), 0)
    return [output.asnumpy() for output in outputs]


@pytest.mark.parametrize("seed", [0, 2**40 + 17, -3])
def test_chips_equal_the_host_function(seed):
    boxes = boxes_im()
    chips, count = chip_generator(mx.nd.array(boxes), seed=seed, **LEVEL)
    expected = _native.chip_cover(boxes, 1.667, 640, 480, 512, 57, seed)
    assert count.asscalar() == len(expected)
    np.testing.assert_array_equal(chips.asnumpy()[: len(expected)], expected.astype(np.float32))
    np.testing.assert_array_equal(chips.asnumpy()[len(expected) :], -1)


def test_boxes_end_one_px_before_the_border_on_demand():
    """Where the lattice ends one px before the border, as 2018 held boxes there."""
    boxes = np.float32([[600, 300, 626, 320]])
    level = {"width": 513 + 2 * 57, "height": 700, "factor": 1.0, "stride": 57}
    ends = [
        {
            float(
                chip_generator(mx.nd.array(boxes), seed=seed, legacy_clip=legacy, **level)[0][
                    0, 2
                ].asscalar()
            )
            for seed in range(30)
        }
        for legacy in (False, True)
    ]
    assert ends == [{626.0}, {625.0, 626.0}]


def test_a_seed_in_two_halves_is_the_same():
    """Symbol files may have it so."""
    boxes = mx.nd.array(boxes_im())
    seed = 2**40 + 17
    whole, _ = chip_generator(boxes, seed=seed, **LEVEL)
    halves, _ = mx.nd.ChipGenerator(
        boxes, seed=seed & 0xFFFFFFFF, seed_high=seed >> 32, chip_size=512, **LEVEL
    )
    assert (whole != chip_generator(boxes, seed=17, **LEVEL)[0]).sum().asscalar() > 0
    np.testing.assert_array_equal(whole.asnumpy(), halves.asnumpy())


def test_numpy_scalars_keep_all_their_digits():
    """The str() of a float32 has fewer than its value, which decides sizes of levels."""
    factor = np.float32(100.1)
    assert int(1000 * float(str(factor))) != int(1000 * float(factor))
    boxes, level = boxes_im(), {"width": 1000, "height": np.int64(480), "stride": 57}
    chips, count = chip_generator(mx.nd.array(boxes), factor=factor, **level, max_chips=300)
    expected = _native.chip_cover(boxes, float(factor), 1000, 480, 512, 57, 0)
    assert count.asscalar() == len(expected)
    np.testing.assert_array_equal(chips.asnumpy()[: len(expected)], expected.astype(np.float32))


def test_chips_ignore_padded_boxes_and_keep_the_first_when_there_are_too_many():
    boxes = boxes_im(200)
    level = {**LEVEL, "factor": 3.0}
    chips, count = chip_generator(mx.nd.array(boxes), **level)
    padded = np.vstack([np.full((3, 4), -1, np.float32), boxes])
    again, _ = chip_generator(mx.nd.array(padded), **level)
    np.testing.assert_array_equal(chips.asnumpy(), again.asnumpy())
    few, few_count = chip_generator(mx.nd.array(boxes), max_chips=3, **level)
    assert few_count.asscalar() == 3 < count.asscalar()
    np.testing.assert_array_equal(few.asnumpy(), chips.asnumpy()[:3])


def test_chips_in_a_graph():
    symbol = mx.sym.Group(list(chip_generator(mx.sym.Variable("boxes"), name="chips", **LEVEL)))
    assert symbol.list_outputs() == ["chips_output", "chips_count_output"]
    chips, count = forward(symbol, {"boxes": boxes_im()})
    expected, expected_count = chip_generator(mx.nd.array(boxes_im()), **LEVEL)
    np.testing.assert_array_equal(chips, expected.asnumpy())
    assert count[0] == expected_count.asscalar()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"width": 0}, "width"),
        ({"factor": float("inf")}, "'factor' is 'inf', expected a number from 1e-06 to 1e\\+06"),
        ({"stride": 1.5}, "stride"),
        ({"max_chips": 0}, "max_chips"),
        ({"seed": 0.5}, "'seed' is '0.5', expected an integer of 64 bits"),
        ({"seed": 2**64}, "seed"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_wrong_chip_attributes_are_refused(change, word):
    with pytest.raises(OpsError, match=word):
        chip_generator(mx.nd.array(boxes_im()), **{**LEVEL, **change})


@pytest.mark.parametrize("threshold", [-1.0, 0.45])
@pytest.mark.parametrize("limit", [-1, 40])
def test_merge_equals_the_host_function(threshold, limit):
    arrays = detections()
    expected = host_merge(arrays, threshold, limit)
    inputs = [mx.nd.array(arrays[name]) for name in COLUMNS]
    *outputs, count = multi_scale_nms(*inputs, nms_threshold=threshold, max_per_image=limit)
    kept = len(expected[0])
    assert count.asscalar() == kept < 300
    for output, wanted in zip(outputs, expected):
        np.testing.assert_array_equal(output.asnumpy()[:kept], wanted)
        np.testing.assert_array_equal(output.asnumpy()[kept:], -1)


def test_merge_in_a_graph_with_padded_rows():
    arrays = detections()
    arrays["images"][::3] = -1
    arrays["levels"][::3] = -1
    symbol = mx.sym.Group(list(multi_scale_nms(*map(mx.sym.Variable, COLUMNS), name="merge")))
    suffixes = ("", "_classes", "_images", "_count")
    assert symbol.list_outputs() == [f"merge{suffix}_output" for suffix in suffixes]
    dets, _, images, count = forward(symbol, arrays)
    real = arrays["images"] >= 0
    rows = {k: v[real] if k != "valid_ranges" else v for k, v in arrays.items()}
    expected = host_merge(rows, -1.0, -1)
    assert count[0] == len(expected[0])
    np.testing.assert_array_equal(dets[: len(expected[0])], expected[0])
    np.testing.assert_array_equal(images[: len(expected[0])], expected[2])


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("levels", 2, "level 2"),
        ("levels", np.nan, "levels"),
        ("classes", -1, "classes"),
        ("classes", 0.5, "classes"),
        ("images", np.nan, "images"),
        ("images", 1e9, "images"),
    ],
)
def test_merge_refuses_indices_that_are_none(name, value, word):
    arrays = detections()
    arrays[name][7] = value
    inputs = [mx.nd.array(arrays[column]) for column in COLUMNS]
    with pytest.raises(mx.base.MXNetError, match=word):
        multi_scale_nms(*inputs)[0].wait_to_read()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sigma": 0}, "sigma"),
        ({"nms_threshold": 2}, "nms_threshold"),
        ({"min_score": None}, "min_score"),
    ],
)
def test_wrong_merge_attributes_are_refused(change, word):
    inputs = [mx.nd.array(array) for array in detections().values()]
    with pytest.raises(OpsError, match=word):
        multi_scale_nms(*inputs, **change)


def test_self_tests_fail_on_wrong_numbers(monkeypatch):
    monkeypatch.setattr(
        "sniper.ops.selftest.chip_generator",
        lambda boxes, **_: (mx.nd.zeros((3, 4)), mx.nd.array([1])),
    )
    with pytest.raises(OpsError, match="wrong numbers"):
        SELF_TESTS["chip_generator"]()

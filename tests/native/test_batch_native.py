"""The last step of a training batch in compiled code, against NumPy."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.errors import OpsError
from sniper.native._native import expand_rpn, expand_rpn_batch, image_to_chw

MEANS = (103.939, 116.779, 123.68)


def slow_chw(pixels, content_hw, means, height, width):
    out = np.zeros((len(pixels), 3, height, width), np.float32)
    for sample, (rows, columns) in enumerate(content_hw):
        rows, columns = min(rows, height), min(columns, width)
        content = pixels[sample, :rows, :columns].astype(np.float64) - np.array(means)
        out[sample, :, :rows, :columns] = content.transpose(2, 0, 1)[::-1]
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.tuples(st.integers(1, 150), st.integers(1, 70)),
    st.tuples(st.integers(1, 150), st.integers(1, 70)),
    st.lists(st.floats(-300, 300), min_size=3, max_size=3),
)
def test_planes_equal_a_slow_reference(seed, samples, slot_hw, out_hw, means):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (samples, *slot_hw, 3), np.uint8)
    content = np.stack([rng.integers(0, side + 1, samples) for side in slot_hw], axis=1)
    content = content.astype(np.int32)
    out = np.full((samples, 3, *out_hw), np.nan, np.float32)
    for one_thread in (False, True):
        out.fill(np.nan)
        image_to_chw(pixels, content, means, out, one_thread)
        np.testing.assert_array_equal(out, slow_chw(pixels, content, means, *out_hw))


def test_a_window_of_an_image_is_read_in_place():
    image = np.random.default_rng(4).integers(0, 256, (90, 70, 3), np.uint8)
    window = image[7:60, 11:41]
    for pixels in (window, window[::-1], window[:, ::-1], window[:, :, ::-1]):
        content = np.int32([pixels.shape[:2]])
        out = np.empty((1, 3, 64, 32), np.float32)
        image_to_chw(pixels[None], content, MEANS, out)
        np.testing.assert_array_equal(out, slow_chw(pixels[None], content, MEANS, 64, 32))


def test_every_value_of_a_byte_is_rounded_once():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1).repeat(3, axis=3)
    out = np.empty((1, 3, 1, 256), np.float32)
    image_to_chw(pixels, np.array([[1, 256]], np.int32), MEANS, out)
    expected = (np.arange(256)[None] - np.array(MEANS)[::-1, None]).astype(np.float32)
    np.testing.assert_array_equal(out[0, :, 0], expected)


def test_result_does_not_depend_on_the_threads():
    text = (
        "import numpy as np, sys\n"
        "from sniper.native._native import expand_rpn, expand_rpn_batch, image_to_chw\n"
        "rng = np.random.default_rng(0)\n"
        "pixels = rng.integers(0, 256, (3, 200, 90, 3), np.uint8)\n"
        "out = np.empty((3, 3, 190, 99), np.float32)\n"
        "content = np.array([[200, 90], [0, 5], [77, 88]], np.int32)\n"
        "image_to_chw(pixels, content, (1.1, 2.2, 3.3), out)\n"
        "sys.stdout.buffer.write(out.tobytes())\n"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", text],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for threads in (1, 2, 5)
    }
    assert len(results) == 1


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_empty_batches(shape):
    pixels = np.zeros((shape[0], 5, 5, 3), np.uint8)
    image_to_chw(pixels, np.zeros((shape[0], 2), np.int32), MEANS, np.empty(shape, np.float32))


def test_slots_without_pixels_give_zeros():
    out = np.full((2, 3, 4, 4), np.nan, np.float32)
    image_to_chw(np.zeros((2, 0, 5, 3), np.uint8), np.zeros((2, 2), np.int32), MEANS, out)
    assert not out.any()


def arguments(**changes):
    values = {
        "pixels": np.zeros((2, 6, 5, 3), np.uint8),
        "content_hw": np.zeros((2, 2), np.int32),
        "pixel_means": MEANS,
        "out": np.zeros((2, 3, 6, 5), np.float32),
    }
    return {**values, **changes}


def read_only():
    array = np.zeros((2, 3, 6, 5), np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pixels": np.zeros((2, 6, 5, 3), np.float32)}, "`pixels`"),
        ({"pixels": np.zeros((2, 6, 5), np.uint8)}, "`pixels`"),
        ({"pixels": np.zeros((2, 6, 5, 4), np.uint8)}, "`pixels`"),
        ({"pixels": None}, "`pixels`"),
        ({"content_hw": np.zeros((3, 2), np.int32)}, "`content_hw`"),
        ({"content_hw": np.zeros((2, 2), np.int64)}, "`content_hw`"),
        ({"content_hw": np.array([[6, 5], [7, 5]], np.int32)}, "sample 1 is 5x7 px"),
        ({"content_hw": np.array([[6, -1], [0, 0]], np.int32)}, "sample 0 is -1x6 px"),
        ({"pixel_means": (1, 2)}, "three numbers"),
        ({"pixel_means": (1, 2, float("nan"))}, "`pixel_means`"),
        ({"pixel_means": "abc"}, "`pixel_means`"),
        ({"out": np.zeros((1, 3, 6, 5), np.float32)}, "`out`"),
        ({"out": np.zeros((2, 3, 6, 5))}, "`out`"),
        ({"out": np.zeros((2, 3, 5, 6), np.float32).transpose(0, 1, 3, 2)}, "`out`"),
        ({"out": read_only()}, "writeable"),
    ],
)
def test_wrong_arguments_are_named(changes, words):
    with pytest.raises(OpsError) as error:
        image_to_chw(**arguments(**changes))
    assert words in str(error.value)


def rpn_batch(rng, samples, anchors, cells, room):
    """Inputs and outputs of a batch; the outputs hold rubbish."""
    size = anchors * cells * cells
    counts = rng.integers(0, room + 1, samples).astype(np.int32)
    index = np.full((samples, room), 10**9, np.int32)
    for row, count in zip(index, counts):
        row[:count] = np.sort(rng.choice(size, count, replace=False))
    return {
        "label": rng.integers(-1, 2, (samples, size)).astype(np.int8),
        "counts": counts,
        "index": index,
        "values": rng.normal(size=(samples, room, 4)).astype(np.float32),
        "out_label": np.full((samples, size), np.nan, np.float32),
        "out_target": np.full((samples, 4 * anchors, cells, cells), np.nan, np.float32),
        "out_weight": np.full((samples, 4 * anchors, cells, cells), np.nan, np.float32),
    }


@pytest.mark.parametrize("seed", range(8))
def test_a_batch_of_rpn_planes_equals_those_of_its_samples(seed):
    rng = np.random.default_rng(seed)
    samples, anchors, cells = (int(n) for n in rng.integers(1, 7, 3))
    room = int(rng.integers(0, anchors * cells**2 + 1))
    batch = rpn_batch(rng, samples, anchors, cells, room)
    expand_rpn_batch(**batch)
    for i, count in enumerate(batch["counts"]):
        label = np.empty_like(batch["out_label"][i])
        target, weight = np.empty((2, 4 * anchors, cells, cells), np.float32)
        index, values = batch["index"][i, :count], batch["values"][i, :count]
        expand_rpn(batch["label"][i], index, values, label, target, weight)
        np.testing.assert_array_equal(batch["out_label"][i], label)
        np.testing.assert_array_equal(batch["out_target"][i], target)
        np.testing.assert_array_equal(batch["out_weight"][i], weight)


def test_an_empty_batch_of_rpn_planes():
    expand_rpn_batch(**rpn_batch(np.random.default_rng(0), 0, 2, 3, 4))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("label", lambda a: a.astype(np.float32), "`label`"),
        ("label", lambda a: a[:, 1:], "`out_target` does not fit"),
        ("counts", lambda a: a[1:], "`counts`"),
        ("counts", lambda a: a * 0 + 6, "sample 0 has 6 positives, but room for 5"),
        ("counts", lambda a: a * 0 - 1, "sample 0 has -1 positives"),
        ("index", lambda a: a * 0 - 1, "anchor"),
        ("index", lambda a: a * 0 + 18, "anchor"),
        ("index", lambda a: a[1:], "`index`"),
        ("values", lambda a: a[:, 1:], "`values`"),
        ("out_label", lambda a: a[:, 1:], "`out_label`"),
        ("out_target", lambda a: a[:, 1:], "`out_target`"),
        ("out_target", lambda a: a[:, :, ::-1], "`out_target`"),
        ("out_weight", lambda a: a[:, 1:], "`out_weight`"),
        ("out_weight", lambda a: a.astype(np.float64), "`out_weight`"),
    ],
)
def test_wrong_arrays_of_rpn_planes_are_named(name, change, words):
    batch = rpn_batch(np.random.default_rng(0), 3, 2, 3, 5)
    batch["counts"][:] = 5
    batch["index"][:] = np.arange(5)
    batch[name] = change(batch[name])
    with pytest.raises(OpsError) as error:
        expand_rpn_batch(**batch)
    assert words in str(error.value)

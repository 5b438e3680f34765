"""Digests: every change shows, a single one exactly."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.errors import DataError
from sniper.training.digests import ArrayDigest, WeightsDigest, digest_array, digest_weights
from sniper.training.run_state import RunState
from sniper.training.stepper import StepResult
from sniper.training.trace import RunTrace, read_trace
from tests.training import step_toys as toys


def _array(shape=(4, 3, 40, 40), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _again(digest):
    """After a way through a file."""
    return type(digest).from_dict(json.loads(json.dumps(digest.as_dict())))


@given(st.integers(0, 4 * 4800 - 1), st.floats(width=32, allow_nan=False))
def test_a_single_change_is_known_exactly(place, value):
    array = _array()
    digest = _again(digest_array(array))
    changed = array.copy()
    changed.flat[place] = value
    difference = digest.difference(changed)
    if changed.tobytes() == array.tobytes():
        assert difference is None
        return
    row, column = divmod(place, 4800)
    assert (difference.row, difference.first, difference.last) == (row, column, column)
    assert (difference.was, difference.now) == (float(array.flat[place]), float(np.float32(value)))
    expected = [int(part) for part in np.unravel_index(column, (3, 40, 40))]
    assert f"number {expected}: was" in difference.text()


def test_several_changes_give_the_first_block_and_its_sum():
    array = _array()
    digest = digest_array(array)
    array[2, 1, 10:12] += 1
    difference = digest.difference(array)
    assert difference.row == 2
    assert difference.first <= 1600 + 400 <= difference.last
    assert difference.last - difference.first < 256
    assert 0 < difference.now - difference.was <= 80.01
    assert "their sum was" in difference.text()


@pytest.mark.parametrize("shape", [(2,), (3, 1), (5, 257), (1, 2, 9000), (2, 0)])
@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.float64, np.float16])
def test_all_shapes_and_types(shape, kind):
    array = (10 * np.abs(_array(shape))).astype(kind)
    digest = _again(digest_array(array))
    assert digest.difference(array.copy()) is None
    if array.size:
        changed = array.copy()
        changed.flat[array.size - 1] += 1
        assert digest.difference(changed).row == shape[0] - 1


def test_other_shapes_and_special_numbers_differ():
    array = np.zeros((2, 4), np.float32)
    digest = digest_array(array)
    with pytest.raises(ValueError, match="shapes differ"):
        digest.difference(np.zeros((2, 5), np.float32))
    for value in (-0.0, np.nan, np.inf):
        other = array.copy()
        other[1, 3] = value
        assert digest.difference(other) is not None, "bits count, not values"


def test_weights_by_name():
    arrays = {"a": mx.nd.ones((3, 4)), "b": mx.nd.zeros((2,))}
    digest = _again(digest_weights(arrays))
    assert digest.total == digest_weights(arrays).total
    assert digest.sums.tolist() == [12, 0]
    arrays["b"][1] = 1e-30
    other = digest_weights(arrays)
    assert (digest.hashes != other.hashes).tolist() == [False, True]
    assert digest.total != other.total


def test_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "digests.jsonl"
    with pytest.raises(DataError, match="no digests"):
        read_trace(path)
    line = {"session": 1, "epoch": 0, "batch": 0, "update": 1, "updated": True, "weights": None}
    line["arrays"] = {"data": digest_array(_array()).as_dict()}
    text = json.dumps(line)
    start = json.dumps({**line, "arrays": {}})
    path.write_text(f"{text[:90]}\n{start}\n{text}\n{text[:50]}")
    lines = read_trace(path)
    assert len(lines) == 2 and lines[1].arrays["data"].difference(_array()) is None
    for damaged in (text[:90], "[" * 100000, text.replace('"update": 1', '"update": 1e999')):
        path.write_text(f"{start}\n{damaged}\n{text}\n")
        with pytest.raises(DataError, match="digests of a run are damaged"):
            read_trace(path)
    path.write_text("nothing")
    with pytest.raises(DataError, match="no line"):
        read_trace(path)


@pytest.mark.parametrize("text", ["AAAA", "no base64!", "", "AAAAAAAAAAAAAAAA", "A" * 64])
def test_damaged_digests_are_refused(text):
    values = digest_array(_array()).as_dict()
    with pytest.raises(ValueError):
        ArrayDigest.from_dict({**values, "hashes": text})
    of_weights = digest_weights({"a": mx.nd.ones((3,)), "b": mx.nd.ones((2,))}).as_dict()
    for name in ("hashes", "sums"):
        with pytest.raises(ValueError):
            WeightsDigest.from_dict({**of_weights, name: text})


def test_which_updates_are_looked_at(tmp_path):
    """250 updates, a resume after 190, and an epoch that ends after 100."""
    path = tmp_path / "digests.jsonl"
    stepper = toys.make_stepper()
    batch = toys.toy_batch(4, seed=1)
    result = StepResult({}, updated=True, skipped=False, loss_scale=1.0)

    def go(session, first, last):
        state = RunState(0, first, 8, 4, 0)
        trace = RunTrace(path, session, stepper, state)
        for update in range(first + 1, last + 1):
            trace.batch(batch, state)
            state = RunState(0, update, 8, 4, 0)
            trace.trained(batch, result, state)
            if update == 100:
                trace.checkpoint(state)
        trace.close()

    go(1, 0, 190)
    go(2, 190, 250)
    lines = read_trace(path)
    assert [(line.update, line.session) for line in lines if line.is_start] == [(0, 1), (190, 2)]
    assert all(line.weights is not None for line in lines if line.is_start)
    batches = [line for line in lines if not line.is_start]
    seen = [*range(1, 51), *range(100, 151), *range(191, 241)]
    assert [line.update for line in batches] == seen
    weights = [line.update for line in batches if line.weights is not None]
    first = [*range(1, 11), *range(15, 51, 5), 100, *range(101, 111), *range(115, 151, 5)]
    assert weights == [*first, *range(191, 201), *range(205, 241, 5)]

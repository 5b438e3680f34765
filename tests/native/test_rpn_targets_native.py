"""The matcher behind `sniper.targets.rpn`: any anchors, settings and boxes; sampling; refusals."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.errors import OpsError
from sniper.native import _native
from sniper.targets import reference
from sniper.targets.anchors import base_anchors
from tests.native import fuzz_native_cases

HERE = Path(__file__).resolve()
EXAMPLES = int(os.environ.get("SNIPER_FUZZ_EXAMPLES", "100"))
BASE = base_anchors(16, (0.5, 1, 2), (2, 4, 7, 10, 13, 16, 24))
NONE = np.zeros((0, 4), np.float32)
OPTIONS = {
    "border": 32,
    "positive_overlap": 0.5,
    "negative_overlap": 0.4,
    "ignore_overlap": 0.3,
    "batch_size": 256,
    "max_positives": 128,
}


def matcher(base=BASE, stride=16, chip_size=512, **changes):
    return _native.RpnMatcher(
        base_anchors=base, stride=stride, chip_size=chip_size, **{**OPTIONS, **changes}
    )


def some_boxes(rng, count, size=512):
    corners = rng.integers(0, size - 20, (count, 2))
    sides = rng.integers(9, size // 2, (count, 2))
    return np.hstack([corners, np.minimum(corners + sides, size - 1)]).astype(np.float32)


def wild_boxes(rng, count, base, size):
    """Ordinary boxes, anchors, slivers, inverted, far and huge ones, and repetitions."""
    corners = rng.uniform(-0.5 * size, 1.5 * size, (count, 2))
    sides = rng.uniform(0, size, (count, 2)) * rng.choice([0, 1e-7, 0.01, 0.2, 1], (count, 2))
    boxes = np.hstack([corners, corners + sides])
    kinds = rng.integers(0, 8, count)
    boxes[kinds == 0] = base[rng.integers(0, len(base), (kinds == 0).sum())]
    boxes[kinds == 1] = np.rint(boxes[kinds == 1])
    boxes[kinds == 2] = boxes[kinds == 2][:, [2, 3, 0, 1]]
    boxes[kinds == 3] *= rng.choice([1e-30, 1e4, 1e30])
    boxes[kinds == 4, 2:] += rng.choice([-1, -0.5, 1e9, 3e38])
    boxes[kinds == 5] = boxes[:1]
    return np.clip(boxes, -3.4e38, 3.4e38).astype(np.float32)


def wild_anchors(rng, size):
    if rng.random() < 0.5:
        return BASE[rng.integers(0, len(BASE), rng.integers(1, 6))]
    corners = rng.uniform(-size, size, (rng.integers(1, 6), 2))
    sides = rng.uniform(0, size, corners.shape) * rng.choice([0, 0.01, 1])
    return np.hstack([corners, corners + sides]).astype(np.float32)


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32), valid=st.integers(0, 8), invalid=st.integers(0, 4))
def test_any_anchors_boxes_and_thresholds_match_like_the_reference(seed, valid, invalid):
    rng = np.random.default_rng(seed)
    stride = int(rng.choice([1, 4, 7, 16, 32]))
    size = stride * int(rng.integers(1, 12))
    base = wild_anchors(rng, size)
    overlaps = rng.choice([0, 1e-3, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.7, 1], 3)
    options = {
        "positive_overlap": max(overlaps[0], 1e-6),
        "negative_overlap": overlaps[1],
        "ignore_overlap": overlaps[2],
        "border": float(rng.choice([-20, 0, 32, size, 2**24])),
        "batch_size": int(rng.choice([0, 1, 20, 256, 10**6])),
    }
    slow = reference.FactoredTargets(base, stride, size, **options)
    native = matcher(base, stride, size, **options, max_positives=slow.max_positives)
    np.testing.assert_array_equal(native.inside, slow.inside)
    boxes = [wild_boxes(rng, count, base, size) for count in (valid, invalid)]
    before = [rows.copy() for rows in boxes]
    label, index, values = native(*boxes, seed)
    expected = slow(*boxes, reference.SplitMix(seed))
    np.testing.assert_array_equal(label, expected[0])
    np.testing.assert_array_equal(index, np.flatnonzero(label == 1))
    dense = slow.empty()
    _native.expand_rpn(label, index, values, *dense)
    np.testing.assert_array_equal(dense[0], expected[0])
    np.testing.assert_allclose(dense[1], expected[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(dense[2], expected[2])
    for rows, unchanged in zip(boxes, before):
        np.testing.assert_array_equal(rows, unchanged)


def test_thresholds_that_an_overlap_equals_exactly():
    """Quotients that are the very numbers 0.5, 0.4 and 0.3 in double precision."""
    base = np.array([[0, 0, 9, 9]], np.float32)  # 100 px, one anchor
    for threshold, box in [(0.5, (0, 0, 4, 9)), (0.4, (0, 0, 3, 9)), (0.3, (0, 0, 2, 9))]:
        one = np.array([box], np.float32)
        other = np.array([[0, 0, 9, 9]], np.float32)  # takes the anchor as its best
        alone = {"batch_size": 0, "positive_overlap": 1.0, "negative_overlap": 0.0}
        sampled = {"batch_size": 10, "max_positives": 10}
        label = matcher(base, 10, 10, **{**alone, **sampled, "ignore_overlap": threshold})
        assert label(other, one, 0)[0].tolist() == [1]  # not above
        below = np.nextafter(threshold, 0)
        label = matcher(base, 10, 10, **{**alone, **sampled, "ignore_overlap": below})
        assert label(other, one, 0)[0].tolist() == [-1]
    # Two anchors: the box is the first one's best, so the second shows the thresholds alone.
    base = np.array([[0, 0, 9, 9], [0, 0, 4, 9]], np.float32)
    box = np.array([[0, 0, 9, 9]], np.float32)
    for options, expected in [
        ({"positive_overlap": 0.5}, [1, 1]),
        ({"positive_overlap": np.nextafter(0.5, 1), "negative_overlap": 0.5}, [1, -1]),
        ({"positive_overlap": 1.0, "negative_overlap": np.nextafter(0.5, 1)}, [1, 0]),
    ]:
        label = matcher(base, 10, 10, **options)(box, NONE, 0)[0]
        assert label.tolist() == expected


@pytest.mark.parametrize("kept", [2, 4])
def test_every_subset_of_negatives_is_as_likely_as_any_other(kept):
    """Six negatives beside two that are not: 15 subsets; few and most of them kept."""
    base = np.array([[0, 0, 9, 9]] * 3 + [[0, 0, 99, 9]] * 2 + [[0, 0, 9, 9]] * 3, np.float32)
    draw = matcher(base, 10, 10, batch_size=kept, max_positives=0)
    chosen = Counter(tuple(np.flatnonzero(draw(NONE, NONE, n)[0] == 0)) for n in range(6000))
    assert set(chosen) == set(itertools.combinations((0, 1, 2, 5, 6, 7), kept))
    # The standard deviation is 19; the numbers are the same in every run.
    assert all(abs(count - 400) < 80 for count in chosen.values())


@pytest.mark.parametrize("kept", [1, 3])
def test_every_subset_of_positives_is_as_likely_as_any_other(kept):
    base = np.array([[0, 0, 9, 9], [0, 0, 2, 2], *([[0, 0, 9, 9]] * 3)], np.float32)
    draw = matcher(base, 10, 10, batch_size=kept, max_positives=kept)
    box = np.array([[0, 0, 9, 9]], np.float32)
    chosen = Counter(tuple(draw(box, NONE, n)[1].tolist()) for n in range(4000))
    assert set(chosen) == set(itertools.combinations((0, 2, 3, 4), kept))
    assert all(abs(count - 1000) < 120 for count in chosen.values())  # deviation 27


def test_positives_are_drawn_before_negatives_from_one_stream():
    boxes = some_boxes(np.random.default_rng(0), 12)
    full = matcher(batch_size=10**6, max_positives=10**6)(boxes, NONE, 0)[0]
    label = matcher(batch_size=20, max_positives=8)(boxes, NONE, 99)[0]
    stream = reference.SplitMix(99)
    for value, count in [(1, 8), (0, 12)]:
        expected = stream.choose(full, value, count)
        np.testing.assert_array_equal(np.flatnonzero(label == value), expected)


def test_the_last_candidate_is_found_among_many_anchors():
    """One negative too many, and all of them but one kept; then none at all to draw from."""
    cover = np.array([[0, 0, 511, 400]], np.float32)  # ignores most of the chip
    options = {"ignore_overlap": 0, "max_positives": 0}
    total = int((matcher(**options, batch_size=10**6)(NONE, cover, 0)[0] == 0).sum())
    assert 20 < total < 3000
    for kept in (1, total // 2, total - 1, total):
        label = matcher(**options, batch_size=kept)(NONE, cover, 5)[0]
        assert (label == 0).sum() == kept
    everything = np.array([[-600, -600, 1100, 1100]], np.float32)
    assert (matcher(**options)(NONE, everything, 5)[0] == -1).all()


def test_threads_share_a_matcher():
    rng = np.random.default_rng(2)
    share = matcher()
    calls = [(some_boxes(rng, 20), some_boxes(rng, 5), seed) for seed in range(20)]
    expected = [share(*call) for call in calls]
    results = {}

    def work(thread):
        results[thread] = [share(*call) for call in calls for _ in range(3)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for outputs in (results[0], results[1]):
        for got, wanted in zip(outputs, [call for call in expected for _ in range(3)]):
            for array, same in zip(got, wanted):
                np.testing.assert_array_equal(array, same)


def test_a_matcher_keeps_its_own_anchors():
    base = BASE.copy()
    own, pickled = matcher(base), pickle.loads(pickle.dumps(matcher(base)))
    base[:] = 0
    boxes = some_boxes(np.random.default_rng(3), 5)
    wanted = matcher()(boxes, NONE, 1)
    for copy in (own, pickled, pickle.loads(pickle.dumps(own))):
        assert copy.shape == (21, 32, 32)
        for array, same in zip(copy(boxes, NONE, 1), wanted):
            np.testing.assert_array_equal(array, same)


def test_arrays_with_gaps_and_read_only_arrays_are_taken():
    boxes = some_boxes(np.random.default_rng(4), 10)
    wanted = matcher()(boxes[::2].copy(), NONE, 1)
    gaps = boxes[::2]
    gaps.flags.writeable = False
    for array, same in zip(matcher()(gaps, NONE, 1), wanted):
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"base": BASE.astype(np.float64)}, "base_anchors"),
        ({"base": BASE[:0]}, "number of anchors"),
        ({"base": BASE * np.float32(np.nan)}, "corner of an anchor"),
        ({"base": BASE * np.float32(1e9)}, "corner of an anchor"),
        ({"base": BASE[:, [2, 1, 0, 3]].copy()}, "end of an anchor"),
        ({"stride": 0}, "stride"),
        ({"stride": 24}, "divisor of the chip size"),
        ({"chip_size": 2**22}, "chip size"),
        ({"stride": 1, "chip_size": 2**14}, "anchors in all"),
        ({"border": np.nan}, "border"),
        ({"border": np.inf}, "border"),
        ({"positive_overlap": 0}, "positive overlap"),
        ({"negative_overlap": np.nan}, "negative_overlap"),
        ({"ignore_overlap": 1.5}, "ignore_overlap"),
        ({"batch_size": -1}, "batch_size"),
        ({"max_positives": 2.5}, "max_positives"),
    ],
    ids=str,
)
def test_impossible_settings_are_named(change, message):
    with pytest.raises(OpsError, match=message):
        matcher(**change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"valid_gt": [[0, 0, 1, 1]]}, "valid_gt"),
        ({"invalid_gt": NONE.astype(np.float64)}, "invalid_gt"),
        ({"valid_gt": np.zeros((2, 5), np.float32)}, "valid_gt"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": None}, "seed"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(OpsError, match=message):
        matcher()(**{"valid_gt": NONE, "invalid_gt": NONE, "seed": 0, **change})


def expansion():
    """A sample of 2 anchors on 3 x 4 cells, and outputs full of rubbish."""
    label = np.array([0, -1, 1, -1, 0, 0] * 4, np.int8)
    index = np.flatnonzero(label == 1).astype(np.int32)
    values = np.arange(4 * len(index), dtype=np.float32).reshape(-1, 4) + 0.5
    planes = np.full((2, 8, 3, 4), np.nan, np.float32)
    return {
        "label": label,
        "index": index,
        "values": values,
        "out_label": np.full(24, np.nan, np.float32),
        "out_target": planes[0],
        "out_weight": planes[1],
    }


def test_expansion_writes_every_number():
    arguments = expansion()
    assert _native.expand_rpn(**arguments) is None
    target, weight = np.zeros((2, 2, 4, 12), np.float32)
    for position, row in zip(arguments["index"], arguments["values"]):
        target[position // 12, :, position % 12] = row
        weight[position // 12, :, position % 12] = 1
    np.testing.assert_array_equal(arguments["out_label"], arguments["label"])
    np.testing.assert_array_equal(arguments["out_target"], target.reshape(8, 3, 4))
    np.testing.assert_array_equal(arguments["out_weight"], weight.reshape(8, 3, 4))


def test_expansion_without_positives():
    arguments = expansion()
    arguments.update(index=np.zeros(0, np.int32), values=NONE)
    _native.expand_rpn(**arguments)
    assert not arguments["out_target"].any() and not arguments["out_weight"].any()


READ_ONLY = np.zeros(24, np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "change, message",
    [
        ({"index": np.array([0, 1, 2, 24], np.int32)}, "index of a positive anchor"),
        ({"index": np.array([0, 1, 2, -1], np.int32)}, "index of a positive anchor"),
        ({"index": np.array([0, 1, 2], np.int32)}, "values"),
        ({"label": np.zeros(24, np.float32)}, "label"),
        ({"label": np.zeros(23, np.int8)}, "does not fit"),
        ({"label": np.zeros(0, np.int8)}, "does not fit"),
        ({"out_label": np.zeros(23, np.float32)}, "out_label"),
        ({"out_label": READ_ONLY}, "read-only"),
        ({"out_label": np.zeros(48, np.float32)[::2]}, "gaps"),
        ({"out_target": np.zeros((8, 4, 3), np.float32).transpose(0, 2, 1)}, "gaps"),
        ({"out_target": np.zeros((6, 3, 4), np.float32)}, "does not fit"),
        ({"out_weight": np.zeros((8, 4, 3), np.float32)}, "out_weight"),
        ({"out_weight": None}, "out_weight"),
    ],
    ids=str,
)
def test_expansion_refuses_what_does_not_fit_and_writes_nothing(change, message):
    arguments = {**expansion(), **change}
    with pytest.raises(OpsError, match=message):
        _native.expand_rpn(**arguments)
    for name in ("out_label", "out_target", "out_weight"):
        assert name in change or np.isnan(arguments[name]).all()


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32), call=st.sampled_from(["make", "match", "expand"]))
def test_wrong_arguments_give_a_result_or_one_error(seed, call):
    rng = np.random.default_rng(seed)
    function, arguments = {
        "make": (
            _native.RpnMatcher,
            {"base_anchors": BASE, "stride": 16, "chip_size": 64, **OPTIONS},
        ),
        "match": (
            matcher(chip_size=64),
            {
                "valid_gt": fuzz_native_cases.poisoned(some_boxes(rng, 4, 64), rng, 0.1),
                "invalid_gt": fuzz_native_cases.poisoned(some_boxes(rng, 2, 64), rng, 0.1),
                "seed": int(rng.integers(2**63)),
            },
        ),
        "expand": (_native.expand_rpn, expansion()),
    }[call]
    try:
        function(**fuzz_native_cases.mutate(arguments, rng))
    except OpsError as error:
        assert 10 < len(str(error)) < 600

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.chips.sampler import training_order
from tests.chips import slow_epoch


def order(counts, *, window, seed=0, epoch=0, batch_size=8):
    return training_order(
        np.array(counts, np.int64), seed=seed, epoch=epoch, batch_size=batch_size, window=window
    )


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 6), max_size=40),
    window=st.sampled_from([0, 1, 3, 10, 100]),
    seed=st.integers(-5, 2**64),
    batch_size=st.integers(1, 20),
)
def test_every_chip_once_then_padding(counts, window, seed, batch_size):
    samples = order(counts, window=window, seed=seed, batch_size=batch_size)
    every = [(r, k) for r, count in enumerate(counts) for k in range(count)]
    drawn = [tuple(pair) for pair in samples.tolist()]
    assert samples.shape == (len(drawn), 2) and samples.dtype == np.int32
    assert set(drawn) == set(every)
    assert len(drawn) % batch_size == 0 and 0 <= len(drawn) - len(every) < batch_size
    if 2 * len(every) >= len(drawn):
        assert max((drawn.count(pair) for pair in every), default=0) <= 2


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    window=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_samples_of_a_window_stand_together(counts, window, seed):
    records = order(counts, window=window, seed=seed)[:, 0].tolist()
    firsts = sorted(
        {record: records.index(record) for record in records}.items(), key=lambda x: x[1]
    )
    # A record occurs among the samples of at most `window` records, chipless ones included.
    for record, first in firsts:
        last = len(records) - 1 - records[::-1].index(record)
        assert len(set(records[first : last + 1])) <= window


def test_window_0_is_the_full_shuffle():
    counts = [3, 0, 5, 1, 2] * 7
    for seed in range(3):
        expected = slow_epoch.training_order(counts, seed, 4, 16)
        np.testing.assert_array_equal(
            order(counts, window=0, seed=seed, epoch=4, batch_size=16), expected
        )
    # Records of a full shuffle are far apart.
    records = order([2] * 500, window=0)[:, 0]
    spread = [np.ptp(np.flatnonzero(records == r)) for r in range(500)]
    assert np.mean(spread) > 250


def test_deterministic_per_seed_and_epoch():
    counts = [4] * 50
    first = order(counts, window=8, seed=1, epoch=2)
    np.testing.assert_array_equal(first, order(counts, window=8, seed=1, epoch=2))
    for other in (order(counts, window=8, seed=2, epoch=2), order(counts, window=8, seed=1)):
        assert (first != other).any()


@pytest.mark.parametrize("window", [0, 7])
def test_every_record_may_come_at_any_place(window):
    """Mean place of each record's samples over many epochs: the middle, for all records alike."""
    counts = np.array([1, 6] * 20)
    places = np.zeros(len(counts))
    epochs = 300
    for epoch in range(epochs):
        records = order(counts, window=window, epoch=epoch, batch_size=1)[:, 0]
        total = np.bincount(records, weights=np.arange(len(records)), minlength=len(counts))
        places += total / counts / (counts.sum() - 1)
    # A place is uniform: variance 1/12, so three deviations of the mean are 0.05.
    assert np.abs(places / epochs - 0.5).max() < 0.08


def test_windows_are_composed_anew_in_every_epoch():
    def partners(epoch):
        records = order([1] * 40, window=4, epoch=epoch, batch_size=1)[:, 0].reshape(10, 4)
        return {frozenset(group) for group in records.tolist()}

    assert len(partners(0) & partners(1)) < 3


def test_order_inside_a_window_mixes_its_records():
    records = order([10] * 20, window=10, batch_size=1)[:, 0]
    for half in (records[:100], records[100:]):
        assert len(set(half.tolist())) == 10
        assert (np.diff(half) != 0).mean() > 0.75  # 0.9 expected

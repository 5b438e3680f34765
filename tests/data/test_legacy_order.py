from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.data.legacy_proposals import python2_dict_order

INSERTED = [391895, 522418, 184613, 318219, 554625, 574769, 60623, 309022, 5802, 222564]
ITERATED = [554625, 222564, 184613, 5802, 318219, 60623, 574769, 522418, 391895, 309022]


def iterated(keys):
    return [keys[i] for i in python2_dict_order(keys)]


def test_check_vector():
    assert iterated(INSERTED) == ITERATED


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([], []),
        ([7], [7]),
        ([8, 0], [8, 0]),  # both want slot 0: the first one gets it
        ([0, 8], [0, 8]),
        ([3, 2, 1], [1, 2, 3]),
        # The hash of -1 is -2, so that both want slot 6; the second one gets slot 5.
        ([-1, -2], [-2, -1]),
        ([-2, -1], [-1, -2]),
        ([33, 1, 2, 3, 4], [33, 2, 3, 4, 1]),  # 1 finds 33 in slot 1 and goes to slot 7
        ([33, 1, 2, 3, 4, 9], [33, 2, 3, 4, 1, 9]),  # the sixth makes it grow to 32 slots
    ],
)
def test_by_hand(keys, expected):
    assert iterated(keys) == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=300))
def test_it_is_a_permutation(keys):
    assert sorted(python2_dict_order(keys).tolist()) == list(range(len(keys)))


@given(st.integers(0, 3000))
def test_consecutive_numbers_come_in_order(count):
    assert python2_dict_order(range(count)).tolist() == list(range(count))


def slow_order(keys):
    """The same table written the other way round: every probe sequence spelled out in advance."""

    def probes(key, size):
        word = 2**64 - 1
        number = (-2 if key == -1 else key) & word
        index, rest = number, number
        yield index % size
        while True:
            index = (index * 5 + 1 + rest) & word
            rest //= 32
            yield index % size

    def put(table, key):
        table[next(slot for slot in probes(key, len(table)) if table[slot] is None)] = key

    table = [None] * 8
    for used, key in enumerate(keys, start=1):
        put(table, key)
        if used / len(table) >= 2 / 3:
            size = 8
            while not size > used * (2 if used > 50000 else 4):
                size += size
            old, table = table, [None] * size
            for entry in old:
                if entry is not None:
                    put(table, entry)
    return [key for key in table if key is not None]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=200))
def test_against_a_slow_reference(keys):
    assert iterated(keys) == slow_order(keys)


def test_as_many_ids_as_coco_has():
    rng = np.random.default_rng(5)
    keys = rng.permutation(600_000)[:123_287].tolist()
    order = python2_dict_order(keys)
    assert len(set(order.tolist())) == len(keys)
    # 123,287 ids live in a table of 262,144 slots, far less than the largest id.
    slots = np.array(keys)[order] % 262_144
    at_home = np.mean(np.diff(slots) >= 0)
    assert 0.6 < at_home < 1

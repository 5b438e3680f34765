"""Coercion of yaml values and `--set` texts to the declared types."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sniper.config.kinds import (
    Array,
    Bool,
    BoolOr,
    Float,
    Int,
    Key,
    OneOrMany,
    Row,
    Seq,
    Text,
    TrainScales,
)
from sniper.config.schema import SCHEMA, defaults

finite = st.floats(allow_nan=False, allow_infinity=False)
sides = st.integers(-1, 5000)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Text(), "0", "0"),
        (Text(), "0,1", "0,1"),
        (Text(), "'0,1'", "0,1"),  # 2018 scripts had to quote twice
        (Text(), "", ""),
        (Text(), "2007_test", "2007_test"),
        (Text(), "1_000", "1_000"),  # a Python literal would be 1000
        (Text(), "True", "True"),
        (Text(("a", "b")), "b", "b"),
        (Bool(), "true", True),
        (Bool(), "FALSE", False),
        (Bool(), "True", True),
        (Int(), "7", 7),
        (Int(), "7.0", 7),
        (Int(), "1_000", 1000),
        (Int(), "-1", -1),
        (Float(), "1", 1.0),
        (Float(), "1e-4", 1e-4),
        (Seq(Bool()), "[false, true]", (False, True)),
        (Seq(Bool()), "true,False", (True, False)),
        (Seq(Float()), "1,2.5", (1.0, 2.5)),
        (Seq(Float()), "[]", ValueError),
        (Seq(Text(), empty_allowed=True), "[]", ()),
        (Seq(Text()), "conv0", ("conv0",)),
        (Seq(Text()), "conv0,bn0", ("conv0", "bn0")),
        (Seq(Text()), "['conv0', 'bn0']", ("conv0", "bn0")),
        (OneOrMany(Int()), "4", 4),
        (OneOrMany(Int()), "4,2", (4, 2)),
        (TrainScales(), "[(1400,2000)]", ((1400, 2000),)),
        (TrainScales(), "((1400,2000),)", ((1400, 2000),)),
        (TrainScales(), "[3, 1.667, 512]", (3.0, 1.667, 512.0)),
        (Row((Int(), Float(), Int())), "(3, 1, 16)", (3, 1.0, 16)),
        # refused
        (Bool(), "1", ValueError),
        (Bool(), "yes", ValueError),
        (Int(), "true", ValueError),
        (Int(), "7.5", ValueError),
        (Int(), "None", ValueError),
        (Int(), "x", ValueError),
        (Int(minimum=1), "0", ValueError),
        (Float(), "False", ValueError),
        (Float(), "1e999", ValueError),
        (Float(), "9" * 400, ValueError),
        (Float(maximum=1), "1.5", ValueError),
        (Text(("a", "b")), "c", ValueError),
        (Seq(Float()), "3", ValueError),
        (Seq(Float(), 4), "[1, 2, 3]", ValueError),
        (Row((Int(), Int())), "(1, 2, 3)", ValueError),
        (TrainScales(), "[(1400, 2000), 512]", ValueError),
        (TrainScales(), "[[1, 2, 3]]", ValueError),
        (Seq(Int()), "{1: 2}", ValueError),
        (Float(), "__import__('os').getcwd()", ValueError),
    ],
)
def test_text_of_a_set_pair(kind, text, expected):
    if expected is ValueError:
        with pytest.raises(ValueError):
            kind.coerce_text(text)
        return
    value = kind.coerce_text(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Text(), 0, "0"),  # yaml: gpus: 0
        (Text(), 5.33, "5.33"),  # yaml: lr_step: 5.33
        (Float(), "1e-4", 1e-4),  # yaml 1.1 reads 1e-4 as text
        (Bool(), "True", True),
        (Float(), 1, 1.0),
        (Seq(Float()), [1, 2], (1.0, 2.0)),
        (Seq(Seq(Int())), [[1], (2, 3)], ((1,), (2, 3))),
        (Text(), True, ValueError),
        (Text(), None, ValueError),
        (Text(), [0, 1], ValueError),
        (Int(), True, ValueError),
        (Float(), float("nan"), ValueError),
        (Bool(), 0, ValueError),
    ],
)
def test_yaml_value(kind, value, expected):
    if expected is ValueError:
        with pytest.raises(ValueError):
            kind.coerce(value)
        return
    assert kind.coerce(value) == expected


def test_array_is_float64_and_accepts_arrays():
    for value in ([1, 2, 3], (1, 2, 3), np.array([1, 2, 3], np.float32)):
        array = Array(3).coerce(value)
        assert array.dtype == np.float64
        assert array.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError):
        Array(3).coerce([1, 2])


def test_none_only_for_optional_keys():
    assert Key("a", Int(), None, "", optional=True).coerce_text("None") is None
    assert Key("a", Int(), None, "", optional=True).coerce(None) is None
    with pytest.raises(ValueError):
        Key("a", Int(), 1, "").coerce(None)


@given(finite)
def test_floats_round_trip(value):
    assert Float().coerce_text(str(value)) == value
    assert Float().coerce(yaml.safe_load(yaml.safe_dump(value))) == value


@given(st.integers())
def test_ints_round_trip(value):
    assert Int().coerce_text(str(value)) == value


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=20))
def test_texts_stay_raw(value):
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
    assert Text().coerce_text(value) == (value[1:-1] if quoted else value)


@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=4), st.booleans())
def test_lists_and_tuples_mean_the_same(pairs, as_lists):
    written = [list(pair) for pair in pairs] if as_lists else tuple(pairs)
    assert TrainScales().coerce(written) == tuple(pairs)
    assert TrainScales().coerce_text(str(written)) == tuple(pairs)


@given(st.text(max_size=30))
def test_any_text_gives_the_type_or_value_error(text):
    for key in SCHEMA.values():
        try:
            value = key.coerce_text(text)
        except ValueError:
            continue
        assert value is None or not isinstance(value, list)


def test_defaults_are_in_their_own_type():
    values = defaults()
    for path, key in SCHEMA.items():
        again = key.coerce(values[path])
        assert np.array_equal(np.array(again, object), np.array(values[path], object)), path
        assert key.doc.endswith(".") and "\n" not in key.doc, path
        assert key.status in ("live", "no effect", "legacy")


def test_a_switch_with_a_word_more():
    kind = BoolOr(words=("mine",))
    assert [kind.coerce_text(text) for text in ("mine", "MINE", "true", "False")] == [
        "mine", "mine", True, False,
    ]  # fmt: skip
    assert kind.describe() == "true, false or mine"
    for wrong in ("yours", 1, None):
        with pytest.raises(ValueError, match="^$"):
            kind.coerce(wrong)

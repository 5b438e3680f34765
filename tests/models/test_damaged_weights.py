"""Flipped bits in files of weights: an error that names the file, never a crash or a traceback."""

from __future__ import annotations

import struct

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import DataError, TrainingError
from sniper.models.fit import fit_params
from sniper.models.params_layout import layout_problem
from sniper.models.weights import arrays_from_bytes, read_params, split_params
from sniper.training.checkpoint import Checkpoint
from sniper.training.run_state import RunState


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "good.params"
    tensors = {
        "arg:first_weight": mx.nd.arange(6).reshape((2, 3)),
        "aux:mean": mx.nd.ones((4,), dtype="float16"),
    }
    mx.nd.save(str(path), tensors)
    return path.read_bytes()


def outcome(path, content) -> str:
    path.write_bytes(content)
    try:
        arg, aux = read_params(path)
    except DataError as error:
        assert str(path) in str(error) and "Traceback" not in str(error)
        with pytest.raises(DataError):
            split_params(arrays_from_bytes(content, path), path)
        return "refused"
    return f"{[(name, array.shape, array.dtype) for name, array in {**arg, **aux}.items()]}"


def test_flipped_bits_outside_of_the_tensors_are_refused_or_change_a_name(tmp_path, content):
    path = tmp_path / "flipped.params"
    good = outcome(path, content)
    harmless = []
    for place in range(len(content)):
        for bit in (0, 6):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            if outcome(path, bytes(flipped)) == good:
                harmless.append(place)
    # Values (4 bytes and 2 bytes each), the devices, and a word of the header that has no meaning.
    assert set(harmless) <= {
        *range(8, 16),
        *range(52, 60), *range(64, 88),
        *range(108, 116), *range(120, 128),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (16, struct.pack("<Q", 2**60), "tensor 3 of"),
        (32, struct.pack("<i", 1 << 30), "axes"),
        (36, struct.pack("<q", 1 << 40), "bytes are announced"),
        (36, struct.pack("<q", -2), "shape"),
        (-4, b"\xff\xfe\xff\xfe", "is no text"),
        (-16, struct.pack("<Q", 2**63), "bytes are announced"),
    ],
)
def test_messages_say_what_is_damaged(tmp_path, content, place, value, says):
    broken = bytearray(content)
    place %= len(broken)
    if place + len(value) <= len(broken):
        broken[place : place + len(value)] = value
    path = tmp_path / "broken.params"
    path.write_bytes(broken)
    with pytest.raises(DataError, match=says) as caught:
        read_params(path)
    assert "checkpoint before" in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "tensors",
    [{}, [mx.nd.ones((2,))], {"b": mx.nd.ones((3,), dtype="int8")}],
)
def test_what_mxnet_writes_has_no_problem(tmp_path, tensors):
    path = tmp_path / "x.params"
    mx.nd.save(str(path), tensors)
    assert layout_problem(memoryview(path.read_bytes())) is None


def test_the_layout_of_the_first_mxnet_is_known(tmp_path):
    # Number of axes in place of a magic number, sides of 32 bits.
    tensor = struct.pack("<IIIiii", 2, 1, 3, 1, 0, 0) + np.arange(3, dtype="<f4").tobytes()
    name = b"arg:x"
    content = struct.pack("<QQQ", 0x112, 0, 1) + tensor + struct.pack("<QQ", 1, len(name)) + name
    path = tmp_path / "old.params"
    path.write_bytes(content)
    assert read_params(path)[0]["x"].asnumpy().tolist() == [[0, 1, 2]]
    assert layout_problem(memoryview(content[:40])) is not None


def test_a_damaged_optimizer_is_named(tmp_path, content):
    (tmp_path / "S-0001.states").write_bytes(content[:-1])
    checkpoint = Checkpoint(tmp_path / "S-0001", RunState(1, 1, 1, 1, 1))
    with pytest.raises(TrainingError, match=r"S-0001\.states"):
        checkpoint.read_optimizer()


def test_weights_that_are_not_finite_are_refused():
    symbol = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    arg = {"fc_weight": mx.nd.array([[1, 2], [np.nan, 0]]), "fc_bias": mx.nd.zeros((2,))}
    with pytest.raises(DataError, match="fc_weight has values that are not finite"):
        fit_params(symbol, {"data": (1, 2)}, arg, {}, "x.params")

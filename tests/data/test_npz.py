from __future__ import annotations

import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from sniper.data.npz import read_npz, write_npz
from sniper.errors import DataError, TrainingError

ARRAYS = {
    "boxes": np.arange(40, dtype=np.float32).reshape(10, 4),
    "names": np.array(["kite", "ünder"]),
    "empty": np.zeros((0, 4), np.float32),
    "flag": np.array(True),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, ARRAYS)
    return path


def same(a, b):
    return all(a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]) for name in b)


def test_round_trip_and_only_what_is_asked_for(path):
    assert same(read_npz(path, ARRAYS), ARRAYS)
    assert list(read_npz(path, ["flag"])) == ["flag"]


def test_no_damaged_byte_passes_unnoticed(path):
    """Every byte in turn: the file is refused, or (in zip's own tables) gives the same arrays."""
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert same(read_npz(path, ARRAYS), ARRAYS)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > len(content) / 3 * 0.6


def test_cut_off_files_are_refused(path):
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="cannot be read"):
            read_npz(path, ARRAYS)


def test_pickles_are_not_read(path):
    np.savez(path, boxes=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(path, ["boxes"])


def test_a_header_that_claims_less_than_there_is_is_refused(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(10, 4), ", b"(9, 4),  "))
    with pytest.raises(DataError):
        read_npz(path, ["boxes"])


def test_full_disk_leaves_the_old_file(path):
    """The largest file size that the system allows stands in for a disk without room."""
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(TrainingError, match="previous version is untouched"):
            write_npz(path, {"boxes": np.zeros(1 << 17, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


WRITER = """
import sys
import numpy as np
from pathlib import Path
from sniper.data.cache import cached_arrays
path, number = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(20):
    # Processes want different content, so that all of them write again and again.
    arrays = cached_arrays(
        path, {"number": str(number)}, ["a"], lambda: {"a": np.full(50000, number, np.int64)}
    )
    assert (arrays["a"] == number).all(), arrays["a"]
"""


def test_processes_that_share_a_cache_never_see_a_broken_one(tmp_path):
    path = tmp_path / "cache" / "shared_gt.npz"
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)])
        for number in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert read_npz(path, ["a"])["a"][0] in (0, 1, 2)
    assert os.listdir(path.parent) == [path.name]

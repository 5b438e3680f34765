"""What a level found, on disk and back."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from sniper.data import npz
from sniper.inference.level_cache import LevelFiles, LevelResult
from sniper.inference.merge_levels import LevelDetections


def a_part(level, chip, count):
    rng = np.random.default_rng([level, chip, count])
    classes = rng.integers(1, 9, count).astype(np.int32)
    return LevelDetections(level, chip, rng.uniform(0, 99, (count, 5)).astype(np.float32), classes)


def a_result(counts, windows):
    """`counts`: detections of every window of every image."""
    parts = [[a_part(1, chip, count) for chip, count in enumerate(own)] for own in counts]
    return LevelResult(parts, windows)


def assert_same(found, expected):
    assert found.next_windows == expected.next_windows
    assert [len(own) for own in found.parts] == [len(own) for own in expected.parts]
    for own, other in zip(found.parts, expected.parts):
        for part, wanted in zip(own, other):
            assert (part.level, part.chip_index) == (wanted.level, wanted.chip_index)
            np.testing.assert_array_equal(part.rows, wanted.rows)
            np.testing.assert_array_equal(part.classes, wanted.classes)
            assert (part.rows.dtype, part.classes.dtype) == (np.float32, np.int32)


RESULTS = [
    a_result([[3], [0], [2]], None),
    a_result([[3, 0], [], [2, 1, 4]], [[], [], [(0.0, 1.0, 20.0, 30.5)]]),
    a_result([[1], [2]], [[(0.0, 0.0, 8.0, 8.0), (4.0, 4.0, 9.0, 9.0)], [(1.0, 2.0, 3.0, 4.0)]]),
    a_result([[1], [2]], [[], []]),
    a_result([], []),
    a_result([], None),
]


@pytest.mark.parametrize("result", RESULTS)
def test_round_trip(tmp_path, result):
    files = LevelFiles({1: tmp_path / "new" / "x.npz"})
    assert files.load(1) is None
    files.save(1, result)
    assert_same(files.load(1), result)


def test_levels_without_a_file_are_left_alone(tmp_path):
    files = LevelFiles({1: tmp_path / "x.npz"})
    files.save(0, RESULTS[0])
    assert files.load(0) is None and not list(tmp_path.iterdir())


def test_a_damaged_file_is_computed_anew(tmp_path, caplog):
    files = LevelFiles({1: tmp_path / "x.npz"})
    files.save(1, RESULTS[2])
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(content[: len(content) // 2])
    assert files.load(1) is None
    assert "computed anew, since the cache is damaged" in caplog.text and "x.npz" in caplog.text


def test_a_full_disk_is_no_error(tmp_path, caplog, monkeypatch):
    def no_space(path, write):
        raise npz_error

    from sniper.errors import TrainingError

    npz_error = TrainingError("cannot be written", got=OSError(errno.ENOSPC, "No space left"))
    monkeypatch.setattr(npz, "atomic_write", no_space)
    LevelFiles({1: tmp_path / "x.npz"}).save(1, RESULTS[0])
    assert "going on without a cache" in caplog.text and "No space left" in caplog.text

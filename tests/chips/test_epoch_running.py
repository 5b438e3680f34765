"""What happens while an epoch is made: progress, interruption, wrong input, memory."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from sniper.chips import sampler
from sniper.chips.box_table import box_table
from sniper.chips.sampler import ChipSettings, make_epoch
from sniper.errors import OpsError, TrainingError
from sniper.native._native import epoch_chips

SETTINGS = ChipSettings((3.0, 1.667, 512.0), [(-1, 80), (32, 150), (120, -1)], use_neg_chips=True)
ARGUMENTS = {"seed": 0, "epoch": 0, "batch_size": 4}


def repeated(table, times):
    """A table of the same records many times: much work without much memory."""
    return dataclasses.replace(
        table,
        boxes=table.boxes * times,
        **{
            name: np.tile(getattr(table, name), times)
            for name in ("num_gt", "width", "height", "image_id", "flipped")
        },
    )


@pytest.fixture(scope="module")
def long_table(ref):
    """About half a minute of work for one thread."""
    return repeated(box_table(ref.random_records(20, proposals=900)), 10000)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_it(long_table):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        make_epoch(long_table, SETTINGS, **ARGUMENTS)
    assert time.monotonic() - started < 8  # a guard; it takes one block
    timer.join()


def test_it_can_be_cancelled_from_another_thread(long_table):
    stop = threading.Event()
    errors = []

    def work():
        try:
            make_epoch(long_table, SETTINGS, cancelled=stop.is_set, **ARGUMENTS)
        except TrainingError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.2)
    stop.set()
    thread.join(8)
    assert not thread.is_alive() and "cancelled" in errors[0]


def test_other_threads_run_meanwhile(long_table):
    """The interpreter is not blocked for as long as a block takes."""
    stop = threading.Event()
    thread = threading.Thread(
        target=lambda: pytest.raises(
            TrainingError, make_epoch, long_table, SETTINGS, cancelled=stop.is_set, **ARGUMENTS
        )
    )
    thread.start()
    steps = 0
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        time.sleep(0.005)
        steps += 1
    stop.set()
    thread.join(8)
    assert steps > 20  # 120 on an idle machine, 2 without releasing the interpreter


def test_progress_is_logged(ref, monkeypatch, caplog):
    records = ref.random_records(30, proposals=20)
    caplog.set_level(logging.INFO, logger="sniper.chips.sampler")
    make_epoch(records, SETTINGS, **ARGUMENTS)
    assert not caplog.messages  # a short job is silent
    monkeypatch.setattr(sampler, "_PROGRESS_EVERY_S", 0.0)
    monkeypatch.setattr(sampler, "_BLOCK_RECORDS", 10)
    made = make_epoch(records, SETTINGS, **ARGUMENTS)
    assert [line.split(",")[0] for line in caplog.messages] == [
        f"chips: {done} of 30 images" for done in (10, 20, 30)
    ]
    assert f", {made.stats.chips} chips so far, " in caplog.messages[-1]
    memory = int(caplog.messages[-1].split(", ")[-1].split()[0])
    assert 10 < memory < 100_000


def test_an_impossible_size_names_the_image(ref):
    records = [*ref.random_records(3), ref.record([[1, 1, 50, 50]], size=(2**30, 9), image_id=77)]
    with pytest.raises(OpsError, match=r"image width.*Image id 77"):
        make_epoch(records, SETTINGS, **ARGUMENTS)


def native_arguments(ref):
    table = box_table(ref.random_records(3))
    return {
        "boxes": table.boxes,
        "num_gt": table.num_gt,
        "width": table.width,
        "height": table.height,
        "image_ids": table.image_id,
        "flipped": table.flipped,
        "factors": table.factors(SETTINGS.scales),
        "size_ranges": np.array(SETTINGS.valid_ranges, np.float64),
        "side_limits": np.array([100, np.inf, np.inf]),
        "first": 0,
        "last": 3,
        "chip_size": 512,
        "stride": 57,
        "seed": 0,
        "epoch": 0,
        "use_negatives": False,
        "max_negatives": 2,
        "min_alarms": (25, 10),
        "alarms_per_proposals": 0,
        "alarms_shares": (1, 1),
        "background": 0.0,
        "crops": 0,
        "gt_rows_only": False,
        "min_gt_side": 10.0,
        "legacy_boxes": False,
        "budget_s": 10.0,
    }


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"boxes": [np.zeros((3, 4))] * 3}, "float32"),
        ({"boxes": [np.zeros((3, 5), np.float32)] * 3}, "float32"),
        ({"boxes": [np.zeros((8, 8), np.float32)[:, ::2]] * 3}, "contiguous"),
        ({"boxes": [[1, 2, 3, 4]] * 3}, "float32"),
        ({"num_gt": np.array([0, 0, 99])}, r"num_gt\[2\]"),
        ({"num_gt": np.array([0, -1, 0])}, r"num_gt\[1\]"),
        ({"width": np.ones(2, np.int64)}, "width"),
        ({"flipped": np.zeros(3, np.uint8)}, "flipped"),
        ({"factors": np.ones((3, 2))}, "factors"),
        ({"factors": np.zeros((3, 3))}, "scale factor"),
        ({"factors": np.full((3, 3), np.nan)}, "scale factor"),
        ({"size_ranges": np.zeros((0, 2))}, "levels"),
        ({"side_limits": np.ones(2)}, "side_limits"),
        ({"side_limits": np.array([-1.0, 5, 5])}, "side_limits"),
        ({"side_limits": np.full(3, np.nan)}, "side_limits"),
        ({"first": 3}, "first"),
        ({"last": 0}, "last"),
        ({"stride": 0}, "stride"),
        ({"chip_size": 1.5}, "chip_size"),
        ({"max_negatives": -1}, "max_negatives"),
        ({"use_negatives": 1}, "use_negatives"),
        ({"min_alarms": (-1, 3)}, "min_alarms"),
        ({"alarms_per_proposals": -1}, "alarms_per_proposals"),
        ({"alarms_shares": (0.1, 0)}, "alarms_shares"),
        ({"background": float("nan")}, "background"),
        ({"crops": -1}, "crops"),
        ({"budget_s": float("nan")}, "budget_s"),
    ],
)
def test_wrong_arguments_are_refused(ref, change, word):
    with pytest.raises(OpsError, match=word):
        epoch_chips(**{**native_arguments(ref), **change})


def test_a_call_does_at_least_one_record(ref):
    arguments = {**native_arguments(ref), "budget_s": 0.0}
    assert 1 <= len(epoch_chips(**arguments)["chip_counts"]) <= 3
    assert len(epoch_chips(**{**arguments, "first": 2})["chip_counts"]) == 1


MEMORY = """
import numpy as np, resource, sys
from sniper.chips.sampler import ChipSettings, make_epoch
from sniper.chips.box_table import box_table
from sniper.data.record import Record
settings = ChipSettings((3.0, 1.667, 512.0), [(-1, 80), (32, 150), (120, -1)], use_neg_chips=True)
rng = np.random.default_rng(0)
is_gt = np.arange(3000) < 5
records = []
for image_id in range(1500):
    corners, sides = rng.uniform(0, 400, (3000, 2)), np.exp(rng.uniform(1, 5, (3000, 2)))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    records.append(Record("", image_id, 640, 480, False, boxes, is_gt.astype(np.int32), is_gt))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
table = box_table(records)
for number in range(3):
    make_epoch(table, settings, seed=0, epoch=number, batch_size=4, gt_rows_only=True)
print(peak() - before, sum(boxes.nbytes for boxes in table.boxes) / 2**20)
"""


def test_proposals_are_not_copied():
    """The boxes of all records take 69 MiB here; a copy of them would show."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=100,
    )
    growth, boxes = map(float, done.stdout.split())
    assert boxes > 60 and growth < 30

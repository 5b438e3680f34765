"""The pool on its own: content, failures, and what is left behind (nothing)."""

from __future__ import annotations

import os
import signal
import time

import cv2
import numpy as np
import pytest

from sniper.errors import ConfigError, DataError, TrainingError
from sniper.loader.workers import WorkerPool

SPECS = {"x": (np.float32, (2, 3)), "pid": (np.int32, ()), "bytes": (np.uint8, (4,))}


def make(task, row):
    if task == "data error":
        raise DataError("cannot read", where="a.jpg")
    if task == "bug":
        raise ZeroDivisionError("divided by nought")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "exit":
        os._exit(3)
    if task == "sleep":
        time.sleep(60)
    if task == "misshaped":
        row["x"][...] = np.zeros((9, 9))
    row["x"][...] = task
    row["pid"][...] = os.getpid()
    row["bytes"][:2] = 200
    return f"note {task}"


def pool_of(workers=2, **options):
    settings = {"batch_size": 4, "num_slots": 2, "num_workers": workers, **options}
    return WorkerPool(make, SPECS, **settings)


def run(pool, tasks, slot=0):
    pool.submit(slot, tasks, [f"image {task}" for task in tasks])
    return pool.wait(slot)


def pids(pool):
    return [process.pid for process in pool.processes]


def test_samples_and_notes_come_in_order_from_all_workers():
    with pool_of() as pool:
        for round_ in range(5):
            tasks = [round_ * 10 + i for i in range(4)]
            arrays, notes = run(pool, tasks, round_ % 2)
            assert notes == [f"note {task}" for task in tasks]
            assert arrays["x"].shape == (4, 2, 3) and arrays["x"].dtype == np.float32
            assert arrays["x"][:, 1, 2].tolist() == tasks
            assert len(set(arrays["pid"].tolist())) == 2
            assert arrays["bytes"].dtype == np.uint8
            assert arrays["bytes"].tolist() == [[200, 200, 0, 0]] * 4


def test_a_worker_gets_the_tasks_of_its_share_in_order():
    with pool_of() as pool:
        pool.submit(0, [1, 2, 3, 4], list("abcd"), [[3, 0, 2], [1]])
        arrays, notes = pool.wait(0)
        assert notes == [f"note {i}" for i in range(1, 5)]
        first, second = pids(pool)
        assert arrays["pid"].tolist() == [first, second, first, first]
        pool.submit(0, [5, 6], list("ab"), [[], [1, 0]])
        assert pool.wait(0)[0]["pid"][:2].tolist() == [second, second]


def test_slots_in_work_do_not_touch_each_other():
    with pool_of() as pool:
        first, _ = run(pool, [1, 2, 3, 4], 0)
        run(pool, [5, 6, 7, 8], 1)
        assert first["x"][:, 0, 0].tolist() == [1, 2, 3, 4]
        pool.submit(1, [9, 9], ["", ""])
        pool.submit(0, [7], [""])
        pool.drain()
        assert pool.wait(1)[1] == ["note 9", "note 9"]


@pytest.mark.parametrize(
    "task, kind, text",
    [
        ("data error", DataError, "a.jpg"),
        ("bug", TrainingError, "divided by nought"),
        ("bug", TrainingError, "image bug"),
        ("die", TrainingError, "SIGKILL"),
        ("die", TrainingError, "image die"),
        ("exit", TrainingError, "exit code 3"),
        ("misshaped", TrainingError, "image misshaped"),
    ],
)
def test_failures_reach_the_consumer_and_close_the_pool(task, kind, text, all_gone):
    pool = pool_of()
    workers = pids(pool)
    start_s = time.monotonic()
    with pytest.raises(kind, match=text):
        run(pool, [1, task, 2, 3])
    assert time.monotonic() - start_s < 5
    assert all_gone(workers)
    with pytest.raises(TrainingError, match="closed"):
        run(pool, [1])


def test_a_worker_that_dies_idle_is_noticed():
    with pool_of() as pool:
        run(pool, [1, 2])
        os.kill(pids(pool)[1], signal.SIGKILL)
        pool.processes[1].join(5)
        with pytest.raises(TrainingError, match="SIGKILL"):
            run(pool, [1, 2])


@pytest.mark.usefixtures("ctrl_c")
def test_workers_leave_ctrl_c_to_their_parent():
    with pool_of() as pool:
        for pid in pids(pool):
            os.kill(pid, signal.SIGINT)
        assert run(pool, [1, 2, 3, 4])[1] == [f"note {i}" for i in range(1, 5)]


def test_a_stalled_worker_times_out(all_gone):
    pool = pool_of(stall_timeout_s=0.5)
    workers = pids(pool)
    with pytest.raises(TrainingError, match=r"0\.5 s[\s\S]*image sleep"):
        run(pool, ["sleep", 1])
    assert all_gone(workers)


def test_stopped_workers_that_take_no_tasks_time_out(all_gone):
    """Also sending may not wait without limit: the pipe of a stopped worker fills up."""
    pool = pool_of(1, batch_size=1, num_slots=1, stall_timeout_s=0.5)
    workers = pids(pool)
    os.kill(workers[0], signal.SIGSTOP)
    with pytest.raises(TrainingError, match="no data worker answered"):
        pool.submit(0, ["x" * 10_000_000], ["large"])
    assert all_gone(workers)


def test_close_in_the_middle_of_work(all_gone):
    pool = pool_of(3)
    workers = pids(pool)
    pool.submit(0, ["sleep", 1, 2, "sleep"], [""] * 4)
    pool.close()
    pool.close()
    assert all_gone(workers)


def test_collected_pool_closes_itself(all_gone):
    pool = pool_of()
    workers = pids(pool)
    arrays, _ = run(pool, [1, 2, 3, 4])
    del pool
    assert all_gone(workers)
    assert arrays["x"][3, 0, 0] == 4


def test_no_file_descriptors_or_shared_memory_remain():
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    with pool_of() as pool:
        run(pool, [1])
    before, segments = descriptors(), set(os.listdir("/dev/shm"))
    for _ in range(3):
        with pool_of() as pool:
            run(pool, [1])
            assert set(os.listdir("/dev/shm")) <= segments
    assert descriptors() == before


def test_opencv_threads_of_the_parent_do_not_hang_the_workers():
    image = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)

    def resize(task, row):
        row["x"][...] = cv2.resize(image, None, fx=2, fy=2).mean()

    cv2.setNumThreads(4)
    try:
        expected = cv2.resize(image, None, fx=2, fy=2).mean()
        with WorkerPool(
            resize,
            {"x": (np.float32, ())},
            batch_size=2,
            num_slots=1,
            num_workers=2,
            stall_timeout_s=10,
        ) as pool:
            arrays, _ = run(pool, [0, 1])
    finally:
        cv2.setNumThreads(-1)
    np.testing.assert_allclose(arrays["x"], expected, rtol=1e-6)


SCRIPT = """
import os, signal, sys, time
import numpy as np
from sniper.loader.workers import WorkerPool

def make(task, row):
    time.sleep(task)

pool = WorkerPool(make, {"x": (np.float32, ())}, batch_size=2, num_slots=1, num_workers=2)
print(*[process.pid for process in pool.processes], flush=True)
"""
WAIT = """
pool.submit(0, [60, 60], ["a", "b"])
pool.wait(0)
"""


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_interrupts_the_consumer_and_ends_the_workers(start_script, all_gone):
    process = start_script(SCRIPT + WAIT)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode != 0
    assert errors.count("KeyboardInterrupt") == 1 and errors.count("Traceback") == 1
    assert all_gone(workers)


def test_a_killed_parent_takes_its_workers_along(start_script, all_gone):
    process = start_script(SCRIPT + "time.sleep(60)")
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2 and not _gone(workers)
    process.kill()
    process.wait()
    assert all_gone(workers)


def _gone(workers):
    return [pid for pid in workers if not os.path.exists(f"/proc/{pid}")]


def test_a_script_that_forgets_to_close_ends(start_script, all_gone):
    process = start_script(SCRIPT)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0 and not errors
    assert all_gone(workers)


@pytest.mark.parametrize("name", ["batch_size", "num_slots", "num_workers", "stall_timeout_s"])
def test_numbers_must_be_positive(name):
    options = {"batch_size": 1, "num_slots": 1, "num_workers": 1, name: 0}
    with pytest.raises(ConfigError):
        WorkerPool(make, SPECS, **options)

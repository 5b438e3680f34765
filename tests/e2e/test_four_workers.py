"""Four workers and two servers on this machine: how such a job goes on, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.worker_jobs import (
    END_LIMIT_S,
    START_LIMIT_S,
    TIMEOUT_S,
    Running,
    command,
    losses,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FOUR = ("-n", "4", "-s", "2")
ROLES = {"scheduler", *(f"server {i}" for i in range(2)), *(f"worker {i}" for i in range(4))}
SETTINGS = ("TRAIN.BATCH_IMAGES", "1", "gpus", "cpu")


@contextlib.contextmanager
def job_of_four(tiny, output, folder, *overrides, timeout_s=TIMEOUT_S) -> Iterator[Running]:
    arguments = command(tiny, output, *SETTINGS, *overrides, timeout_s=timeout_s, processes=FOUR)
    running = Running(folder, arguments)
    try:
        running.wait_for("batch 2 of")
        assert set(running.pids()) == ROLES
        yield running
    finally:
        running.close()


@pytest.mark.parametrize("role", ["worker 3", "server 1"])
def test_a_killed_process_ends_the_job(tiny, fresh, tmp_path, role):
    overrides = ("TRAIN.end_epoch", "500", "TRAIN.NUM_PROCESS", "1")
    with job_of_four(tiny, fresh, tmp_path, *overrides) as job:
        os.kill(job.pids()[role], signal.SIGKILL)
        assert job.wait_for_end() == 1
        errors = job.text(1)
        assert f"error: {role} (process " in errors and "was killed by SIGKILL" in errors
        assert "-n 4 -s 2 -- " in errors and "main_train.py --resume" in errors


class Slowed:
    """Stops and continues a process again and again: it gets a third of its time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.pauses = 0

    def __enter__(self) -> Slowed:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has done its work
            while not self._done.is_set():
                os.kill(self._pid, signal.SIGSTOP)
                self.pauses += 1
                self._done.wait(0.4)
                os.kill(self._pid, signal.SIGCONT)
                self._done.wait(0.2)


def test_a_slow_worker_slows_the_job_and_changes_nothing(tiny, fresh, tmp_path):
    """All wait for it; the sums of four differ in their order, hence in their last bits."""
    overrides = ("TRAIN.end_epoch", "2", "TRAIN.NUM_PROCESS", "0", "TRAIN.lr", "0.001")
    results = []
    for name, slow in ((f"{fresh}_even", False), (fresh, True)):
        with job_of_four(tiny, name, tmp_path, *overrides, timeout_s=300) as job:
            with Slowed(job.pids()["worker 3"]) if slow else contextlib.nullcontext() as slowed:
                assert job.wait_for_end(START_LIMIT_S + END_LIMIT_S) == 0, job.text(1)
            assert "the weights are the same on all 4 workers" in job.text(0)
            assert not slow or slowed.pauses > 3
        results.append(losses(tiny.model_folder(name)))
    even, uneven = results
    assert len(even) == len(uneven) > 4
    # Later the last bits have grown: batch norms of one chip are sensitive.
    for one, other in zip(even[:2], uneven[:2]):
        assert one.pop("kind") == other.pop("kind")
        assert one == pytest.approx(other, rel=1e-3)

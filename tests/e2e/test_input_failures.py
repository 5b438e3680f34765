"""Whatever happens to the training input: an end within 10 s, a message, and nothing left behind.

Every run is a process group of its own, so that Ctrl-C reaches its workers as in a terminal.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.child_output import output_file

LIB = Path(__file__).resolve().parents[2] / "lib"
LIMIT_S = 10
START_LIMIT_S = 90  # import of MXNet and the first batches

WORKERS = ("TRAIN.NUM_PROCESS", "2", "TRAIN.end_epoch", "500")

# Prepares a failure in the training process, then trains; {patch} may use `mark`.
SCRIPT = """
import os, sys, time
from pathlib import Path

def mark():
    with open({marker!r}, "a") as marker:
        print(time.time(), file=marker)

{patch}
from sniper.tools.train import main
sys.exit(main({arguments!r}))
"""


def processes_of(group):
    """Processes of a process group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue  # it has ended meanwhile
        state, _, its_group = rest.split()[:3]
        if int(its_group) == group and state != "Z":
            found.append(f"{stat.parent.name} {name}")
    return found


class Run:
    """A training run in a process group of its own."""

    def __init__(self, tiny, folder, output, patch, flags, overrides):
        self.marker = folder / "marker"
        self.log_lines = tiny.model_folder(output) / "tiny.jsonl"
        shutil.rmtree(tiny.model_folder(output), ignore_errors=True)
        arguments = [*tiny.arguments(output, *flags), *WORKERS, *overrides]
        script = SCRIPT.format(marker=str(self.marker), patch=patch, arguments=arguments)
        self.segments = set(os.listdir("/dev/shm"))
        self._errors = output_file(folder / "errors")
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(LIB)},
        )

    @property
    def errors(self):
        """What it has written to stderr."""
        self._errors.seek(0)
        return self._errors.read()

    def wait_until(self, happened):
        end = time.monotonic() + START_LIMIT_S
        while not happened():
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < end, "the run did not get so far:\n" + self.errors
            time.sleep(0.02)

    def wait_for_training(self):
        """Returns when the first metrics are there."""
        self.wait_until(lambda: self.log_lines.exists() and self.log_lines.stat().st_size > 0)

    def workers(self):
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in path.read_text().split()]

    def wait_for_end(self, since):
        """Exit code; within the limit, with no process and no shared memory left."""
        code = self.process.wait(timeout=LIMIT_S)
        assert time.time() - since < LIMIT_S
        assert self.process.pid and not processes_of(self.process.pid)
        assert set(os.listdir("/dev/shm")) <= self.segments
        assert "Traceback" not in self.errors
        return code

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._errors.close()


@pytest.fixture
def start(tiny, tmp_path):
    """Starts runs; ends them after the test."""
    runs = []

    def start_run(patch="", flags=(), overrides=(), output="failures"):
        runs.append(Run(tiny, tmp_path, output, patch, flags, overrides))
        return runs[-1]

    yield start_run
    for run in runs:
        run.close()


RAISE = """
from sniper.loader import sample
original, calls = sample.gt_in_chip, iter(range(10**9))

def unlucky(*arguments, **options):
    if next(calls) == 30:
        mark()
        raise ZeroDivisionError("divided by nought")
    return original(*arguments, **options)

sample.gt_in_chip = unlucky
"""


def test_an_exception_in_a_worker_names_image_and_stage(start):
    run = start(RAISE)
    run.wait_until(run.marker.exists)
    since = float(run.marker.read_text().split()[0])
    assert run.wait_for_end(since) == 1
    assert "stage: make labels" in run.errors
    assert ".jpg" in run.errors
    assert "ZeroDivisionError: divided by nought" in run.errors


def test_a_killed_worker_is_named_with_its_image(start):
    run = start()
    run.wait_for_training()
    os.kill(run.workers()[1], signal.SIGKILL)
    assert run.wait_for_end(time.time()) == 1
    assert "died while it made training samples: killed by SIGKILL" in run.errors
    assert "memory ran out" in run.errors, "the usual cause"


def test_an_image_that_is_truncated_while_training(start, tiny, tmp_path):
    toy = tmp_path / "toy"
    shutil.copytree(tiny.root / "toy", toy)
    # With a cache nobody would read the files again.
    run = start(overrides=("dataset.dataset_path", str(toy), "TRAIN.IMAGE_CACHE_MB", "0"))
    run.wait_for_training()
    for image in (toy / "images" / "train").iterdir():
        os.truncate(image, image.stat().st_size // 2)
    assert run.wait_for_end(time.time()) == 3
    assert "cut off" in run.errors
    assert str(toy / "images" / "train") in run.errors


def interrupt(run, *, training=False):
    """Ctrl-C: with something to save the run saves it and says how to go on."""
    os.killpg(run.process.pid, signal.SIGINT)
    since = time.time()
    assert run.wait_for_end(since) == (1 if training else 130)
    assert ("--resume goes on from here" if training else "interrupted") in run.errors


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_training(start):
    run = start()
    run.wait_for_training()
    assert len(run.workers()) == 2
    interrupt(run, training=True)


# Chips that take for ever: a good citizen that looks whether it shall stop, and one that does not.
SLOW_CHIPS = """
from sniper.loader import train

def slow(*arguments, cancelled, **options):
    mark()
    while not ({obedient} and cancelled()):
        time.sleep(0.05)
    raise SystemExit("given up")

train.make_epoch = slow
"""


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("obedient", [True, False])
def test_ctrl_c_while_chips_are_made(start, obedient):
    run = start(SLOW_CHIPS.format(obedient=obedient))
    run.wait_until(run.marker.exists)
    assert len(run.workers()) == 2
    interrupt(run)


SLOW_SET = """
from sniper.runs import train

def slow(*_):
    mark()
    time.sleep(600)

train.read_training_sets = slow
"""


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_the_data_set_is_read(start):
    run = start(SLOW_SET)
    run.wait_until(run.marker.exists)
    interrupt(run)


NEXT_EPOCH_HANGS = """
from sniper.loader import train
original = train.make_epoch

def slow(*arguments, epoch, **options):
    if epoch == 0:
        return original(*arguments, epoch=epoch, **options)
    mark()
    time.sleep(600)

train.make_epoch = slow
"""


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_the_next_epoch_is_made_in_the_background(start):
    run = start(NEXT_EPOCH_HANGS)
    run.wait_for_training()
    run.wait_until(run.marker.exists)
    interrupt(run, training=True)


def test_a_failure_of_the_next_epoch_ends_the_run(start):
    run = start(NEXT_EPOCH_HANGS.replace("time.sleep(600)", 'raise MemoryError("too many chips")'))
    run.wait_until(run.marker.exists)
    # The running epoch is trained to its end, and its checkpoint written, before anybody asks.
    run.wait_until(lambda: run.process.poll() is not None)
    assert run.process.returncode == 1
    assert "stage: make chips" in run.errors and "epoch 1" in run.errors
    assert "too many chips" in run.errors and "Traceback" not in run.errors
    assert (run.log_lines.parent / "SNIPER-0001.params").exists()


def test_first_metrics_come_after_ten_batches(start):
    run = start(flags=("--display", "1000"), overrides=("TRAIN.BATCH_IMAGES", "1"))
    run.wait_for_training()
    assert json.loads(run.log_lines.read_text().splitlines()[0])["batch"] == 10
    (log,) = run.log_lines.parent.glob("*.log")
    assert "batch 10 of" in log.read_text() and "batch 10 of" in run.errors
    assert "RPNLogLoss=" in log.read_text()


def memory_mb(run):
    """Resident memory of the run and its workers; shared pages count once for each."""
    total = 0
    for pid in (run.process.pid, *run.workers()):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total / 1e6


def test_memory_does_not_grow_from_epoch_to_epoch(start):
    run = start(output="memory")
    folder = run.log_lines.parent
    run.wait_until((folder / "SNIPER-0003.json").exists)
    before = memory_mb(run)
    run.wait_until((folder / "SNIPER-0008.json").exists)
    after = memory_mb(run)
    assert after < 1.02 * before, f"{before:.0f} MB after 3 epochs, {after:.0f} MB after 8"

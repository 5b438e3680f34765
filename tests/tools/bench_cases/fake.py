"""Two sides that note when they work, and some that misbehave.

The notes go to the file that SNIPER_TEST_BENCH_LOG names.
"""

import os
import signal
import sys
import threading
import time

import numpy as np

from bench.case import Case, Job, PeerMissingError, Prepared, Side
from bench.compare import close_array


def note(*words):
    with open(os.environ["SNIPER_TEST_BENCH_LOG"], "a") as log:
        print(*words, file=log, flush=True)


def worker(letter, factor=1.0):
    def setup(inputs, params, threads):
        def run():
            begin = time.monotonic()
            time.sleep(0.003)
            note(letter, begin, time.monotonic())
            return inputs["x"] * factor

        environment = [
            os.environ["OMP_NUM_THREADS"] == str(threads),
            "OPENBLAS_CORETYPE" not in os.environ,
            params["key"] == 5,
        ]
        return Prepared(run, lambda x: {"x": x, "environment": np.array(environment)})

    return setup


def spinning(inputs, params, threads):
    """Has a thread that never sleeps long, like a pool that waits for work."""

    def spin():
        while True:
            note("spin", time.monotonic())
            time.sleep(0.0005)

    threading.Thread(target=spin, daemon=True).start()
    return worker("B")(inputs, params, threads)


def misbehaving(action):
    def setup(inputs, params, threads):
        calls = iter(range(100))

        def run():
            if next(calls) == 2:
                action()
            return inputs["x"]

        return Prepared(run, lambda x: {"x": x})

    return setup


def die():
    print("out of luck")
    sys.stdout.flush()
    os._exit(7)


def missing(inputs, params, threads):
    raise PeerMissingError("fakelib is not installed: pip install fakelib")


def broken(inputs, params, threads):
    raise ValueError("cannot prepare this")


CASE = Case(
    name="fake",
    summary="fake sides",
    jobs=[Job("small", lambda rng: {"x": rng.normal(size=4)}, {"key": 5})],
    sides={
        "ours": Side(worker("A")),
        "same": Side(worker("B")),
        "spinning": Side(spinning),
        "different": Side(worker("C", 1.5)),
        "missing": Side(missing),
        "broken": Side(broken),
        "dies": Side(misbehaving(die)),
        "killed": Side(misbehaving(lambda: os.kill(os.getpid(), signal.SIGSEGV))),
        "hangs": Side(misbehaving(lambda: time.sleep(600))),
    },
    compare=lambda ours, peer, job, name: close_array(ours["x"], peer["x"], "x", 1e-6),
    goal={"same": 1e-3, "spinning": 1e9},
)

"""One side of a benchmark, in its own process: reads commands from stdin, answers on stdout.

Commands and answers are JSON, one a line. Started by `process.py` only.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, TextIO

if not __package__:  # run as a script; its own folder has too common module names
    SCRIPTS = Path(__file__).resolve().parent.parent
    sys.path[:1] = [str(SCRIPTS), str(SCRIPTS.parent)]  # `bench`, and references in `tests`

import numpy as np

from bench.case import PeerMissingError, load_case

PR_SET_PDEATHSIG = 1
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# A first run that takes this many turns has warmed up for the first turn as well.
SLOW_TURNS = 10


def main() -> None:
    die_with_parent()
    replies = take_stdout()
    task = json.loads(sys.stdin.readline())
    try:
        inputs = dict(np.load(task["inputs"], allow_pickle=False))
        side = load_case(task["case"]).sides[task["side"]]
        prepared = side.setup(inputs, task["params"], task["threads"])
    except PeerMissingError as error:
        answer(replies, missing=str(error))
        return
    answer(replies, ready=True)
    run_s = 0.0
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "outputs":
            start = time.perf_counter()
            result = prepared.run()
            run_s = (time.perf_counter() - start) / SLOW_TURNS
            arrays = prepared.outputs(result)
            np.savez(command["path"], **{name: np.asarray(a) for name, a in arrays.items()})
            answer(replies, done=True)
        else:
            warm_up = run_s <= command["seconds"]  # a longer run warms itself up
            run_s, calls = timed_turn(
                prepared.run, command["seconds"], warm_up, CLOCKS[command["clock"]]
            )
            answer(replies, seconds=run_s, calls=calls)


def timed_turn(
    run: Callable[[], Any],
    budget_s: float,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, int]:
    """Repeats `run` until about `budget_s` are spent: seconds per call and number of calls."""
    gc.collect()
    gc.disable()
    if warm_up:
        run()  # the other side's turn has left the caches cold and our threads asleep
    calls, spent, batch = 0, 0.0, 1
    while spent < budget_s:
        start = clock()
        for _ in range(batch):
            run()
        spent += clock() - start
        calls += batch
        missing = int((budget_s - spent) / max(spent / calls, 1e-9)) + 1
        batch = max(1, min(missing, 8 * calls))
    gc.enable()
    return spent / calls, calls


def take_stdout() -> TextIO:
    """The pipe to the parent; what libraries print goes to stderr from now on."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def answer(replies: TextIO, **values: Any) -> None:
    replies.write(json.dumps(values) + "\n")
    replies.flush()


def die_with_parent() -> None:
    """A side is stopped between its turns and would stay so if its parent were killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    try:
        main()
    except Exception:  # noqa: BLE001 (any failure of a side is told to the parent by its exit)
        traceback.print_exc()
        sys.exit(1)

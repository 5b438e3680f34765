"""What runs in a worker process, and the memory that it shares with its parent."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np

from sniper.errors import SniperError

# Makes one sample: (task, its row of the batch's arrays) -> note for the consumer.
MakeSample = Callable[[Any, Mapping[str, np.ndarray]], Any]

_POLL_S = 1.0


def shared_arrays(
    specs: Mapping[str, tuple[type, tuple[int, ...]]], batch_size: int
) -> dict[str, np.ndarray]:
    """Arrays (batch_size, *shape) in memory that forked processes share."""
    arrays = {}
    for name, (kind, shape) in specs.items():
        full = (batch_size, *shape)
        count = int(np.prod(full))
        # MAP_SHARED | MAP_ANONYMOUS is the default; the arrays keep the mapping alive.
        memory = mmap.mmap(-1, max(1, count * np.dtype(kind).itemsize))
        arrays[name] = np.frombuffer(memory, kind, count).reshape(full)
    return arrays


def row_of(arrays: Mapping[str, np.ndarray], position: int) -> dict[str, np.ndarray]:
    """Views of one sample of a batch; the dots make a view of a single number too."""
    return {name: array[position, ...] for name, array in arrays.items()}


def run_worker(
    pipe: Connection,
    inherited: Sequence[Connection],
    slots: Sequence[Mapping[str, np.ndarray]],
    make: MakeSample,
    parent: int,
) -> None:
    """Main loop of a worker: receives lists of (slot, position, task), answers one by one.

    Args:
        pipe: to the parent.
        inherited: ends of other pipes that the fork has copied; they are closed.
        slots: shared arrays of the batches.
        make: makes a sample.
        parent: process id; the worker ends when its parent is another one.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in inherited:
        other.close()
    gc.freeze()  # collections would touch, and so copy, the pages shared with the parent
    # 0 and not 1: 1 would join the threads of OpenCV's pool, which a fork does not copy.
    cv2.setNumThreads(0)
    try:
        while True:
            while not pipe.poll(_POLL_S):
                if os.getppid() != parent:
                    return
            for slot, position, task in pipe.recv():
                pipe.send((slot, position, *_attempt(make, task, row_of(slots[slot], position))))
    except (EOFError, OSError):
        return  # the parent is gone


def _attempt(
    make: MakeSample, task: Any, row: Mapping[str, np.ndarray]
) -> tuple[Any, SniperError | str | None]:
    """Makes one sample: (note, None) or (None, what went wrong)."""
    try:
        return make(task, row), None
    except SniperError as error:
        return None, error
    except Exception:  # noqa: BLE001 (the parent raises it)
        return None, traceback.format_exc(limit=-5)

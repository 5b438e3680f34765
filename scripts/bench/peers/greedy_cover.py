"""The plain C++ greedy cover (`greedy_cover.cc`): built on first use, called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Callable

import numpy as np

from bench.case import PeerMissingError

SOURCE = Path(__file__).resolve().parents[1] / "greedy_cover.cc"
BUILD_FOLDER = SOURCE.parents[2] / "build" / "bench"
FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-fPIC", "-shared")

Cover = Callable[[np.ndarray, float, int, int, int, int, int], np.ndarray]


def library() -> Path:
    """The compiled source.

    Raises:
        PeerMissingError: there is no g++, or it refuses the source.
    """
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    path = BUILD_FOLDER / f"greedy_cover-{key}.so"
    if path.is_file():
        return path
    compiler = shutil.which("g++")
    if compiler is None:
        raise PeerMissingError("g++ is not installed, which builds greedy_cover.cc")
    BUILD_FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, *FLAGS, str(SOURCE), "-o", str(unfinished)], capture_output=True, text=True
    )
    if done.returncode:
        raise PeerMissingError(f"g++ refuses greedy_cover.cc:\n{done.stderr}")
    unfinished.replace(path)
    return path


def load() -> Cover:
    """A function with the arguments and the result of `sniper.native._native.chip_cover`."""
    function = ctypes.CDLL(str(library())).greedy_cover
    function.restype = ctypes.c_int
    function.argtypes = [
        *(ctypes.c_void_p, ctypes.c_int, ctypes.c_double, ctypes.c_int, ctypes.c_int),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p),
    ]

    def cover(
        boxes_im: np.ndarray, factor: float, width_im: int, height_im: int, chip_size: int,
        stride: int, seed: int,
    ) -> np.ndarray:  # fmt: skip
        chips = np.empty((len(boxes_im), 4))
        count = function(
            boxes_im.ctypes.data, len(boxes_im), factor, width_im, height_im, chip_size, stride,
            seed, chips.ctypes.data,
        )  # fmt: skip
        return chips[:count]

    return cover

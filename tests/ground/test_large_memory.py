"""Freed memory goes back to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# A freed 24 MiB block teaches glibc to keep such blocks; small ones in between hold its heap open.
PROGRAM = """
import os, sys
import numpy as np
from sniper.process import return_large_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
in_force = return_large_memory() if sys.argv[1] == "tuned" else None
del_me = np.ones(24 << 20, np.uint8)
del del_me
before = resident()
large, small = [], []
for _ in range(20):
    large.append(np.ones(3 << 20, np.uint8))
    small.append(np.ones(100_000, np.uint8))
large.clear()
print(in_force, resident() - before)
"""


def grown_mb(how, **environment) -> tuple[str, float]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    in_force, grown = done.stdout.split()
    return in_force, float(grown)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps large blocks")
def test_large_blocks_go_back_to_the_system():
    in_force, grown = grown_mb("tuned")
    assert in_force == "True" and grown < 10
    assert grown_mb("plain")[1] > 40  # what it is for


def test_the_choice_of_the_user_stays():
    assert grown_mb("tuned", MALLOC_MMAP_THRESHOLD_="33554432")[0] == "False"

"""Readings in processes of their own: the memory that one has had is not another's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence


def print_readings(script: str, readings: Mapping[str, Sequence[str]]) -> int:
    """Runs the script with the arguments of one reading after the other, and prints what it says.

    Returns:
        The exit code: 1 when a reading has failed; those after it are left out.
    """
    width = max(map(len, readings))
    for name, arguments in readings.items():
        done = subprocess.run(
            [sys.executable, script, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1
        print(f"{name:>{width}}: {done.stdout.strip()}", flush=True)
    return 0

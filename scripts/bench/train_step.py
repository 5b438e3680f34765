"""Measures training steps beside PyTorch: `ops.py train_step` with turns that suit it.

    python scripts/bench/train_step.py --peer-python /path/to/python/with/torch
    python scripts/bench/train_step.py --only "MobileNetV2, batch 1" --threads 2

Options, measuring and exit codes are those of ops.py; the case is cases/train_step.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import ops

# A step takes 0.1 to 10 s: one or several in a turn.
TURNS = ("--rounds", "7", "--turn-time", "1")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line; what it says replaces the defaults of this script."""
    return ops.main(["train_step", *TURNS, *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())

"""Measures COCO evaluation beside pycocotools: `ops.py coco_eval` with turns that suit it.

    python scripts/bench/coco_eval.py

Options, measuring and exit codes are those of ops.py; the case is cases/coco_eval.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import ops

# pycocotools takes some ten seconds.
TURNS = ("--rounds", "5", "--turn-time", "0.1", "--timeout", "600")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line; what it says replaces the defaults of this script."""
    return ops.main(["coco_eval", *TURNS, *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())

"""Measures the merge of an image's detections beside per-class NumPy: `ops.py merge`.

    python scripts/bench/merge.py
    python scripts/bench/merge.py --threads 1

Options, measuring and exit codes are those of ops.py; the case is cases/merge.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import ops


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line."""
    return ops.main(["merge", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())

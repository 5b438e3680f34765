"""Measures whole detectors beside torchvision's: `ops.py whole_detectors`.

    python scripts/bench/whole_detectors.py --torch-python /path/with/torch/bin/python
    python scripts/bench/whole_detectors.py --only MobileNet --threads 1

The interpreter needs torch, torchvision and onnx. It writes torchvision's networks where they are
missing (in the folder SNIPER_BENCH_MODELS, else a temporary one) and runs them in PyTorch; without
it the files that are there run in the other engines. Turns are of a second. All other options,
measuring and exit codes are those of ops.py; the case is cases/whole_detectors.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import ops
from bench.cases.whole_detectors import NETWORKS, SIZES, models_folder

EXPORTER = Path(__file__).resolve().parent / "peers" / "torchvision_detectors.py"
TORCH_SIDES = ("torchvision", "torchvision-channels-last")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--torch-python")
    own, others = parser.parse_known_args(argv)
    if own.torch_python:
        make_models(own.torch_python)
        others += [f"--peer-python={side}={own.torch_python}" for side in TORCH_SIDES]
    return ops.main(["whole_detectors", "--rounds", "5", "--turn-time", "1", *others])


def make_models(python: str) -> None:
    """Writes the files that are missing.

    Raises:
        subprocess.CalledProcessError: a network cannot be exported; it has said why.
    """
    folder = models_folder()
    for _, name in NETWORKS.values():
        for width, height in SIZES:
            size = f"{width}x{height}"
            if not (folder / f"{name}_{size}.npz").is_file():
                command = [python, str(EXPORTER), name, size, str(folder)]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())

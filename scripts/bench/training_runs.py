"""What the scripts that train recipes with other keys have in common."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def program(name: str, recipe: str, keys: Mapping[str, object], *flags: str) -> None:
    """Runs `main_train.py` or `main_test.py`; raises CalledProcessError when it fails."""
    words = [word for key, value in keys.items() for word in (key, str(value))]
    command = [sys.executable, str(ROOT / name), "--cfg", recipe, *flags, "--set", *words]
    print("+", " ".join(command[1:]), flush=True)
    subprocess.run(command, check=True)


def tool(*words: object) -> None:
    """Runs a command of `sniper`; raises CalledProcessError when it fails."""
    command = [sys.executable, "-m", "sniper", *map(str, words)]
    print("+", " ".join(command[1:]), flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


def last_epoch(folder: Path) -> int:
    """The newest epoch whose checkpoint is whole; 0: none."""
    epochs = [int(path.stem[-4:]) for path in folder.glob("SNIPER-????.json")]
    return max(epochs, default=0)


def schedule(updates: int) -> dict[str, object]:
    """Keys of a training of so many updates, whose rate drops at 3/4 and 11/12 of them."""
    return {
        "TRAIN.MAX_UPDATES": updates,
        "TRAIN.end_epoch": 99,
        "TRAIN.lr_step": f"{updates * 3 // 4}u,{updates * 11 // 12}u",
    }


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and half the range over the seeds."""
    return f"{np.mean(values):.1f} ± {np.ptp(values) / 2:.1f}"

"""`scripts/bench/profile_operators.py`: what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.profile_operators import chip_input, table

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "bench" / "profile_operators.py"


def test_the_largest_come_first_and_the_rest_is_added_up():
    rows = {"small": (1, 2.0), "large": (3, 12.0), "least": (2, 1.0), "middle": (4, 5.0)}
    assert table(rows, 2) == [
        "| operator | calls | ms | share |",
        "|---|---|---|---|",
        "| large | 3 | 12.0 | 60.0% |",
        "| middle | 4 | 5.0 | 25.0% |",
        "| 2 others | 3 | 3.0 | 15.0% |",
        "| sum | 10 | 20.0 | 100.0% |",
    ]
    assert len(table(rows, 4)) == 7


def test_chips_have_one_object():
    boxes = chip_input("gt_boxes", (2, 4, 5), 128, np.random.default_rng(0))
    assert boxes[:, 0].tolist() == [[32, 32, 96, 96, 1]] * 2
    assert (boxes[:, 1:] == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "operator"),
    [(["--size", "96x64"], "MultiProposal"), (["--train"], "MultiProposalTarget")],
)
def test_operators_have_times_of_their_own(arguments, operator):
    command = [sys.executable, str(SCRIPT), "--cfg", "sniper_mobilenetv2_toy", "--passes", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lib"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments, "--rows", "99"], env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"| {operator} | 1 |" in done.stdout
    assert "others" not in done.stdout

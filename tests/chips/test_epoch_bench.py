"""scripts/bench/epoch.py runs and measures what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from bench import epoch

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "epoch.py"


def test_a_small_run_prints_one_row_a_case():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--images", "30", "--proposals", "0", "50"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    head, titles, *rows = done.stdout.splitlines()
    assert head.startswith("30 images with flips, 2 threads")
    assert titles.split("  ")[0] == "proposals an image"
    cells = [[float(cell) for cell in row.split()] for row in rows]
    assert [row[:2] for row in cells] == [[0, 60], [50, 60]]
    assert cells[0][2] > 60 and all(0 < row[-2] <= row[-1] < 1 for row in cells)


def test_the_images_are_those_of_the_description():
    records = epoch.coco_like_records(700, 40, seed=3)
    again = epoch.coco_like_records(700, 40, seed=3)
    assert all((a.boxes == b.boxes).all() for a, b in zip(records, again))
    assert [record.image_id for record in records] == list(range(700))
    shares = [sum((r.width, r.height) == size for r in records) / 700 for size in epoch.SIZES]
    assert np.abs(np.array(shares) - epoch.SHARES).max() < 0.05
    numbers = np.array([record.num_gt for record in records])
    assert 6 < numbers.mean() < 9 and 3 <= np.median(numbers) <= 5 and (numbers == 0).any()
    assert all(len(record.boxes) == record.num_gt + 40 for record in records)
    gt = np.concatenate([record.gt_boxes for record in records])
    side = np.sqrt((gt[:, 2:] - gt[:, :2] + 1).prod(axis=1))
    assert 45 < np.median(side) < 60
    for record in records:
        assert record.boxes.min() >= 0
        assert (record.boxes.max(axis=0)[2:] <= [record.width - 1, record.height - 1]).all()

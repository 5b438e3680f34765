"""Results of thousands of images take little more memory than their numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

LIB = Path(__file__).resolve().parents[2] / "lib"

SCRIPT = """
import json, resource, sys
from pathlib import Path

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable, join_blocks, load_detections
from sniper.data.record import Record
from sniper.inference.block_store import BlockStore
from sniper.inference.results import report_detections
from sniper.inference.run_stats import RunStats

IMAGES, EACH, BLOCK = 2000, 200, 64
folder = Path(sys.argv[1])


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def block(rng, count):
    rows = rng.uniform(0, 600, (count * EACH, 5)).astype(np.float32)
    rows[:, 2:4] += rows[:, :2]
    classes = np.sort(rng.integers(1, 81, (count, EACH)), axis=1).astype(np.int32).ravel()
    return DetectionTable(np.arange(count + 1) * EACH, rows, classes)


nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
records = tuple(Record(f"{i}.jpg", i, 640, 480, False, *nothing) for i in range(IMAGES))
names = ("__background__", *(f"class {i}" for i in range(80)))
dataset = Dataset("COCO_x", "x", names, tuple(range(81)), records, "x.json", False)
order = np.random.default_rng(0).permutation(IMAGES)
blocks = [order[start : start + BLOCK].tolist() for start in range(0, IMAGES, BLOCK)]
store = BlockStore(folder / "partial_x", "key", load_detections)
report_detections(folder / "none", dataset, DetectionTable(
    np.zeros(IMAGES + 1, np.int64), np.zeros((0, 5), np.float32), np.zeros(0, np.int32)
))
before = peak_mb()
for number, own in enumerate(blocks):
    table = block(np.random.default_rng(number), len(own))
    store.save(number, table.arrays(), RunStats(images=len(own)))
stored = peak_mb()
table = join_blocks([store.load(number)[0] for number in range(len(blocks))], blocks)
joined = peak_mb()
report_detections(folder / "results", dataset, table)
print(json.dumps([before, stored, joined, peak_mb(), table.num_detections]))
"""


def test_memory_of_many_detections(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(LIB)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, stored, joined, reported, count = json.loads(done.stdout.splitlines()[-1])
    assert count == 400_000
    table_mb = count * 24 / 2**20  # rows and classes
    assert stored - before < 0.5 * table_mb, "finished blocks stay on disk only"
    assert joined - before < 4 * table_mb
    # A dict for each detection, as 2018 made them, would take about 60 times the table.
    assert reported - before < 10 * table_mb

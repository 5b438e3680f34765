from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper.data.record import Record, flip_record

LIB = Path(__file__).resolve().parents[2] / "lib"


@pytest.fixture(scope="session")
def image_records(tmp_path_factory):
    """Six small images with boxes, and their mirrored copies: 12 records."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    records = []
    for image_id in range(6):
        width, height = generator.integers(120, 260, 2).tolist()
        path = folder / f"{image_id}.png"
        cv2.imwrite(str(path), generator.integers(0, 256, (height, width, 3), np.uint8))
        sides = generator.integers(12, 60, (5, 2))
        corner = (generator.uniform(0, 1, (5, 2)) * ([width, height] - sides - 1)).astype(int)
        boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
        records.append(
            Record(
                image_path=str(path),
                image_id=image_id,
                width=width,
                height=height,
                flipped=False,
                boxes=boxes,
                classes=np.arange(1, 6, dtype=np.int32),
                is_gt=np.ones(5, bool),
            )
        )
    return [*records, *map(flip_record, records)]


def is_running(pid):
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def all_gone():
    """Waits up to 5 s for processes to end; whether all did."""

    def wait_for(pids):
        deadline = time.monotonic() + 5
        while any(map(is_running, pids)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not any(map(is_running, pids))

    return wait_for


@pytest.fixture
def start_script(tmp_path):
    """Starts a Python script in its own process group; ends it after the test."""
    started = []

    def start(text):
        path = tmp_path / "script.py"
        path.write_text(text)
        process = subprocess.Popen(
            [sys.executable, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(LIB)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()

"""Detection on an engine that is not MXNet, in a process that cannot import MXNet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from sniper.data import image_record
from sniper.inference.detector import Detector
from sniper.inference.level import Level
from sniper.inference.merge_levels import MergeSettings
from tests.inference.spot_executor import SpotExecutor

LIB = Path(__file__).resolve().parents[2] / "lib"

SCRIPT = """
import json, sys
sys.modules["mxnet"] = None
from pathlib import Path
import numpy as np
from tests.inference.spot_executor import SpotExecutor
from sniper.data import Dataset, image_record
from sniper.inference.block_store import run_keys
from sniper.inference.detector import Detector
from sniper.inference.level import Level
from sniper.inference.merge_levels import MergeSettings
from sniper.inference.prediction import best_first

folder = Path(sys.argv[1])
record = image_record(str(folder / "spots.png"), 7, 200, 120)
levels = [Level(1.0, valid_range=(-1, 50)), Level(0.5, valid_range=(20, -1))]
merge = MergeSettings(nms_threshold=0.5, sigma=-1)
executor = SpotExecutor(with_masks=True)
detector = Detector(executor, levels, merge, np.zeros(3))
(found,) = detector.detect([record])
about = {"name": "spots", "width": 200, "height": 120}
prediction = best_first(found, executor.traits.class_names, 0.5, **about)
(folder / "weights").write_text("")
about = {"pixel_means": (0, 0, 0), "kind": "detections"}
dataset = Dataset("spots", "spots", executor.traits.class_names, (0, 1, 2), (record,), "", False)
keys = run_keys(detector, folder / "weights", dataset, [[0]], **about)
print(json.dumps([prediction.as_dict(), keys.result, keys.levels]))
"""


def test_another_executor_detects_and_cuts_masks_without_mxnet(tmp_path):
    image = np.zeros((120, 200, 3), np.uint8)
    image[20:30, 100:110] = image[40:110, 20:90] = 255
    cv2.imwrite(str(tmp_path / "spots.png"), image)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(LIB), str(Path(__file__).parent)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, result_key, level_keys = json.loads(done.stdout)
    boxes = sorted(entry["bbox"] for entry in found["detections"])
    assert boxes == [[20, 40, 72, 72], [100, 20, 11, 11]]
    assert {entry["category"] for entry in found["detections"]} == {"a"}
    assert all(entry["segmentation"]["size"] == [120, 200] for entry in found["detections"])
    assert len({result_key, *level_keys}) == 3


def test_weak_detections_go_before_levels_are_merged(tmp_path):
    image = np.zeros((120, 200, 3), np.uint8)
    image[40:110, 20:90] = 255
    cv2.imwrite(str(tmp_path / "spots.png"), image)
    record = image_record(str(tmp_path / "spots.png"), 7, 200, 120)
    merge = MergeSettings(nms_threshold=0.5, sigma=-1)
    # The spots have a score of 0.9, no more.
    for least, count in ((0.001, 1), (0.89, 1), (0.91, 0)):
        detector = Detector(SpotExecutor(), [Level(1.0, min_score=least)], merge, np.zeros(3))
        (found,) = detector.detect([record])
        assert len(found.rows) == count

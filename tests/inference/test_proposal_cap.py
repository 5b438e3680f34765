"""A window has no more proposals for its area than a chip had in training."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from sniper import load_config
from sniper.data import Record
from sniper.inference.decode import ChipDetections
from sniper.inference.detector import Detector
from sniper.inference.level import Level
from sniper.inference.merge_levels import MergeSettings
from sniper.inference.proposal_cap import ProposalCap
from sniper.models.class_scores import ClassScores
from sniper.runs.levels import levels_of
from tests.inference.spot_executor import SpotExecutor

CAP = ProposalCap(per_chip=3, chip_size=100, valid_range=(10, 50))


def found(sides, factor=1.0):
    """Detections of these sides, in this order; the scores tell them apart."""
    boxes = np.float32([[5, 5, 5 + side, 5 + side] for side in sides]).reshape(-1, 4)
    scores = np.arange(len(sides), dtype=np.float32)[:, None]
    return ChipDetections(0, 0, boxes, scores, factor)


def test_the_best_of_valid_sizes_are_left():
    sides = [9, 30, 60, 50, 10, 11, 20, 30]
    assert CAP.apply(found(sides), 100, 100).scores.ravel().tolist() == [1, 3, 5]
    unbounded = dataclasses.replace(CAP, valid_range=(-1, -1))
    assert unbounded.apply(found(sides), 100, 100).scores.ravel().tolist() == [0, 1, 2]


def test_the_number_goes_with_the_area_and_is_never_below_that_of_a_chip():
    # (image px, factor) -> network px: 25, 100, 110 and 400 px.
    cases = [(50, 0.5, 3), (50, 2, 3), (220, 0.5, 4), (200, 2, 48)]
    for side, factor, expected in cases:
        assert CAP.most(side * factor, side * factor) == expected
        left = CAP.apply(found([20] * 60, factor), side, side)
        assert len(left.boxes) == len(left.scores) == expected


def test_sparse_scores_of_thousands_of_classes_are_cut_too():
    boxes = np.array([0, 1, 1, 3, 5], np.int64)
    classes, scores = np.arange(1, 6, dtype=np.int32), np.float32([0.1, 0.2, 0.3, 0.4, 0.5])
    dense = found([9, 30, 60, 50, 10, 11])
    sparse = ClassScores(boxes, classes, scores, np.linspace(1, 0.5, 6, dtype=np.float32))
    left = CAP.apply(dataclasses.replace(dense, scores=sparse), 100, 100)
    # Boxes 1, 3 and 5 are left, and are numbered anew.
    assert left.scores.boxes.tolist() == [0, 0, 1, 2]
    assert left.scores.classes.tolist() == [2, 3, 4, 5] and len(left.scores) == 3


def test_few_proposals_are_left_alone():
    few = found([5, 20, 90])
    assert CAP.apply(few, 100, 100) is few


@pytest.mark.parametrize("mode", ["pyramid", "single", "slice"])
def test_only_where_training_had_fewer(mode):
    """2018 trained and tested with 300 RoIs."""
    for recipe in ("sniper_res101_e2e", "sniper_mobilenetv2_e2e"):
        assert all(level.cap is None for level in levels_of(load_config(recipe, []), mode))
    toy = load_config("sniper_mobilenetv2_toy", [])
    levels = levels_of(toy, mode)
    assert [level.cap for level in levels] == [
        ProposalCap(20, 128, level.valid_range) for level in levels
    ]
    every = load_config("sniper_mobilenetv2_toy", ["TEST.PROPOSALS_AS_TRAINED", "False"])
    assert all(level.cap is None for level in levels_of(every, mode))


def test_detection_keeps_to_it(tmp_path):
    image = np.zeros((96, 96, 3), np.uint8)
    for x in range(4, 90, 16):
        image[20 : 20 + 10, x : x + 10] = 255
    path = tmp_path / "spots.png"
    cv2.imwrite(str(path), image)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    record = Record(str(path), 0, 96, 96, False, *nothing)
    numbers = []
    for cap in (None, ProposalCap(2, 96, (-1, -1)), ProposalCap(2, 96, (20, -1))):
        level = Level(1.0, cap=cap)
        merge = MergeSettings(nms_threshold=0.5, sigma=-1, max_per_image=-1)
        with_masks = Detector(SpotExecutor(with_masks=True), [level], merge, np.zeros(3))
        table = with_masks.detect([record])
        numbers.append(len(table[0].rows))
        assert len(table[0].masks or []) == len(table[0].rows)
    # Every spot has scores of 0.1 (background) and 0.9: one detection.
    assert numbers == [6, 2, 0]

"""Windows that are seen mirrored as well: boxes at their place, maps as without it."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from sniper.chips.focus import FocusSettings
from sniper.chips.slices import SliceSettings
from sniper.config import load_config
from sniper.data import image_record
from sniper.inference.detector import Detector
from sniper.inference.level import FOCUS, SLICES, Level
from sniper.inference.level_cache import LevelFiles
from sniper.inference.merge_levels import MergeSettings
from sniper.inference.mirror import run_mirrored
from sniper.inference.proposal_cap import ProposalCap
from sniper.runs.plan import test_plan as plan_of_test
from sniper.runs.test import detector_settings
from tests.inference.spot_executor import SpotExecutor

MERGE = MergeSettings(nms_threshold=0.5, sigma=-1, max_per_image=-1)
SIZE = (313, 200)
LARGE, SMALL = (20, 20, 100, 100), (260, 160, 268, 168)


class HalfBlind(SpotExecutor):
    """Sees what begins in the left half of a window only; corners name pixels, as boxes do."""

    def _window(self, data, info):
        found = super()._window(data, info)
        boxes = found.boxes - np.float32([0, 0, 1, 1])
        kept = boxes[:, 0] < info[1] / 2
        return dataclasses.replace(found, boxes=boxes[kept], scores=found.scores[kept])


@pytest.fixture
def record(tmp_path):
    width, height = SIZE
    image = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in (LARGE, SMALL):
        image[y1:y2, x1:x2] = 255
    path = tmp_path / "0.png"
    cv2.imwrite(str(path), image)
    return image_record(path, 0, width, height)


def detector_of(levels, executor=None, **options):
    return Detector(executor or HalfBlind(), levels, MERGE, np.zeros(3), pyramid=[(200, 320)],
                    **options)  # fmt: skip


def boxes(detector, record, **options):
    table = detector.detect([record], on_step=lambda *args: None, **options)
    return sorted(table[0].rows[:, :4].round(1).tolist())


def pixels(box):
    """Corners that name the first and the last pixel."""
    return [*box[:2], box[2] - 1, box[3] - 1]


def near(found, expected):
    return len(found) == len(expected) and np.allclose(found, sorted(map(pixels, expected)), atol=1)


@pytest.mark.parametrize("scale", [(200, 400), (150, 400), (417, 700)])
def test_what_only_the_mirror_shows_is_found_at_its_place(record, scale):
    assert near(boxes(detector_of([Level(scale)]), record), [LARGE])
    flipped = detector_of([Level(scale)], flip=True)
    assert near(boxes(flipped, record), [LARGE, SMALL])
    stats, once = flipped.take_stats(), detector_of([Level(scale)])
    boxes(once, record)
    assert stats.pixels == 2 * once.take_stats().pixels


def test_both_views_of_an_object_become_one(record):
    assert near(boxes(detector_of([Level((200, 400))], SpotExecutor(), flip=True), record),
                [(x1, y1, x2 + 1, y2 + 1) for x1, y1, x2, y2 in (LARGE, SMALL)])  # fmt: skip


def test_windows_of_one_batch_are_mirrored_by_their_own_width():
    data = np.zeros((2, 3, 64, 64), np.float32)
    data[0, :, 10:20, 5:15] = data[1, :, 10:20, 30:40] = 200
    info = np.float32([[64, 50, 1], [64, 61, 1]])
    found = run_mirrored(SpotExecutor(), data, info)
    assert found[0].boxes.tolist() == [[4, 10, 14, 20]]
    assert found[1].boxes.tolist() == [[29, 10, 39, 20]]
    assert [window.maps for window in found] == [{}, {}]


def test_slices_and_pruning(record):
    slices = SliceSettings(128, 0.25)
    levels = [Level((200, 400)), Level(1.0, windows=SLICES, slices=slices, prune=True)]
    assert near(boxes(detector_of(levels, flip=True), record), [LARGE, SMALL])


def test_focus_chips_come_from_the_image_as_it_is(record):
    levels = [
        Level((200, 400), focus=FocusSettings(1, 0.5, 4)),
        Level(2.0, windows=FOCUS, prune=True),
    ]
    seen = {}
    for flip in (False, True):
        executor = HalfBlind()
        boxes(detector_of(levels, executor, flip=flip), record)
        seen[flip] = executor.shapes
    assert seen[True] == [shape for shape in seen[False] for _ in range(2)]


def test_masks_are_read_from_the_window_as_it_is(record):
    executor = HalfBlind(with_masks=True)
    jobs = []
    original = executor.masks
    executor.masks = lambda given: jobs.extend(given) or original(given)
    table = detector_of([Level((200, 400))], executor, flip=True).detect([record])
    assert len(table[0].masks) == 2 and len(jobs) == 1
    # The map of the executor is the window itself: it is white where the object is.
    x1, y1, x2, y2 = SMALL
    assert jobs[0].roi_map[0, y1:y2, x1:x2].min() > 200


def test_each_view_has_its_own_cap(record):
    cap = ProposalCap(1, 512, (-1, -1))
    assert near(boxes(detector_of([Level((200, 400), cap=cap)], flip=True), record), [LARGE, SMALL])


def test_cached_levels_hold_both_views(record, tmp_path):
    cache = LevelFiles({0: tmp_path / "level.npz"})
    first = boxes(detector_of([Level((200, 400))], flip=True), record, cache=cache)
    silent = HalfBlind()
    assert boxes(detector_of([Level((200, 400))], silent, flip=True), record, cache=cache) == first
    assert silent.shapes == [] and len(first) == 2


def test_plans_say_it_and_proposals_do_without():
    cfg = load_config("sniper_mobilenetv2_toy", ["gpus", "cpu", "TEST.FLIP", "true"])
    plan = plan_of_test(cfg)
    assert plan.flip and detector_settings(plan)["flip"] is True
    proposals = plan_of_test(cfg, rpn_only=True)
    assert not proposals.flip and any("TEST.FLIP" in note for note in proposals.notes)
    plain = plan_of_test(load_config("sniper_mobilenetv2_toy", ["gpus", "cpu"]))
    assert not plain.flip and "flip" not in detector_settings(plain)

"""The way through the levels with a network that is easy to foresee; executors and threads."""

from __future__ import annotations

import dataclasses
import logging
import threading

import cv2
import mxnet as mx
import numpy as np
import pytest

from sniper.chips.focus import FocusSettings, focus_chips
from sniper.chips.slices import SliceSettings, slice_windows
from sniper.data import Record
from sniper.data.detections import DetectionTable
from sniper.errors import ConfigError
from sniper.inference import mxnet_executor
from sniper.inference.decode import ChipDetections, decode_batch
from sniper.inference.detector import Detector
from sniper.inference.level import FOCUS, SLICES, Level
from sniper.inference.merge_levels import MergeSettings, first_cut_image
from sniper.inference.mxnet_executor import BoundGraph, MxnetExecutor
from sniper.inference.run_stats import STAGES, RunStats, level_stage
from sniper.loader.windows import TestBatch
from sniper.models.assembly import DetectorSpec, ProposalSettings
from sniper.models.model import Model
from tests.inference.spot_executor import SpotExecutor

SPEC = DetectorSpec(
    "resnet_mx_18_e2e",
    num_classes=3,
    anchor_scales=(1, 2, 4),
    anchor_ratios=(0.5, 1, 2),
    feature_stride=16,
    batch_images=1,
    width=0.125,
    rpn_channels=8,
    roi_channels=8,
    fc_channels=16,
    proposal=ProposalSettings(100, 0.7, 3, 6),
)
MERGE = MergeSettings(nms_threshold=0.5, sigma=-1, max_per_image=-1)
SIZES = [(320, 200), (200, 320), (320, 200)]
FOCUS_SETTINGS = FocusSettings(1, 0.5, 4)


@pytest.fixture
def records(tmp_path):
    """Black pictures with a large spot at the left and a small one at the lower right."""
    records = []
    for number, (width, height) in enumerate(SIZES):
        image = np.zeros((height, width, 3), np.uint8)
        image[20:100, 20:100] = 255
        if number < 2:
            image[height - 40 : height - 32, width - 60 : width - 52] = 255
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), image)
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
        records.append(Record(str(path), number, width, height, False, *nothing))
    return records


def make_detector(levels, **options):
    executor = SpotExecutor()
    return Detector(executor, levels, MERGE, np.zeros(3), pyramid=[(200, 320)], **options)


def spots(table, index):
    return table[index].rows[:, :4].round(0).tolist()


def test_focus_looks_only_where_the_map_says_and_says_how_much(records):
    levels = [
        Level((200, 320), 2, (50, -1), focus=FOCUS_SETTINGS),
        Level(2.0, 3, (-1, 50), windows=FOCUS, prune=True),
    ]
    detector = make_detector(levels)
    windows = []
    original = detector.run_level
    detector.run_level = lambda *args: windows.append(args[2]) or original(*args)
    table = detector.detect(records, on_step=lambda *args: None)
    assert sorted(spots(table, 0)) == [[20, 20, 100, 100], [260, 160, 268, 168]]
    assert sorted(spots(table, 1)) == [[20, 20, 100, 100], [140, 280, 148, 288]]
    assert spots(table, 2) == [[20, 20, 100, 100]], "nothing small: no chips, no error"
    assert [len(own) for own in windows[1]] == [1, 1, 0]
    x1, y1, x2, y2 = windows[1][0][0]
    assert x2 - x1 == y2 - y1 == 64 and x1 < 260 and y2 > 168
    stats = detector.take_stats()
    assert stats.images == 3 and set(stats.seconds) == {*STAGES, level_stage(0), level_stage(1)}
    forward_s = stats.seconds[level_stage(0)] + stats.seconds[level_stage(1)]
    assert forward_s == pytest.approx(stats.seconds["forward"], abs=0.01)
    full = 3 * 320 * 200
    assert stats.pixel_share == pytest.approx((full + 2 * 4 * 64 * 64) / full)
    assert detector.take_stats() == RunStats(), "taken once"


def test_findings_at_borders_inside_the_image_are_dropped(records):
    slices = SliceSettings(128, 0.0)
    image = records[0]
    grid = slice_windows(image.width, image.height, slices)
    everything = make_detector([Level(1.0, 4, windows=SLICES, slices=slices)])
    pruning = make_detector([Level(1.0, 4, windows=SLICES, slices=slices, prune=True)])
    with_parts = spots(everything.detect(records[:1]), 0)
    whole = spots(pruning.detect(records[:1]), 0)
    cut = [
        box
        for box in with_parts
        for x1, y1, x2, y2 in grid
        if x1 <= box[0] and box[2] <= x2 and y1 <= box[1] and box[3] <= y2
        and ((x1 > 0 and box[0] - x1 < 10) or (x2 < 320 and x2 - box[2] < 10)
             or (y1 > 0 and box[1] - y1 < 10) or (y2 < 200 and y2 - box[3] < 10))
    ]  # fmt: skip
    assert sorted(whole) == sorted(box for box in with_parts if box not in cut)
    assert [20, 20, 100, 100] in whole and cut


def test_a_level_without_windows_of_its_own_takes_those_before(records):
    """2018: a level that does not prune keeps the chips of the level before it."""
    levels = [
        Level((200, 320), 1, focus=FOCUS_SETTINGS),
        Level(1.5, 1, windows=FOCUS),
        Level(2.0, 1),
    ]
    detector = make_detector(levels)
    shapes = detector.executor.shapes
    detector.detect(records[:1])
    assert [shape[2:] for shape in shapes] == [(224, 320), (96, 96), (128, 128)]


def test_levels_that_lack_something_are_refused():
    with pytest.raises(ConfigError, match="FocusChips"):
        make_detector([Level(1.0), Level(2.0, windows=FOCUS)])
    with pytest.raises(ConfigError, match="grid"):
        Level(1.0, windows=SLICES)
    with pytest.raises(ConfigError, match="grid"):
        Level(1.0, slices=SliceSettings(128, 0.0))


def test_a_network_without_a_focus_map_cannot_choose_chips(records):
    detector = make_detector([Level((200, 320), focus=FOCUS_SETTINGS), Level(2.0, windows=FOCUS)])
    original = detector.executor.run
    detector.executor.run = lambda *args: [
        dataclasses.replace(window, maps={}) for window in original(*args)
    ]
    with pytest.raises(ConfigError, match="FocusPixels"):
        detector.detect(records)


def test_calls_blocks_and_batches_change_nothing(records):
    def levels(batch):
        return [
            Level((200, 320), batch, (50, -1), focus=FOCUS_SETTINGS),
            Level(2.0, batch, (-1, 50), windows=FOCUS, prune=True),
        ]

    together = make_detector(levels(3)).detect(records)
    for batch in (1, 2):
        detector = make_detector(levels(batch))
        for index, record in enumerate(records):
            alone = detector.detect([record])
            np.testing.assert_array_equal(alone.rows, together[index].rows)
    assert len(make_detector(levels(1)).detect([])) == 0


@pytest.mark.parametrize("windows", [{}, {"windows": SLICES, "slices": SliceSettings(160, 0.25)}])
def test_a_cap_that_may_cost_objects_is_told_once(records, caplog, windows):
    def told(max_per_image):
        caplog.clear()
        merge = dataclasses.replace(MERGE, max_per_image=max_per_image)
        detector = Detector(SpotExecutor(), [Level(1.0, **windows)], merge, np.zeros(3))
        for _ in range(2):
            detector.detect(records)
        warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
        return [record.getMessage() for record in warnings]

    (message,) = told(1)
    assert records[0].image_path in message and "TEST.MAX_PER_IMAGE" in message
    assert "score 0.90" in message
    assert told(50) == told(-1) == []


def test_a_cap_that_costs_noise_is_not_told():
    rows = np.array([[0, 0, 9, 9, 0.9], [0, 0, 9, 9, 0.05]], np.float32)
    table = DetectionTable(np.array([0, 0, 2]), rows, np.ones(2, np.int32))
    assert first_cut_image(table, 2) is None
    rows[1, 4] = 0.2
    assert first_cut_image(table, 2) == 1
    assert first_cut_image(table, 3) is first_cut_image(table, 0) is None


def test_steps_are_told(records):
    steps = []
    make_detector([Level(1.0, 2)]).detect(records, on_step=lambda *step: steps.append(step))
    assert steps == [("level 1/1", done, 3) for done in (1, 2, 3)]


def test_focus_chips_are_cut_on_whole_pixels(records):
    detector = make_detector([Level((200, 320), focus=FOCUS_SETTINGS), Level(2.0, windows=FOCUS)])
    record = records[0]
    focus_map = np.zeros((13, 20), np.float32)
    focus_map[6, 10] = 1
    found = ChipDetections(0, 0, np.zeros((0, 4)), np.zeros((0, 3)), 0.7, None, focus_map)
    ((x1, y1, x2, y2),) = detector._focus_windows(FOCUS_SETTINGS, found, (0, 0, 320, 200), record)
    ((a1, b1, a2, b2),) = focus_chips(focus_map, FOCUS_SETTINGS, (224.0, 140.0), 0.7)
    assert (x1, y1) == (np.floor(a1), np.floor(b1)) and x2 == min(np.ceil(a2), 320)
    assert y2 == min(np.ceil(b2), 200) and a1 != x1 and b2 != y2


def random_model(seed=0):
    from sniper.models.assembly import build_detector, inference_input_shapes

    symbol = build_detector(SPEC, train=False)
    shapes, _, aux_shapes = symbol.infer_shape(**inference_input_shapes(SPEC, 1, 64, 64))
    rng = np.random.default_rng(seed)
    arg = {
        name: mx.nd.array(rng.normal(0, np.sqrt(2 / max(np.prod(shape[1:]), 1)), shape))
        for name, shape in zip(symbol.list_arguments(), shapes)
    }
    aux = {
        name: mx.nd.array(np.full(shape, float(name.endswith("var"))))
        for name, shape in zip(symbol.list_auxiliary_states(), aux_shapes)
    }
    return Model(SPEC, arg, aux, ("__background__", "a", "b"))


def batch_of(rng, count, height, width):
    index = np.arange(count)
    info = np.tile(np.float32([height, width, 1]), (count, 1))
    data = rng.normal(0, 50, (count, 3, height, width)).astype(np.float32)
    return TestBatch(data, info, index, index, np.zeros(count, bool))


def find(executor, batch):
    return decode_batch(executor.run(batch.data, batch.im_info), batch)


def test_executors_that_share_memory_compute_what_fresh_ones_do(monkeypatch):
    monkeypatch.setattr(mxnet_executor, "SHAPES_KEPT", 3)
    model, rng = random_model(), np.random.default_rng(1)
    network = MxnetExecutor(model, [mx.cpu()])
    shapes = [(1, 64, 96), (2, 64, 64), (1, 128, 160), (3, 64, 96), (1, 64, 96), (1, 96, 64)]
    for shape in [*shapes, *shapes[::-1]]:
        batch = batch_of(rng, *shape)
        fresh = MxnetExecutor(model, [mx.cpu()])
        for one, other in zip(find(network, batch), find(fresh, batch)):
            assert len(one.boxes) > 0
            np.testing.assert_array_equal(one.boxes, other.boxes)
            np.testing.assert_array_equal(one.scores, other.scores)
    assert len(network._graphs[0]._executors) <= 3


def test_threads_share_a_network():
    model, rng = random_model(), np.random.default_rng(2)
    batches = [batch_of(rng, 1, 64, side) for side in (64, 96, 128, 64)]
    network = MxnetExecutor(model, [mx.cpu()])
    alone = [find(network, batch)[0].scores for batch in batches]
    wrong = []

    def work(batch, expected):
        for _ in range(5):
            if not np.array_equal(find(network, batch)[0].scores, expected):
                wrong.append(batch.data.shape)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(batches, alone)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    assert isinstance(network._graphs[0], BoundGraph)

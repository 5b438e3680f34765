"""Masks of real (small, random) networks: against one box at a time, in blocks, in batches."""

from __future__ import annotations

import dataclasses

import cv2
import mxnet as mx
import numpy as np
import pytest

from sniper.boxes import LAST_PX
from sniper.data import Record
from sniper.data.detections import join_tables, reorder
from sniper.errors import DataError
from sniper.evaluation import decode_mask
from sniper.inference import detector as detector_module
from sniper.inference import instance_masks
from sniper.inference.detector import Detector
from sniper.inference.executor import MaskJob
from sniper.inference.instance_masks import MaskPaster
from sniper.inference.level import Level
from sniper.inference.merge_levels import MergeSettings, keep_confident
from sniper.inference.mxnet_executor import MxnetExecutor
from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    build_detector,
    build_mask_head,
    inference_input_shapes,
)
from sniper.models.model import Model

CLASSES = 4
MERGE = MergeSettings(sigma=0.55, max_per_image=70)
LEVELS = (Level((128, 192), 1, (-1, 40)), Level((64, 96), 1, (10, -1)))
MEANS = np.array([100.0, 100, 100])
SIZES = [(90, 70), (70, 90), (90, 70), (64, 64), (90, 70)]


def make_spec(symbol="mobilenetv2_e2e_mask", **values):
    base = {
        "num_classes": CLASSES,
        "anchor_scales": (1, 2, 4),
        "anchor_ratios": (0.5, 1, 2),
        "feature_stride": 16,
        "batch_images": 1,
        "width": 0.25,
        "rpn_channels": 16,
        "roi_channels": 16,
        "fc_channels": 32,
        "proposal": ProposalSettings(200, 0.7, 3, 15),
        "with_masks": True,
    }
    return DetectorSpec(symbol, **{**base, **values})


def random_weights(spec, seed=0):
    """Weights that keep signals alive, so that scores and masks differ from place to place."""
    maps = {"roi_map": (1, spec.roi_channels, 4, 4), "mask_rois": (1, 5), "mask_classes": (1,)}
    graphs = [(build_detector(spec, train=False), inference_input_shapes(spec, 1, 64, 64))]
    if spec.with_masks:
        graphs.append((build_mask_head(spec), maps))
    rng = np.random.default_rng(seed)
    arg, aux = {}, {}
    for symbol, inputs in graphs:
        shapes, _, aux_shapes = symbol.infer_shape(**inputs)
        for name, shape in zip(symbol.list_arguments(), shapes):
            fan_in = max(int(np.prod(shape[1:])), 1)
            value = rng.normal(0, np.sqrt(2 / fan_in), shape) if len(shape) > 1 else np.zeros(shape)
            if name.endswith("gamma"):
                value = np.ones(shape)
            if name not in inputs and name not in arg:
                arg[name] = mx.nd.array(value)
        for name, shape in zip(symbol.list_auxiliary_states(), aux_shapes):
            aux[name] = mx.nd.array(np.full(shape, float(name.endswith("var"))))
    arg["bbox_pred_weight"] *= 0.1
    arg["rpn_bbox_pred_weight"] *= 0.1
    return arg, aux


def make_model(spec):
    names = ("__background__", "a", "b", "c")
    return Model(spec, *random_weights(spec), names)


@pytest.fixture(scope="module")
def model():
    return make_model(make_spec())


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(SIZES):
        image = cv2.resize(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8), (width, height))
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), image)
    return paths


@pytest.fixture(scope="module")
def records(paths):
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    return [
        Record(str(path), number, *size, False, *nothing)
        for number, (path, size) in enumerate(zip(paths, SIZES))
    ]


def make_detector(model, levels=LEVELS, devices=1):
    executor = MxnetExecutor(model, [mx.cpu(i) for i in range(devices)])
    return Detector(executor, levels, MERGE, MEANS, num_threads=1)


@pytest.fixture(scope="module")
def found(model, records):
    return make_detector(model).detect(records)


def each(table):
    """(image, class, row, counts) of all detections."""
    for image, own in enumerate(table):
        for row, klass, mask in zip(own.rows, own.classes, own.masks):
            yield image, klass, row, mask


def assert_same_boxes(one, other):
    for name in ("offsets", "rows", "classes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_every_detection_has_the_mask_of_its_own_box(model, records, found, monkeypatch):
    """Slow way: find the level whose raw boxes hold the box, and ask for this one mask alone."""
    raw = {}

    def keep(chip, level, origin):
        raw[chip.image_index, level] = chip
        return keep_confident(chip, level, origin)

    monkeypatch.setattr(detector_module, "keep_confident", keep)
    make_detector(model).detect(records)
    head = build_mask_head(model.spec)
    checked = {0: 0, 1: 0}
    for image, klass, row, counts in each(found):
        levels = [
            level for level in (0, 1) if (raw[image, level].boxes == row[:4]).all(axis=1).any()
        ]
        assert levels
        if len(levels) > 1:
            continue  # the same box at both levels: see the test of origins
        chip = raw[image, levels[0]]
        corners = (row[:4].astype(np.float64) + LAST_PX) * chip.factor - LAST_PX
        roi = np.float32([[0, *corners]])
        inputs = {
            "roi_map": chip.roi_map[None],
            "mask_rois": roi,
            "mask_classes": np.float32([klass]),
        }
        executor = head.simple_bind(mx.cpu(), "null", **{n: a.shape for n, a in inputs.items()})
        executor.copy_params_from(model.arg, allow_extra_params=True)
        probability = executor.forward(**inputs)[0].asnumpy()[0]
        width, height = SIZES[image]
        paster = MaskPaster(height, width)
        mask = decode_mask(counts, height, width)
        least, most = (
            decode_mask(paster.encode(probability + change, row[:4]), height, width)
            for change in (-1e-4, 1e-4)
        )
        assert (least <= mask).all() and (mask <= most).all()
        checked[levels[0]] += 1
    assert min(checked.values()) > 5


def test_masks_differ_and_lie_in_their_boxes(found):
    shares = []
    for image, _, row, counts in each(found):
        width, height = SIZES[image]
        mask = decode_mask(counts, height, width)
        x1, y1, x2, y2 = np.floor(row[:4] + 0.5).astype(int)
        inside = mask[y1 : y2 + 1, x1 : x2 + 1]
        assert inside.sum() == mask.sum()
        shares.append(inside.mean())
    assert 0 < np.mean(shares) < 1 and np.std(shares) > 0.01


def test_blocks_bound_the_maps_in_memory_and_change_nothing(model, records, found, monkeypatch):
    held = []

    class CountedMaps(instance_masks.BlockMaps):
        def keep(self, *args):
            super().keep(*args)
            held[-1] += 1

        def __init__(self, **options):
            super().__init__(**options)
            held.append(0)

    monkeypatch.setattr(detector_module, "BlockMaps", CountedMaps)
    monkeypatch.setattr(detector_module, "MAP_MEMORY_BYTES", 1)
    detector = make_detector(model)
    blocks = detector.blocks(records)
    tables = [detector.detect([records[index] for index in block]) for block in blocks]
    assert len(held) == len(records) and max(held) <= len(LEVELS)
    table = reorder(join_tables(tables), np.argsort([i for block in blocks for i in block]))
    assert_same_boxes(table, found)
    np.testing.assert_array_equal(table.mask_bytes, found.mask_bytes)
    np.testing.assert_array_equal(table.mask_offsets, found.mask_offsets)


def test_detections_are_those_without_masks(model, records, found):
    boxes_only = dataclasses.replace(model, spec=dataclasses.replace(model.spec, with_masks=False))
    table = make_detector(boxes_only).detect(records)
    assert not table.has_masks and found.has_masks
    assert_same_boxes(table, found)


def test_batches_change_nothing(model, records, found):
    levels = [dataclasses.replace(level, batch_images=n) for level, n in zip(LEVELS, (3, 2))]
    other = make_detector(model, levels).detect(records)
    assert_same_boxes(other, found)
    np.testing.assert_array_equal(other.mask_bytes, found.mask_bytes)


def test_devices_change_rounding_only(model, records, found):
    levels = [dataclasses.replace(level, batch_images=n) for level, n in zip(LEVELS, (1, 2))]
    other = list(each(make_detector(model, levels, devices=2).detect(records)))
    ours = list(each(found))
    assert len(ours) == len(other)
    differing = total = 0
    for (image, klass, row, counts), (*where, other_row, other_counts) in zip(ours, other):
        assert [image, klass] == where
        np.testing.assert_allclose(row, other_row, atol=1e-3)
        width, height = SIZES[image]
        a, b = (decode_mask(c, height, width) for c in (counts, other_counts))
        differing, total = differing + (a != b).sum(), total + a.sum()
    assert differing <= 1e-3 * total


def test_many_boxes_go_in_several_parts(model):
    rng = np.random.default_rng(5)
    corners = rng.uniform(0, 60, (150, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (150, 2))], axis=1)
    roi_map = rng.random((16, 6, 8), np.float32)
    job = MaskJob(roi_map, boxes.astype(np.float32), rng.integers(1, CLASSES, 150))
    executor = MxnetExecutor(model, [mx.cpu(0), mx.cpu(1)])
    (together,) = executor.masks([job])
    assert together.shape == (150, 28, 28) and together.dtype == np.float32
    assert (together >= 0).all() and (together <= 1).all()
    singles = [MaskJob(roi_map, job.boxes[[k]], job.classes[[k]]) for k in (0, 63, 64, 149)]
    other_map = MaskJob(rng.random((16, 3, 2), np.float32), job.boxes[:9], job.classes[:9])
    first, second, _, third, fourth = executor.masks([*singles[:2], other_map, *singles[2:]])
    for k, single in zip((0, 63, 64, 149), (first, second, third, fourth)):
        np.testing.assert_allclose(single[0], together[k], atol=1e-5)
    assert list(executor.masks([])) == []


def test_a_residual_network_has_masks_too(records):
    spec = make_spec("resnet_mx_18_e2e_mask")
    table = make_detector(make_model(spec)).detect(records[:2])
    assert table.has_masks and table.num_detections > 0


def test_weights_without_a_mask_head_are_explained(model, records):
    arg = {name: value for name, value in model.arg.items() if not name.startswith("mask_")}
    without = dataclasses.replace(model, arg=arg)
    with pytest.raises(DataError, match="mask_offset_weight is missing"):
        make_detector(without).detect(records[:1])

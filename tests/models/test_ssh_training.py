"""SSH in training: what its modules train on, gradients beside NumPy, and through the loader."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sniper import boxes as box_ops
from sniper.chips.sampler import ChipSettings
from sniper.config import load_config
from sniper.data.record import Record
from sniper.errors import ConfigError, TrainingError
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.train import TrainLoader
from sniper.models.assembly import (
    anchor_grids,
    batch_contract,
    batch_metrics,
    build_detector,
    short_output_names,
    watched_metrics,
)
from sniper.models.heads.ssh import SshModule
from sniper.models.lazy import mx
from sniper.models.spec import TargetSettings
from sniper.models.weights import fixed_names, initialise
from sniper.runs.levels import levels_of
from sniper.runs.resolve import detector_spec
from sniper.targets.contract import ChipTruth, GtInChip
from sniper.targets.faces import FaceLabels
from sniper.training.finite_checks import check_step
from sniper.training.metrics import Metrics
from sniper.training.step_settings import StepSettings
from sniper.training.stepper import Stepper, StepResult
from tests.models.test_networks_ssh import NETWORKS, spec_ssh

CHIP, IMAGES = 96, 2
KERNEL = "ssh_m2_red_upsampling_weight"
# One face for each module; the last one only fits the anchors that stick out of the chip.
FACES = [[9, 9, 25, 25, 1], [20, 20, 86, 88, 1], [-60, -60, 150, 160, 1]]


def make_spec(symbol, **values):
    targets = TargetSettings(
        rpn_fg_fraction=0.25, rpn_positive_overlap=0.5, rpn_negative_overlap=0.3
    )
    base = {"width": 0.1, "rpn_channels": 8, "max_gt": 6, "rpn_batch_size": 32}
    return spec_ssh(symbol, **{**base, "targets": targets, **values})


def bind(spec, inner=(), init="scratch", faces=FACES):
    """A training graph with one batch in it, and more of its nodes as outputs."""
    graph = build_detector(spec, train=True)
    shapes = batch_contract(spec, CHIP).input_shapes(spec.batch_images)
    arg, aux, _ = initialise(graph, shapes, None, seed=0, init=init)
    nodes = graph.get_internals()
    more = [mx.sym.BlockGrad(nodes[f"{name}_output"], name=f"inner_{name}") for name in inner]
    graph = mx.sym.Group([graph, *more])
    executor = graph.simple_bind(mx.cpu(), grad_req="write", **shapes)
    executor.copy_params_from(arg, aux)
    rng = np.random.default_rng(0)
    values = executor.arg_dict
    values["data"][:] = rng.normal(0, 50, shapes["data"])
    values["im_info"][:] = (CHIP, CHIP, 1)
    values["gt_boxes"][:] = -1
    values["gt_boxes"][:, : len(faces)] = faces
    values["ignore_boxes"][:] = -1
    outputs = [output.asnumpy() for output in executor.forward(is_train=True)]
    executor.backward()
    gradients = {name: value.asnumpy() for name, value in executor.grad_dict.items()}
    names = short_output_names(graph.list_outputs(), spec)
    return SimpleNamespace(
        outputs=dict(zip(names, outputs)), gradients=gradients, inputs=shapes, names=names
    )


@pytest.mark.parametrize("symbol", NETWORKS)
def test_a_step_reaches_every_parameter_of_every_module(symbol):
    # From scratch the residual blocks start as identities, where most weights have no gradient.
    run = bind(make_spec(symbol, batch_images=IMAGES), init="legacy")
    assert run.names == [
        *(f"rpn_{name}_stride{s}" for s in (8, 16, 32) for name in ("cls_prob", "bbox_loss")),
        *(f"{name}_stride{s}" for s in (8, 16, 32) for name in ("label", "count")),
    ]
    for stride in (8, 16, 32):
        cells = CHIP // stride
        prob, count = (
            run.outputs[f"rpn_cls_prob_stride{stride}"],
            run.outputs[f"count_stride{stride}"],
        )
        assert prob.shape == (IMAGES, 2, 2 * cells, cells)
        assert run.outputs[f"label_stride{stride}"].shape == (IMAGES, 2 * cells**2)
        assert (count[:, 0] > 0).all() and (count[:, 1] <= 32).all()
        assert run.outputs[f"rpn_bbox_loss_stride{stride}"].max() > 0
    for name, gradient in run.gradients.items():
        if name not in run.inputs:
            assert np.isfinite(gradient).all(), name
            # The kernel is not trained; the scale of `bn_data` is fixed at 1.
            assert gradient.any() != (name in (KERNEL, "bn_data_gamma")), name


def test_gradients_are_those_of_the_losses():
    """Mean cross entropy of the trained anchors; smooth L1 over them, averaged over the images."""
    inner = [
        f"{name}_stride{s}" for s in (8, 16, 32) for name in ("rpn_cls_score", "rpn_bbox_pred")
    ]
    targets = [
        f"targets_stride{s}_{n}" for s in (8, 16, 32) for n in ("bbox_target", "bbox_weight")
    ]
    scale = 4.0
    run = bind(make_spec("vgg16_ssh", batch_images=IMAGES, loss_scale=scale), [*inner, *targets])
    for stride in (8, 16, 32):
        label = run.outputs[f"label_stride{stride}"]
        trained = label != -1
        assert trained.sum() == run.outputs[f"count_stride{stride}"][:, 1].sum()
        prob = run.outputs[f"rpn_cls_prob_stride{stride}"].reshape(IMAGES, 2, -1)
        slope = np.where(trained, prob[:, 1] - label, 0) * scale / trained.sum()
        of_anchors = slope.reshape(IMAGES, 2, -1).sum(axis=(0, 2))
        # Channels: background of both anchors, face of both.
        expected = np.concatenate([-of_anchors, of_anchors])
        gradient = run.gradients[f"rpn_cls_score_stride{stride}_bias"]
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
        deltas = run.outputs[f"inner_rpn_bbox_pred_stride{stride}"]
        target = run.outputs[f"inner_targets_stride{stride}_bbox_target"]
        weight = run.outputs[f"inner_targets_stride{stride}_bbox_weight"]
        error = deltas - target
        slope = np.clip(9 * error, -1, 1) * weight * scale / IMAGES
        gradient = run.gradients[f"rpn_bbox_pred_stride{stride}_bias"]
        np.testing.assert_allclose(gradient, slope.sum(axis=(0, 2, 3)), rtol=1e-4, atol=1e-6)


def test_metrics_of_the_modules():
    spec = make_spec("vgg16_ssh")
    outputs = {}
    for stride in (8, 16, 32):
        prob = np.full((2, 2, 2, 1), 0.5, np.float32)
        prob[0, :, 0] = [[0.1], [0.9]]
        outputs[f"rpn_cls_prob_stride{stride}"] = prob
        outputs[f"label_stride{stride}"] = np.float32([[1, -1], [0, -1]])
        outputs[f"rpn_bbox_loss_stride{stride}"] = np.full((2, 8, 1, 1), 0.25, np.float32)
        outputs[f"count_stride{stride}"] = np.float32([[stride, 32], [0, 4]])
    sums = batch_metrics(spec)(outputs, {})
    names = ("MAcc", "MLogLoss", "ML1Loss", "MPos")
    assert list(sums) == [f"{name}{k}" for k in (1, 2, 3) for name in names]
    for number, stride in ((1, 8), (2, 16), (3, 32)):
        assert sums[f"MAcc{number}"] == (2.0, 2.0)
        loss, count = sums[f"MLogLoss{number}"]
        assert loss / count == pytest.approx(-(np.log(0.9) + np.log(0.5)) / 2, rel=1e-5)
        assert sums[f"ML1Loss{number}"] == (4.0, 2.0)
        assert sums[f"MPos{number}"] == (stride, 2.0)


def test_modules_without_positives_are_told_with_the_sizes_that_they_want():
    spec = make_spec("vgg16_ssh")
    watched = watched_metrics(spec, 640)
    assert list(watched) == ["MPos1", "MPos2", "MPos3"]
    # 0.5 is the least overlap; anchors are squares of 256 and 512 px.
    assert "module 3 of SSH (stride 32)" in watched["MPos3"]
    assert "ANCHOR_SCALES 16, 32) fit faces of about 181 to 724 px" in watched["MPos3"]
    assert "chips of 640 px" in watched["MPos3"]
    low, high = 16 * np.sqrt(0.5), 32 / np.sqrt(0.5)
    assert f"faces of about {low:.0f} to {high:.0f} px" in watched["MPos1"]
    # The sizes are right: squares a little inside of them are positive, those outside are not.
    anchors = SshModule(1).anchors(spec)
    centre = (anchors[0, :2] + anchors[0, 2:]) / 2

    def best(side):
        box = np.concatenate([centre - (side - 1) / 2, centre + (side - 1) / 2])[None]
        return box_ops.iou(anchors, np.float32(box)).max()

    assert min(best(low + 0.1), best(high - 0.1)) >= 0.5 > max(best(low - 0.1), best(high + 0.1))
    # Other heads watch nothing yet.
    assert watched_metrics(make_spec("mobilenetv2_e2e"), 512) == {}


def test_the_recipe_says_what_the_paper_says():
    cfg = load_config("ssh_vgg16_wider")
    spec = detector_spec(cfg, train=True, batch_images=1, fp16=False)
    assert spec.anchor_scales == (1, 2, 4, 8, 16, 32) and spec.rpn_batch_size == 256
    targets = spec.targets
    assert (targets.rpn_positive_overlap, targets.rpn_negative_overlap) == (0.5, 0.3)
    assert int(spec.rpn_batch_size * targets.rpn_fg_fraction) == 64
    frozen = fixed_names(build_detector(spec, train=True), cfg.network.FIXED_PARAMS)
    layers = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    kinds = ("weight", "bias")
    assert frozen == [*(f"{n}_{kind}" for n in layers for kind in kinds), KERNEL]
    test = detector_spec(cfg, train=False, batch_images=1, fp16=False)
    assert test.legacy_boxes and test.proposal.pre_nms_top_n == 1000 and not test.proposal.min_size
    # The last module does not look at the finest level; weak detections go before NMS.
    levels = levels_of(cfg, "pyramid")
    assert [level.skip_strides for level in levels] == [(32,), (), (), ()]
    assert {level.min_score for level in levels} == {0.05}
    assert levels_of(cfg, "single")[0].skip_strides == ()
    with pytest.raises(ConfigError, match="TEST.SKIP_STRIDES: 3 entries for 4"):
        load_config("ssh_vgg16_wider", ["TEST.SKIP_STRIDES", "[[], [], [32]]"])
    # The pyramid: 800 px (long side at most 1200) times 1600, 1200, 800 and 500 over 800.
    for width, height in ((1024, 768), (1024, 400), (700, 1400)):
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
        record = Record("a", 1, width, height, False, *nothing)
        short, long = sorted((width, height))
        base = min(800 / short, 1200 / long)
        factors = [level.factor(record) for level in levels_of(cfg, "pyramid")]
        assert factors == pytest.approx([base * side / 800 for side in (1600, 1200, 800, 500)])
        (single,) = levels_of(cfg, "single")
        assert single.factor(record) == pytest.approx(min(1200 / short, 1600 / long))


def truth(boxes, valid, crowd=()):
    boxes = np.float32(boxes).reshape(-1, 4)
    count = len(boxes)
    gt = GtInChip(
        *(boxes, np.ones(count, np.int32), np.array(valid, bool), np.arange(count, dtype=np.int32)),
        np.ones(count, bool),
    )
    record = Record("a.png", 1, 96, 80, False, boxes, gt.classes, np.ones(count, bool))
    chip = SimpleNamespace(rect=(0, 0, 96, 80), factor=2.0, height=80, width=96, level=0)
    return ChipTruth(record, chip, gt, CHIP, 0, crowd_boxes=np.float32(crowd).reshape(-1, 4))


def test_labels_part_what_is_trained_from_what_is_ignored():
    labels = FaceLabels(3)
    rows = {
        array.name: np.full(array.shape, 7, np.float32) for array in (*labels.data, *labels.label)
    }
    boxes = [[k, k, k + 20, k + 30] for k in range(4)]
    surplus = labels.write(truth(boxes, [True, False, True, False], [[5, 6, 50, 60]]), rows)
    assert surplus == 0
    np.testing.assert_array_equal(rows["im_info"], [80, 96, 2])
    unused = [-1] * 5
    np.testing.assert_array_equal(rows["gt_boxes"], [[*boxes[0], 1], [*boxes[2], 1], unused])
    ignored = [[*boxes[1], 1], [*boxes[3], 1], [5, 6, 50, 60, 0]]
    np.testing.assert_array_equal(rows["ignore_boxes"], ignored)
    assert labels.write(truth([], []), rows) == 0
    assert (rows["gt_boxes"] == -1).all() and (rows["ignore_boxes"] == -1).all()
    assert labels.write(truth([boxes[0]] * 5, [True] * 5, [[0, 0, 9, 9]] * 4), rows) == 3
    with pytest.raises(ConfigError, match="at least one box"):
        FaceLabels(0)


def write_images(folder, count=4):
    """Records of images of noise with a small and a medium face each."""
    import cv2

    rng = np.random.default_rng(0)
    records = []
    for number in range(count):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (90, 96, 3), np.uint8))
        boxes = np.float32([[9, 9, 25, 25], [20, 20, 86, 88]])
        records.append(
            Record(str(path), number, 96, 90, False, boxes, np.ones(2, np.int32), np.ones(2, bool))
        )
    return records


def start(spec, lr=0.01):
    """The stepper of a fresh network, and its weights."""
    graph = build_detector(spec, train=True)
    shapes = batch_contract(spec, CHIP).input_shapes(IMAGES)
    arg, aux, _ = initialise(graph, shapes, None, seed=0, init="scratch")
    before = {name: value.asnumpy() for name, value in arg.items()}
    return Stepper(spec, graph, [mx.cpu()], shapes, arg, aux, StepSettings(lr=lr)), before


def loader_of(records, spec):
    chips = ChipSettings((1.0,), ((-1, -1),), CHIP)
    settings = BatchSettings(batch_contract(spec, CHIP), (1, 2, 3))
    return TrainLoader(records, chips, settings, batch_size=IMAGES, num_workers=0, seed=0)


def test_the_network_trains_on_chips(tmp_path):
    """Loader, stepper and metrics; all but the fixed kernel learns, and decays where it should."""
    spec = make_spec("vgg16_ssh", batch_images=IMAGES)
    assert batch_contract(spec, CHIP).label_names == ("gt_boxes", "ignore_boxes")
    stepper, before = start(spec)
    metrics = Metrics(batch_metrics(spec))
    with loader_of(write_images(tmp_path), spec) as loader:
        loader.start_epoch(0)
        batch = next(loader)
        result = stepper.step(batch)
        assert result.updated
        values = metrics.update(result.outputs, batch.label)
    assert np.isfinite(list(values.values())).all()
    assert values["MPos1"] > 0 and values["MPos2"] > 0
    after = {name: value.asnumpy() for name, value in stepper.params()[0].items()}
    unchanged = {name for name in before if np.array_equal(before[name], after[name])}
    # No face is large enough for the last module; its other numbers decay.
    assert values["MPos3"] == 0
    assert unchanged == {KERNEL, "rpn_bbox_pred_stride32_bias"}


def test_what_is_not_finite_names_its_images_and_is_kept(tmp_path):
    spec = make_spec("vgg16_ssh", batch_images=IMAGES)
    stepper, _ = start(spec)
    metrics = Metrics(batch_metrics(spec))
    with loader_of(write_images(tmp_path), spec) as loader:
        loader.start_epoch(0)
        batch = next(loader)
    good, bad = batch.image_paths
    file = tmp_path / "bad_batch.npz"

    def message(outputs=None):
        result = stepper.step(batch) if outputs is None else StepResult(outputs, True, False, 1.0)
        losses = metrics.measure(result.outputs, batch.label)
        means = {name: n / d for name, (n, d) in losses.items()}
        with pytest.raises(TrainingError) as caught:
            check_step(batch, result, means, epoch=3, file=file)
        assert "epoch 3, batch 0" in str(caught.value)
        return str(caught.value)

    sound = {name: np.array(value) for name, value in stepper.step(batch).outputs.items()}
    check_step(batch, StepResult(sound, True, False, 1.0), {"MLogLoss1": 0.1}, epoch=3, file=file)
    assert not file.exists()
    for number, stride in ((1, 8), (2, 16), (3, 32)):
        prob = np.array(sound[f"rpn_cls_prob_stride{stride}"])
        prob[1] = np.nan
        text = message({**sound, f"rpn_cls_prob_stride{stride}": prob})
        assert f"the loss is not finite: MLogLoss{number}" in text
        assert bad in text and good not in text
        loss = np.array(sound[f"rpn_bbox_loss_stride{stride}"])
        loss[1, 0] = np.inf
        text = message({**sound, f"rpn_bbox_loss_stride{stride}": loss})
        assert f"the loss is not finite: ML1Loss{number}\n" in text and good not in text
    # A pixel that is none: the first ReLU makes 0 of it, but the gradients tell.
    pixels = batch.data["data"].copy()
    batch.data["data"][1, 2, 40, 30] = np.nan
    text = message()
    assert "gradients are not finite: conv1_1_weight" in text
    assert bad in text and good not in text
    with np.load(file) as saved:
        np.testing.assert_array_equal(saved["data"], batch.data["data"])
        assert {"gt_boxes", "ignore_boxes", "im_info"} <= set(saved.files)
    # A broken weight: it is the fault of no image.
    batch.data["data"][:] = pixels
    arg, _ = stepper.params()
    assert all(np.isfinite(value.asnumpy()).all() for value in arg.values())
    stepper._weights["rpn_cls_score_stride8_bias"][:] = np.inf
    text = message()
    assert "the loss is not finite: MLogLoss1" in text and bad in text and good in text


@pytest.mark.parametrize(
    ("symbol", "published", "wider"),
    [("mobilenetv2_ssh", [0, 0, 512], [48, 48, 512]), ("mobilenetv2_e2e", [32], [48])],
)
def test_anchors_may_stick_out_as_far_as_the_recipe_says(symbol, published, wider):
    def borders(*keys):
        cfg = load_config("ssh_vgg16_wider", ["symbol", symbol, *keys])
        spec = detector_spec(cfg, train=True, batch_images=1, fp16=False)
        return [grid.border_px for grid in anchor_grids(spec)]

    assert borders() == published
    assert borders("TRAIN.RPN_ALLOWED_BORDER", "48") == wider
    assert borders("TRAIN.RPN_ALLOWED_BORDER", "600") == [600] * len(published)


def test_a_border_trains_anchors_of_faces_at_the_side_of_a_chip():
    def positives(border):
        spec = replace(
            make_spec("mobilenetv2_ssh", targets=TargetSettings(anchor_border_px=border)),
            anchor_scales=(1.25, 4, 4, 8, 16, 32),  # the first begin at -2.5 and 5.5 px
        )
        run = bind(spec, faces=[[0, 40, 18, 67, 1]])
        return run.outputs["count_stride8"][:, 0].sum()

    assert positives(0) == 0 < positives(16)

"""Backbones and heads that others bring: registered, trained and tested like our own."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import mxnet as mx
import numpy as np
import pytest

from sniper.chips.sampler import ChipSettings
from sniper.config import load_config
from sniper.data.record import Record
from sniper.errors import ConfigError
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.train import TrainLoader
from sniper.models import networks
from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    WindowOutputs,
    batch_contract,
    batch_metrics,
    build_detector,
    decode,
    inference_input_shapes,
    short_output_names,
)
from sniper.models.initialisers import initial_value, is_head
from sniper.models.networks import network_of, register_backbone, register_heads
from sniper.models.spec import TargetSettings
from sniper.models.weights import initialise
from sniper.runs.resolve import batch_settings
from sniper.training.metrics import Metrics
from sniper.training.step_settings import StepSettings
from sniper.training.stepper import Stepper

HERE = Path(__file__)
EXAMPLES = HERE.parents[2] / "examples"
CHIP, IMAGES, ROIS = 64, 2, 8
SHAPES = {"num_classes": 6, "anchor_scales": (2, 4), "anchor_ratios": (0.5, 1)}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def parts(monkeypatch):
    """The modules `own_parts` and `toy_parts`, registered; afterwards the registry is as before."""
    monkeypatch.setattr(networks, "BACKBONES", dict(networks.BACKBONES))
    monkeypatch.setattr(networks, "HEADS", dict(networks.HEADS))
    example, toys = load(EXAMPLES / "own_parts.py"), load(HERE.with_name("toy_parts.py"))
    for name in ("pyramid", "fine", "weighted"):
        register_heads(name, getattr(toys, name.upper()))
    return SimpleNamespace(Tiny=example.Tiny, CENTRE=networks.HEADS["centre"], FINE=toys.FINE)


@pytest.fixture
def records(tmp_path):
    """Eight images of noise with a few boxes each."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (80, 96, 3), np.uint8))
        corners = rng.integers(0, 40, (3, 2))
        boxes = np.concatenate([corners, corners + rng.integers(14, 40, (3, 2))], axis=1)
        classes = rng.integers(1, 6, 3).astype(np.int32)
        boxes = boxes.astype(np.float32)
        found.append(Record(str(path), number, 96, 80, False, boxes, classes, np.ones(3, bool)))
    return found


def make_spec(symbol, stride=8, **values):
    base = {**SHAPES, "rpn_batch_size": 32, "roi_channels": 16, "fc_channels": 16, "max_gt": 5}
    base["proposal"] = ProposalSettings(-1, 0.7, 3, ROIS)
    base["targets"] = TargetSettings(valid_ranges=((0, 30), (20, -1)))
    return DetectorSpec(
        symbol=symbol, feature_stride=stride, batch_images=IMAGES, **{**base, **values}
    )


def train(spec, records, updates=2):
    """Some updates through the loader and the stepper; batches, results and metrics of each."""
    contract = batch_contract(spec, CHIP)
    symbol = build_detector(spec, train=True)
    shapes = contract.input_shapes(IMAGES)
    arg, aux, _ = initialise(symbol, shapes, None, seed=0, init="scratch")
    before = {name: value.asnumpy() for name, value in arg.items()}
    settings = StepSettings(lr=0.01)
    stepper = Stepper(spec, symbol, [mx.cpu()], shapes, arg, aux, settings)
    metrics = Metrics(batch_metrics(spec))
    chips = ChipSettings((2.0, 1.0), ((0, 30), (20, -1)), CHIP)
    batches = BatchSettings(contract, (1, 2, 3))
    with TrainLoader(records, chips, batches, batch_size=IMAGES, num_workers=1, seed=0) as loader:
        loader.start_epoch(0)
        done = []
        for batch in [next(loader) for _ in range(updates)]:
            result = stepper.step(batch)
            assert result.updated
            label = {name: array.copy() for name, array in batch.label.items()}
            done.append((label, result.outputs, metrics.update(result.outputs, batch.label)))
    after = {name: value.asnumpy() for name, value in stepper.params()[0].items()}
    unchanged = [name for name in before if np.array_equal(before[name], after[name])]
    return done, unchanged


def test_a_new_head_and_backbone_train_through_loader_and_stepper(parts, records):
    done, unchanged = train(make_spec("tiny_centre"), records)
    assert not unchanged
    for label, outputs, metrics in done:
        assert list(label)[-1] == "centre_label"
        assert label["centre_label"].shape == (IMAGES, 64)
        assert np.isfinite(outputs["centre_prob"]).all()
        assert list(metrics)[-2:] == ["CentreAcc", "CentreLogLoss"]
        assert np.isfinite(list(metrics.values())).all()
    assert any((label["centre_label"] == 1).any() for label, *_ in done)


@pytest.mark.parametrize("symbol", ["tiny_centre", "mobilenetv2_centre", "resnet_mx_18_centre"])
def test_a_new_head_stands_on_every_backbone_at_test(parts, symbol):
    stride = 8 if symbol == "tiny_centre" else 16
    spec = make_spec(symbol, stride, width=0.1)
    graph = build_detector(spec, train=False)
    shapes = inference_input_shapes(spec, IMAGES, CHIP, CHIP)
    arg, aux, _ = initialise(graph, shapes, None, seed=0)
    executor = graph.simple_bind(mx.cpu(), grad_req="null", **shapes)
    executor.copy_params_from(arg, aux)
    inputs = {name: mx.nd.ones(shape) for name, shape in shapes.items()}
    inputs["im_info"][:] = (CHIP, CHIP, 1)
    outputs = [output.asnumpy() for output in executor.forward(**inputs)]
    outputs = dict(zip(short_output_names(graph.list_outputs()), outputs))
    found = decode(WindowOutputs(spec, outputs, 1, np.float32([CHIP, CHIP, 1])))
    assert found.boxes.shape == (len(found.scores), 4) and found.scores.shape[1] == 6
    np.testing.assert_array_equal(found.maps["centre"], outputs["centre_map"][1, 1])


def test_the_configuration_takes_a_registered_network(parts):
    overrides = ["symbol", "tiny_centre", "network.RPN_FEAT_STRIDE", "8"]
    cfg = load_config("sniper_res18_toy", overrides)
    contract = batch_settings(cfg).contract
    assert contract.label_names[-2:] == ("gt_boxes", "centre_label")


def test_several_maps_with_their_own_anchors(parts, records):
    spec = make_spec("tiny_pyramid")
    contract = batch_contract(spec, CHIP)
    assert contract.data_names == ("data",)
    shapes = {name: contract.shapes[name] for name in contract.label_names}
    assert shapes == {
        "label_m1": (2 * 16 * 16,),
        "bbox_target_m1": (8, 16, 16),
        "bbox_weight_m1": (8, 16, 16),
        "label_m2": (2 * 8 * 8,),
        "bbox_target_m2": (8, 8, 8),
        "bbox_weight_m2": (8, 8, 8),
    }
    done, unchanged = train(spec, records)
    assert not unchanged
    assert list(done[0][2]) == [
        f"RPN{name}_m{k}" for k in (1, 2) for name in ("Acc", "LogLoss", "L1Loss")
    ]
    assert all((done[0][0][f"label_m{k}"] == 1).any() for k in (1, 2))
    assert is_head("rpn_conv_3x3_m1_weight")


def test_boxes_may_have_more_than_one_class(parts, records):
    done, unchanged = train(make_spec("tiny_fine"), records)
    assert not unchanged
    super_of = np.array(parts.FINE[1].super_of)
    for label, outputs, _ in done:
        fine = label["gt_fine"]
        used = fine[..., 1] >= 0
        assert used.any()
        np.testing.assert_array_equal(super_of[fine[used, 1].astype(int)], fine[used, 0])
        assert outputs["fine_super_prob"].shape == (IMAGES, 3)
        assert outputs["fine_class_prob"].shape == (IMAGES, 6)


def class_gradients(spec, weight):
    """Outputs, and gradients of the layers of the RoI head, for weights of the RoIs."""
    contract = batch_contract(spec, CHIP)
    symbol = build_detector(spec, train=True)
    shapes = contract.input_shapes(IMAGES)
    arg, aux, _ = initialise(symbol, shapes, None, seed=0, init="scratch")
    executor = symbol.simple_bind(mx.cpu(), grad_req="write", **shapes)
    executor.copy_params_from(arg, aux)
    rng = np.random.default_rng(1)
    values = executor.arg_dict
    values["data"][:] = rng.normal(0, 50, shapes["data"])
    values["label"][:] = rng.integers(-1, 2, shapes["label"])
    values["im_info"][:] = (CHIP, CHIP, 1)
    values["valid_ranges"][:] = (0, 512)
    values["gt_boxes"][:] = -1
    values["gt_boxes"][:, 0] = (4, 6, 30, 40, 1)
    if weight is not None:
        values["roi_weight"][:] = weight
    outputs = [output.asnumpy() for output in executor.forward(is_train=True)]
    executor.backward()
    layers = ("cls_score", "bbox_pred", "fc_new_1", "conv_new_1", "tiny_1")
    names = [f"{layer}_{kind}" for layer in layers for kind in ("weight", "bias")]
    return outputs, {name: executor.grad_dict[name].asnumpy() for name in names}


def test_weights_of_rois_scale_the_gradient_of_their_class_loss(parts):
    register_heads("plain", parts.CENTRE[:3])
    plain_outputs, plain = class_gradients(make_spec("tiny_plain"), None)
    spec = make_spec("tiny_weighted")
    for weight in (1.0, 0.5, 0.0):
        outputs, gradients = class_gradients(spec, weight)
        for one, other in zip(outputs, plain_outputs):
            np.testing.assert_array_equal(one, other)
        for kind in ("weight", "bias"):
            ours = gradients[f"cls_score_{kind}"]
            np.testing.assert_array_equal(ours, weight * plain[f"cls_score_{kind}"])
            np.testing.assert_array_equal(
                gradients[f"bbox_pred_{kind}"], plain[f"bbox_pred_{kind}"]
            )
        if weight == 1:
            for name, gradient in gradients.items():
                np.testing.assert_array_equal(gradient, plain[name], err_msg=name)
    rows = np.random.default_rng(0).random((IMAGES, ROIS))
    mixed = class_gradients(spec, rows)[1]["cls_score_bias"]
    parted = sum(
        rows[n, r]
        * class_gradients(spec, np.eye(IMAGES * ROIS)[n * ROIS + r].reshape(rows.shape))[1][
            "cls_score_bias"
        ]
        for n, r in np.ndindex(*rows.shape)
    )
    np.testing.assert_allclose(mixed, parted, rtol=1e-4, atol=1e-7)


def test_starting_values_come_from_the_parts(parts):
    assert is_head("centre_conv_weight") and not is_head("tiny_1_weight")
    small = initial_value("centre_score_weight", (400, 5), 0, "scratch").std()
    hidden = initial_value("centre_conv_weight", (400, 5), 0, "scratch").std()
    assert small == pytest.approx(0.01, rel=0.1) and hidden == pytest.approx(0.63, rel=0.1)


def test_names_that_are_taken_are_refused(parts):
    with pytest.raises(ConfigError, match="backbone of this name"):
        register_backbone("mobilenetv2", parts.Tiny())
    with pytest.raises(ConfigError, match="set of heads of this name"):
        register_heads("e2e", parts.CENTRE)
    register_backbone("a", parts.Tiny())
    register_heads("b_c", parts.CENTRE)
    register_heads("c", parts.CENTRE)
    with pytest.raises(ConfigError, match="a_b_c"):
        register_backbone("a_b", parts.Tiny())


def test_what_does_not_fit_together_says_so(parts):
    with pytest.raises(ConfigError, match="did you mean tiny_centre"):
        network_of("tiny_center")
    register_heads("orphan", parts.CENTRE[2:])
    with pytest.raises(ConfigError, match="needs 'rois'"):
        build_detector(make_spec("tiny_orphan"), train=True)
    with pytest.raises(ConfigError, match="half or whole"):
        network_of("tiny_centre").backbone.level("conv5", 8)
    with pytest.raises(ConfigError, match="no such feature map"):
        batch_contract(make_spec("mobilenetv2_pyramid", 16), CHIP)
    register_heads("twice", (parts.CENTRE[0], parts.CENTRE[0]))
    with pytest.raises(ConfigError, match="suffix"):
        batch_contract(make_spec("tiny_twice"), CHIP)


def test_declarations_need_no_mxnet():
    """Labels, decoding and metrics of every network, and of parts from outside."""
    code = (
        "import sys; sys.modules['mxnet'] = None\n"
        "from sniper.models.assembly import DetectorSpec, batch_contract, batch_metrics\n"
        "from sniper.models.networks import network_names, network_of\n"
        "for name in network_names():\n"
        "    stride = network_of(name).backbone.strides[0]\n"
        "    focus = '_e2e' in name\n"
        "    spec = DetectorSpec(name, 3, (1,), (1,), stride, 1, auto_focus=focus)\n"
        "    assert ('scale_label' in batch_contract(spec, 64).shapes) == focus\n"
        "    batch_metrics(spec)\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "import own_parts\n"
        "spec = DetectorSpec('tiny_centre', 3, (1,), (1,), 8, 1)\n"
        "assert batch_contract(spec, 64).shapes['centre_label'] == (64,)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

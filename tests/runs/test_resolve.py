"""From the configuration to plain values; device lists; shipped recipes."""

import mxnet as mx
import pytest

from sniper.config import load_config, recipe_names
from sniper.errors import ConfigError
from sniper.models.assembly import train_input_shapes
from sniper.runs import resolve as settings
from sniper.runs.devices import Device, devices_of
from sniper.runs.folders import model_folder


@pytest.mark.parametrize(("gpus", "count"), [("", 1), ("cpu", 1), ("cpu,cpu", 2), ("cpu, cpu", 2)])
def test_cpu_devices(gpus, count):
    devices = devices_of(gpus)
    assert devices == [Device("cpu", number) for number in range(count)]
    assert [device.context() for device in devices] == [mx.cpu(i) for i in range(count)]
    assert Device("gpu", 3).context() == mx.gpu(3)


def test_gpus_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match="--set gpus cpu"):
        devices_of("0,63")


@pytest.mark.parametrize("gpus", ["cpu,0", "first", "-1"])
def test_what_is_no_device_is_refused(gpus):
    with pytest.raises(ConfigError, match="ordinals"):
        devices_of(gpus)


def test_fp16_is_off_on_the_cpu():
    cfg = load_config("sniper_res101_e2e")
    assert cfg.TRAIN.fp16
    assert not settings.fp16_in_force(cfg, [Device("cpu")])
    assert settings.fp16_in_force(cfg, [Device("gpu")])
    spec = settings.detector_spec(cfg, train=True, batch_images=16, fp16=True)
    assert spec.loss_scale == 100
    spec = settings.detector_spec(cfg, train=True, batch_images=16, fp16=False)
    assert spec.loss_scale == 1


def test_model_folder_has_the_layout_of_2018():
    cfg = load_config("sniper_res101_e2e")
    folder = model_folder(cfg)
    assert folder.parts[-3:] == ("sniper_res101_bn", "sniper_res101_e2e", "train2014_val2014")


def assert_batches_fit_the_network(cfg):
    """The loader's arrays are the network's inputs, in the same order and with the same shapes."""
    batches = settings.batch_settings(cfg).contract
    spec = settings.detector_spec(cfg, train=True, batch_images=1, fp16=False)
    rpn_only = bool(cfg.TRAIN.ONLY_PROPOSAL)
    shapes = train_input_shapes(spec, cfg.TRAIN.CHIP_SIZE, rpn_only=rpn_only)
    assert {name: shape[1:] for name, shape in shapes.items()} == batches.shapes
    assert list(shapes) == [*batches.data_names, *batches.label_names]


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_describes_a_network_and_its_batches(recipe):
    cfg = load_config(recipe)
    assert_batches_fit_the_network(cfg)
    assert_batches_fit_the_network(load_config(recipe, ["TRAIN.ONLY_PROPOSAL", "True"]))
    for train in (True, False):
        spec = settings.detector_spec(cfg, train=train, batch_images=1, fp16=False)
        assert spec.num_anchors == cfg.network.NUM_ANCHORS
    first = settings.batch_settings(cfg).contract.parts[0]
    # The modules of SSH have no RPN's labels: they make their targets in the network.
    if not cfg.symbol.endswith("_ssh"):
        anchors, *_ = first.targets.shape
        assert anchors == cfg.network.NUM_ANCHORS
    assert len(settings.chip_settings(cfg).scales) == len(spec.targets.valid_ranges)


@pytest.mark.parametrize(
    ("use", "cut"), [("True", True), ("False", False), ("mine", False)], ids=str
)
def test_a_proposal_network_gets_negative_chips_as_in_2018_but_mines_none(use, cut):
    overrides = ["TRAIN.ONLY_PROPOSAL", "True", "TRAIN.USE_NEG_CHIPS", use]
    cfg = load_config("sniper_res101_e2e", overrides)
    assert settings.chip_settings(cfg).use_neg_chips == cut
    assert settings.training_data(cfg).with_negatives == cut
    assert settings.batch_settings(cfg).contract.data_names == ("data",)


def test_masks_and_focus_pixels_reach_the_batches():
    cfg = load_config("sniper_res101_e2e_mask_autofocus")
    batches = settings.batch_settings(cfg).contract
    assert batches.label_names[-3:] == ("gt_boxes", "scale_label", "gt_masks")
    assert batches.shapes["gt_masks"] == (100, 500)
    focus = settings.detector_spec(cfg, train=True, batch_images=1, fp16=False).targets.focus
    assert (focus.low, focus.small, focus.high) == (5, 64, 90)
    rpn = load_config("sniper_res101_e2e_mask_autofocus", ["TRAIN.ONLY_PROPOSAL", "True"])
    assert settings.batch_settings(rpn).contract.label_names == (
        "label",
        "bbox_target",
        "bbox_weight",
    )
    plain = settings.batch_settings(load_config("sniper_res101_e2e")).contract
    assert plain.label_names[-1] == "gt_boxes" and not plain.needs_polygons


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["symbol", "resnext"], "did you mean resnet_mx"),
        (["TRAIN.WITH_MASK", "true"], "no mask head, resnet_mx_101_e2e_mask has one"),
        (["TRAIN.WITH_MASK", "true", "symbol", "mobilenetv2_e2e"], "mobilenetv2_e2e_mask has one"),
        (["network.PADDING", "tf_same"], "network.PADDING"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(overrides, expected):
    with pytest.raises(ConfigError, match=expected):
        settings.batch_settings(load_config("sniper_res101_e2e", overrides))


def test_masks_and_focus_pixels_reach_the_network():
    def spec(recipe, *overrides, train=True):
        cfg = load_config(recipe, list(overrides))
        return settings.detector_spec(cfg, train=train, batch_images=1, fp16=False)

    mask = spec("sniper_res101_e2e_mask", "TRAIN.MAX_GT", "7", "TRAIN.MAX_POLYGON_LEN", "90")
    assert (mask.auto_focus, mask.with_masks) == (False, True)
    assert (mask.max_gt, mask.mask_row_length) == (7, 90)
    both = spec("sniper_res101_e2e_mask_autofocus")
    assert (both.auto_focus, both.with_masks) == (True, True)
    # Training and inference have their own switches.
    overrides = ("TEST.AUTO_FOCUS", "False")
    assert spec("sniper_res101_e2e_autofocus", *overrides).auto_focus
    assert not spec("sniper_res101_e2e_autofocus", *overrides, train=False).auto_focus
    assert spec("sniper_res101_e2e_mask", train=False).with_masks


def test_mask_training_uses_the_proposals_of_2018():
    def pre_nms(recipe, *overrides):
        return load_config(recipe, list(overrides)).TRAIN.PROPOSAL_OP.pre_nms_top_n

    assert pre_nms("sniper_res101_e2e") == -1
    assert pre_nms("sniper_res101_e2e_mask") == 6000
    assert pre_nms("sniper_res101_e2e_mask", "TRAIN.PROPOSAL_OP.pre_nms_top_n", "-1") == -1
    assert pre_nms("sniper_res101_e2e_mask", "TRAIN.WITH_MASK", "False") == -1


def test_pixels_are_those_of_2018_unless_asked_otherwise():
    assert not settings.batch_settings(load_config("sniper_res101_e2e")).reduced_decoding
    cfg = load_config("sniper_res101_e2e", ["TRAIN.REDUCED_DECODING", "True"])
    assert settings.batch_settings(cfg).reduced_decoding


def test_workers_are_never_more_than_the_cores(monkeypatch):
    monkeypatch.setattr(settings, "usable_cores", lambda: 2)
    counts = []
    for wanted in ("64", "1", "0", "-1"):
        cfg = load_config("sniper_res101_e2e", ["TRAIN.NUM_PROCESS", wanted])
        counts.append(settings.worker_count(cfg))
    assert counts == [2, 1, 0, 2]

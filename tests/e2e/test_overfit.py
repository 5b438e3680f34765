"""Every network learns four images by heart: AP of at least 0.9 on its own training images.

The networks are those of the recipes at an eighth of their width or so, from scratch (the frozen
batch norms need a start: they go on from a trained network), with every head that they can have.
"""

import json
import logging

import pytest

from sniper.tools.test import main as test_main
from sniper.tools.toy.settings import SceneSettings, ToySettings
from sniper.tools.toy.writer import make_toy_data
from sniper.tools.train import main as train_main

AP_WANTED = 0.9
RECIPE = """
_BASE_: sniper_mobilenetv2_toy
output_path: {root}/output
network:
  ACTIVATION: relu6
  RPN_CHANNELS: 32
  ROI_CHANNELS: 32
  FC_CHANNELS: 128
  BN_MOMENTUM: 0.8
  ANCHOR_SCALES: [2, 3, 4.5]
dataset: {{root_path: {root}, dataset_path: {root}/toy, NUM_CLASSES: 3, test_image_set: train}}
TRAIN:
  CHIP_SIZE: 128
  SCALES: [128.0]
  VALID_RANGES: [[-1, -1]]
  FLIP: false
  end_epoch: 9999
  MAX_UPDATES: 400
  lr: 0.02
  lr_step: '320u'
  warmup_step: 20
  warmup_lr: 0.005
  wd: 0
  BATCH_IMAGES: 4
  KEEP_CHECKPOINTS: 1
  NUM_PROCESS: 0
  bbox_loss_divisor: 10
  AUTO_FOCUS_DC_LOW: 5
  AUTO_FOCUS_SMALL_THRESH: 40
  AUTO_FOCUS_DC_HIGH: 60
  PROPOSAL_OP: {{pre_nms_top_n: -1, nms_thresh: 0.7, min_size: 3, post_nms_top_n: 32}}
TEST:
  SCALES: [[128, 128]]
  VALID_RANGES: [[-1, -1]]
  BATCH_IMAGES: [4]
  NMS: 0.5
  PROPOSAL_OP: {{pre_nms_top_n: -1, nms_thresh: 0.7, min_size: 3, post_nms_top_n: 32}}
"""
SMALL_BATCH = {
    "TRAIN.BATCH_IMAGES": 2,
    "TRAIN.ACCUMULATION_STEPS": 2,
    "TRAIN.bbox_loss_divisor": 20,
}
EVERY_HEAD = {"TRAIN.AUTO_FOCUS": True, "TRAIN.WITH_MASK": True}
VARIANTS = {
    "mobilenetv2_e2e": {"network.WIDTH": 0.25},
    "resnet_mx_18_e2e_mask": {"network.WIDTH": 0.25, **EVERY_HEAD},
    "resnet_mx_18_e2e": {"network.WIDTH": 0.25, **SMALL_BATCH},
    "resnet_mx_50_e2e": {"network.WIDTH": 0.125, "TRAIN.AUTO_FOCUS": True},
    "resnet_mx_101_e2e": {"network.WIDTH": 0.125},
    "resnet_mx_50_e2e_mask": {"network.WIDTH": 0.125, "TRAIN.WITH_MASK": True},
    "resnet_mx_101_e2e_mask": {"network.WIDTH": 0.125, **EVERY_HEAD},
    "mobilenetv2_e2e_mask": {"network.WIDTH": 0.25, **EVERY_HEAD},
}
IN_DEFAULT_SUITE = ("mobilenetv2_e2e", "resnet_mx_18_e2e_mask")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("overfit")
    scene = SceneSettings(
        classes=2,
        long_side_px=128,
        min_size_px=28,
        max_size_px=70,
        min_objects=1,
        max_objects=3,
    )
    settings = ToySettings(train=4, val=1, test=0, test_dev=0, scene=scene)
    make_toy_data(root / "toy", settings, workers=1, progress=lambda _: None)
    (root / "overfit.yml").write_text(RECIPE.format(root=root))
    return root


def overfit(root, name, keys):
    """Trains and tests on the same images; returns the report and the weights' prefix."""
    output = root / name
    words = [word for pair in {**keys, "output_path": output}.items() for word in map(str, pair)]
    arguments = ["--cfg", str(root / "overfit.yml"), "--set", *words]
    logging.disable(logging.INFO)  # an epoch is one batch here
    try:
        assert train_main(arguments) == 0
        folder = output / "overfit" / "train"
        (weights,) = folder.glob("SNIPER-????.params")
        epoch = weights.stem[-4:].lstrip("0")
        assert test_main([*arguments, "TEST.TEST_EPOCH", epoch]) == 0
    finally:
        logging.disable(logging.NOTSET)
    report = json.loads((output / "results" / "detections_train_report.json").read_text())
    return report, weights


@pytest.mark.parametrize(
    "symbol",
    [
        pytest.param(symbol, marks=[] if symbol in IN_DEFAULT_SUITE else [pytest.mark.slow])
        for symbol in VARIANTS
    ],
)
def test_network_learns_four_images(root, symbol):
    report, _ = overfit(root, symbol, {"symbol": symbol, **VARIANTS[symbol]})
    assert report["ap"] >= AP_WANTED, report


@pytest.mark.slow
def test_frozen_batch_norms_learn_four_images(root):
    keys = {"symbol": "resnet_mx_18_e2e", "network.WIDTH": 0.25}
    _, weights = overfit(root, "start", {**keys, "TRAIN.MAX_UPDATES": 60, "TRAIN.lr_step": ""})
    prefix, epoch = str(weights)[: -len("-0000.params")], int(weights.stem[-4:])
    frozen = {
        "network.BN_MODE": "frozen",
        "network.pretrained": prefix,
        "network.pretrained_epoch": epoch,
    }
    report, _ = overfit(root, "frozen", {**keys, **frozen})
    assert report["ap"] >= AP_WANTED, report

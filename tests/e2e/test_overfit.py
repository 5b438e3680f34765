"""Networks learn four images by heart, at a quarter or an eighth of their width (fp32, on a CPU).

Training and test have to see the same, or the box head meets RoIs that it was never trained on:

* The images are as large as a chip. Smaller ones are padded less at test time than in training, and
  convolutions look into the padding.
* `LEGACY_AREAS` and `LEGACY_MIN_SIZE` are off. With the areas of 2018 the NMS of the training drops
  proposals that the test keeps.
* The test takes half as many proposals: in training ground-truth boxes stand in the last places.
"""

import json
import logging

import numpy as np
import pytest

from sniper.chips import sampler
from sniper.models.initialisers import is_head
from sniper.models.weights import read_params, write_params
from sniper.tools.test import main as run_test
from sniper.tools.toy.picture import encode_jpeg
from sniper.tools.toy.scene import SceneSettings, render_scene
from sniper.tools.toy.shapes import CLASSES
from sniper.tools.train import main as run_train

SIDE_PX = 128
SCENE = SceneSettings(classes=2, min_objects=2, max_objects=3, min_size_px=56, max_size_px=110)
RECIPE = """
_BASE_: sniper_mobilenetv2_toy
output_path: {root}/output
network:
  WIDTH: 0.25
  ACTIVATION: relu6
  RPN_CHANNELS: 32
  ROI_CHANNELS: 32
  FC_CHANNELS: 128
  BN_MOMENTUM: 0.8
  ANCHOR_SCALES: [4, 5, 6.5]
dataset: {{root_path: {root}, dataset_path: {root}/four, NUM_CLASSES: 3, test_image_set: train}}
TRAIN:
  CHIP_SIZE: 128
  SCALES: [128.0]
  VALID_RANGES: [[-1, -1]]
  FLIP: false
  end_epoch: 9999
  MAX_UPDATES: 400
  lr: 0.006
  lr_step: '330u'
  warmup_step: 20
  warmup_lr: 0.006
  wd: 0
  BATCH_IMAGES: 4
  KEEP_CHECKPOINTS: 1
  NUM_PROCESS: 0
  bbox_loss_divisor: 12
  LEGACY_GT_CENTRE: false
  LEGACY_AREAS: false
  LEGACY_MIN_SIZE: false
  AUTO_FOCUS_DC_LOW: 5
  AUTO_FOCUS_SMALL_THRESH: 80
  AUTO_FOCUS_DC_HIGH: 100
  PROPOSAL_OP: {{pre_nms_top_n: -1, nms_thresh: 0.7, min_size: 3, post_nms_top_n: 32}}
TEST:
  SCALES: [[128, 128]]
  VALID_RANGES: [[-1, -1]]
  BATCH_IMAGES: [4]
  NMS: 0.5
  NMS_SIGMA: -1
  PROPOSAL_OP: {{pre_nms_top_n: -1, nms_thresh: 0.7, min_size: 3, post_nms_top_n: 16}}
"""


WIDTHS = {"resnet_mx_18": 0.25, "resnet_mx_50": 0.125, "resnet_mx_101": 0.125, "mobilenetv2": 0.25}
IN_DEFAULT_SUITE = "resnet_mx_18"
# What is enough for that one. An epoch, with its checkpoint, takes as long as some updates.
TIMES = 25
SHORT = {"TRAIN.MAX_UPDATES": 200, "TRAIN.lr_step": "160u", "dataset.image_set": "often"}
MASKS_AND_FOCUS = {
    "TRAIN.WITH_MASK": True,
    "TRAIN.AUTO_FOCUS": True,
    "TRAIN.MAX_UPDATES": 800,
    "TRAIN.lr_step": "700u",
}
# Fine-tuning with frozen batch norms, and the same one image at a time: the losses of four batches
# are averaged, so each is divided by a quarter.
FROZEN = {"network.BN_MODE": "frozen"}
ONE_IMAGE = {
    "TRAIN.BATCH_IMAGES": 1,
    "TRAIN.ACCUMULATION_STEPS": 4,
    "TRAIN.GRADIENT_REDUCTION": "mean",
    "TRAIN.bbox_loss_divisor": 3,
}
# Batch norms that see two of the four images at a time.
TWO_IMAGES = {
    "TRAIN.BATCH_IMAGES": 2,
    "TRAIN.ACCUMULATION_STEPS": 2,
    "TRAIN.GRADIENT_REDUCTION": "mean",
    "TRAIN.bbox_loss_divisor": 6,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("overfit")
    write_images(root / "four", seed=7)
    write_images(root / "others", seed=4)
    (root / "overfit.yml").write_text(RECIPE.format(root=root))
    return root


def write_images(folder, seed):
    """COCO data sets: `train` has four square scenes, `often` the same ones many times."""
    (folder / "annotations").mkdir(parents=True)
    scenes = [
        render_scene(np.random.default_rng([seed, number]), SCENE, (SIDE_PX, SIDE_PX))
        for number in range(1, 5)
    ]
    write_set(folder, "train", scenes)
    write_set(folder, "often", scenes * TIMES)


def write_set(folder, name, scenes):
    (folder / "images" / name).mkdir(parents=True)
    images, annotations = [], []
    for number, scene in enumerate(scenes, 1):
        path = folder / "images" / name / f"{number}.jpg"
        path.write_bytes(encode_jpeg(scene.image, 95))
        image = {"id": number, "file_name": path.name, "width": SIDE_PX, "height": SIDE_PX}
        images.append(image)
        annotations += [
            {
                "id": 10 * number + k,
                "image_id": number,
                "category_id": item.kind.category_id,
                "bbox": [float(v) for v in item.box],
                "area": float(item.area),
                "iscrowd": 0,
                "segmentation": item.polygons,
            }
            for k, item in enumerate(scene.objects)
        ]
    categories = [{"id": c.category_id, "name": c.name} for c in CLASSES[: SCENE.classes]]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def backbone(root):
    """`network.pretrained`: the backbone of a network that has learned other images."""
    keys = {**network("resnet_mx_18"), "dataset.dataset_path": root / "others"}
    weights, _ = overfit(root, "others", keys)
    arg, aux = read_params(weights)
    arg = {name: value for name, value in arg.items() if not is_head(name.removesuffix("_test"))}
    write_params(root / "backbone-0000.params", arg, aux)
    return root / "backbone"


def network(backbone, heads="e2e"):
    return {"symbol": f"{backbone}_{heads}", "network.WIDTH": WIDTHS[backbone]}


def overfit(root, name, keys):
    """Trains, tests on the training images; returns the path of the weights and the report."""
    output = root / name
    words = [word for pair in {**keys, "output_path": output}.items() for word in map(str, pair)]
    arguments = ["--cfg", str(root / "overfit.yml"), "--set", *words]
    logging.disable(logging.INFO)  # an epoch is one update here
    try:
        assert run_train(arguments) == 0
        (weights,) = output.glob("overfit/*/SNIPER-[0-9][0-9][0-9][0-9].params")
        epoch = weights.stem[-4:].lstrip("0")
        assert run_test([*arguments, "TEST.TEST_EPOCH", epoch]) == 0
    finally:
        logging.disable(logging.NOTSET)
    report = json.loads((output / "results" / "detections_train_report.json").read_text())
    return weights, report


def in_order(counts, **_):
    """Every batch holds each of the scenes, which have one chip."""
    assert (counts == 1).all()
    return np.stack([np.arange(len(counts)), np.zeros_like(counts)], axis=1).astype(np.int32)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == IN_DEFAULT_SUITE else pytest.mark.slow)
        for name in WIDTHS
    ],
)
def test_network_learns_four_images(root, name, monkeypatch):
    short = SHORT if name == IN_DEFAULT_SUITE else {}
    if short:
        monkeypatch.setattr(sampler, "training_order", in_order)
    _, report = overfit(root, name, {**network(name), **short})
    assert report["ap"] >= 0.9, report


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", WIDTHS)
def test_network_learns_boxes_masks_and_focus_together(root, name):
    _, report = overfit(root, f"{name}_masks", {**network(name, "e2e_mask"), **MASKS_AND_FOCUS})
    assert report["ap"] >= 0.9, report
    assert report["masks"]["ap50"] >= 0.9, report["masks"]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [{}, ONE_IMAGE], ids=["four_images", "one_image"])
def test_frozen_batch_norms_learn_four_images(root, backbone, batch):
    keys = {**network("resnet_mx_18"), "network.pretrained": backbone, **FROZEN, **batch}
    _, report = overfit(root, f"frozen{len(batch)}", keys)
    assert report["ap"] >= 0.9, report


@pytest.mark.slow
def test_small_batches_learn_four_images(root):
    _, report = overfit(root, "two_images", {**network("resnet_mx_18"), **TWO_IMAGES})
    assert report["ap"] >= 0.9, report

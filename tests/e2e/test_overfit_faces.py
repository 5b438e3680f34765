"""SSH learns four pictures by heart, at a quarter or an eighth of its width (fp32, on a CPU)."""

import json

import cv2
import pytest

from sniper.tools.test import main as run_test
from sniper.tools.toy.face_scene import FaceSceneSettings
from sniper.tools.toy.face_set import FaceSetSettings, make_face_set
from sniper.tools.train import main as run_train

SIDE_PX = 192
# Every anchor that looks at test is told what it is: those between two thresholds, or too far out,
# would say what they like.
RECIPE = """
_BASE_: ssh_vgg16_wider
output_path: {root}/output
gpus: cpu
network: {{pretrained: '', FIXED_PARAMS: [upsampling], INIT: scratch, BN_MOMENTUM: 0.8,
  RPN_CHANNELS: 64, ANCHOR_SCALES: [0.75, 1.25, 2, 3.25, 5, 8]}}
dataset: {{root_path: {root}, dataset_path: {root}/four, test_image_set: train}}
TRAIN:
  CHIP_SIZE: {side}
  SCALES: [{side}.0]
  VALID_RANGES: [[-1, -1]]
  FLIP: false
  LEGACY_BOXES: false
  NUM_PROCESS: 0
  KEEP_CHECKPOINTS: 1
  lr_step: '250u'
  warmup: true
  wd: 0
  end_epoch: 9999
  MAX_UPDATES: 300
  BATCH_IMAGES: 4
  ACCUMULATION_STEPS: 1
  REFERENCE_REPLICAS: 1
  RPN_BATCH_SIZE: 64
  RPN_POSITIVE_OVERLAP: 0.4
  RPN_NEGATIVE_OVERLAP: 0.4
  RPN_ALLOWED_BORDER: 32
TEST:
  SCALES: [[{side}, {side}]]
  VALID_RANGES: [[-1, -1]]
  BATCH_IMAGES: [4]
  DO_PRUNING: [false]
  CHIP_HYPERPARAMS: [[-1, -1, -1]]
  USE_CACHE: [false]
  SKIP_STRIDES: []
"""
# Width, rate, and updates of the warm-up from a tenth of it: without norms a training is at the
# mercy of its rate, and VGG-16 lost at twice this one what it had learned, on some processors.
NETWORKS = {
    "resnet_mx_50_ssh": (0.125, 0.02, 30),
    "mobilenetv2_ssh": (0.5, 0.02, 30),
    "vgg16_ssh": (0.25, 0.001, 60),
}


def make_square(folder):
    """The pictures are as large as a chip: windows of a test are padded less, and maps differ."""
    for path in folder.rglob("*.jpg"):
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        side = max(height, width)
        margins = (0, side - height, 0, side - width)
        assert cv2.imwrite(str(path), cv2.copyMakeBorder(image, *margins, cv2.BORDER_REPLICATE))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("symbol", NETWORKS)
def test_network_learns_four_pictures(tmp_path, symbol):
    scene = FaceSceneSettings(min_size_px=20, max_size_px=120, long_side_px=SIDE_PX)
    make_face_set(tmp_path / "four", FaceSetSettings(4, 0, 0, seed=4, scene=scene))
    make_square(tmp_path / "four")
    recipe = tmp_path / "overfit.yml"
    recipe.write_text(RECIPE.format(root=tmp_path, side=SIDE_PX))
    width, rate, warmup = NETWORKS[symbol]
    keys = ["symbol", symbol, "network.WIDTH", str(width), "TRAIN.lr", str(rate)]
    keys += ["TRAIN.warmup_lr", str(rate / 10), "TRAIN.warmup_step", str(warmup)]
    arguments = ["--cfg", str(recipe), "--set", *keys]
    assert run_train(arguments) == 0
    (weights,) = (tmp_path / "output" / "overfit" / "train").glob("SNIPER-[0-9]*[0-9].params")
    epoch = weights.stem[-4:].lstrip("0")
    assert run_test([*arguments, "TEST.TEST_EPOCH", epoch]) == 0
    report = tmp_path / "output" / "results" / "detections_train_report.json"
    assert json.loads(report.read_text())["ap"] >= 0.9

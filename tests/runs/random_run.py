"""A run folder with random weights, as training leaves it, for tests that only need detections."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np

from sniper.config import load_config, save_config
from sniper.models.assembly import build_detector, train_input_shapes
from sniper.models.weights import initialise, with_test_params, write_params
from sniper.runs.resolve import detector_spec

NAMES = ["__background__", *(f"thing {index}" for index in range(1, 11))]
SMALL = [
    *("network.WIDTH", "0.25", "network.FC_CHANNELS", "16", "network.ROI_CHANNELS", "16"),
    *("network.RPN_CHANNELS", "16", "TEST.SCALES", "[[128, 192], [64, 96]]"),
    *("TEST.VALID_RANGES", "[[-1, 40], [10, -1]]", "TEST.BATCH_IMAGES", "[2, 3]"),
    *("TEST.PROPOSAL_OP.post_nms_top_n", "20", "TEST.MAX_PER_IMAGE", "30"),
]
# Of faces: as the shipped recipe looks, at a few sizes that cost little.
SMALL_SSH = [
    *("symbol", "mobilenetv2_ssh", "gpus", "cpu", "network.WIDTH", "0.25"),
    *("network.RPN_CHANNELS", "16", "TEST.SINGLE_SCALE", "[96, 144]"),
    *("TEST.SCALES", "[[48, 72], [96, 144], [144, 216]]", "TEST.SKIP_STRIDES", "[[], [], [32]]"),
    *("TEST.VALID_RANGES", "[[-1, -1], [-1, -1], [-1, -1]]", "TEST.BATCH_IMAGES", "[1, 1, 1]"),
    *("TEST.DO_PRUNING", "[False, False, False]", "TEST.USE_CACHE", "[False, False, False]"),
    *("TEST.CHIP_HYPERPARAMS", "[[1, 0.4, 4], [1, 0.4, 4], [1, 0.4, 4]]"),
    *("TEST.PROPOSAL_OP.pre_nms_top_n", "40"),
]
MASKS = ["symbol", "mobilenetv2_e2e_mask", "TRAIN.WITH_MASK", "True"]


def random_ssh(root, overrides=(), seed=3):
    """The same for a small network of SSH."""
    names = ["__background__", "face"]
    return random_run(root, overrides, seed, recipe="ssh_vgg16_wider", small=SMALL_SSH, names=names)


def random_run(
    root, overrides=(), seed=3, *, recipe="sniper_mobilenetv2_toy", small=SMALL, names=NAMES
):
    """`recipe` (a yml file), `cfg`, `weights` (in their place) and class `names`."""
    cfg = load_config(recipe, [*small, "output_path", str(root / "output"), *overrides])
    spec = detector_spec(cfg, train=True, batch_images=1, fp16=False)
    arg, aux, _ = initialise(
        build_detector(spec, train=True), train_input_shapes(spec, 64), None, seed
    )
    rng = np.random.default_rng(seed)
    for name, value in arg.items():
        # Random heads give boxes and classes that differ from each other.
        if name.startswith(("rpn_", "cls_", "bbox_", "mask_out")):
            value[:] = rng.normal(0, 0.1, value.shape)
    folder = root / "output" / cfg.name / "train"
    weights = folder / "SNIPER-0002.params"
    write_params(weights, with_test_params(arg), aux)
    (folder / "classes.json").write_text(json.dumps(names))
    save_config(cfg, folder / "config.yml")
    return SimpleNamespace(recipe=folder / "config.yml", cfg=cfg, weights=weights, names=names)

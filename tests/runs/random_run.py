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
MASKS = ["symbol", "mobilenetv2_e2e_mask", "TRAIN.WITH_MASK", "True"]


def random_run(root, overrides=(), seed=3):
    """`recipe` (a yml file), `cfg`, `weights` (in their place) and class `names`."""
    overrides = [*SMALL, "output_path", str(root / "output"), *overrides]
    cfg = load_config("sniper_mobilenetv2_toy", overrides)
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
    (folder / "classes.json").write_text(json.dumps(NAMES))
    save_config(cfg, folder / "config.yml")
    return SimpleNamespace(recipe=folder / "config.yml", cfg=cfg, weights=weights, names=NAMES)

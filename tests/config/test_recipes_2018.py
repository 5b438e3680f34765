"""The seven recipes of 2018: every key of every file, in our form and in the form of 2018.

The tables below were copied from the description of the 2018 files by hand, apart from the recipes
and from the schema, so that a slip in one of them shows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sniper.config import SCHEMA, dump_config, load_config, save_config

REPO = Path(__file__).resolve().parents[2]
OURS = REPO / "configs" / "faster"
FIXTURES = Path(__file__).parent / "data"

R101, VOC, R50, MOB, MASK, AF, MAF = FILES_2018 = (
    "sniper_res101_e2e",
    "sniper_res101_e2e_pascal_voc",
    "sniper_res50_e2e",
    "sniper_mobilenetv2_e2e",
    "sniper_res101_e2e_mask",
    "sniper_res101_e2e_autofocus",
    "sniper_res101_e2e_mask_autofocus",
)
AUTOFOCUS = (AF, MAF)

# Written in the 2018 files (TRAIN.SCALES: what the files say, not what COCO runs use).
IN_ALL_FILES = {
    "MXNET_VERSION": "mxnet",
    "gpus": "0,1,2,3,4,5,6,7",
    "CLASS_AGNOSTIC": True,
    "default.kvstore": "device",
    "network.pretrained_epoch": 0,
    "network.PIXEL_MEANS": [103.939, 116.779, 123.68],
    "network.RPN_FEAT_STRIDE": {MOB: 32, "": 16},
    "network.FIXED_PARAMS": {
        MOB: "conv1 bn_conv1 res2 bn2 res3 bn3 res4 bn4 gamma beta".split(),
        "": ["conv0", "bn0", "stage1"],
    },
    "network.ANCHOR_RATIOS": [0.5, 1, 2],
    "network.ANCHOR_SCALES": {MOB: [1, 2, 4, 8, 12], "": [2, 4, 7, 10, 13, 16, 24]},
    "network.NUM_ANCHORS": {MOB: 15, "": 21},
    "network.pretrained": {
        R50: "./data/pretrained_model/resnet_mx_50_imgnet",
        MOB: "./data/pretrained_model/mobilenetv2",
        "": "./data/pretrained_model/resnet_mx_101_open",
    },
    "output_path": {
        R101: "./output/sniper_res101_bn",
        VOC: "./output/sniper_res101_bn",
        R50: "./output/sniper_res50_bn",
        MOB: "./output/sniper_mobilenetv2_bn",
        MASK: "./output/sniper_res_101_bn_mask",
        AF: "./output/sniper_res101_bn_autofocus",
        MAF: "./output/sniper_res_101_bn_mask_autofocus",
    },
    "symbol": {
        MASK: "resnet_mx_101_e2e_mask",
        MAF: "resnet_mx_101_e2e_mask",
        R50: "resnet_mx_50_e2e",
        MOB: "mobilenetv2_e2e",
        "": "resnet_mx_101_e2e",
    },
    "dataset.dataset": {VOC: "PascalVOC", "": "coco"},
    "dataset.image_set": {
        VOC: "2007_trainval+2012_trainval",
        AF: "train2014+valminusminival2014",
        MAF: "train2014+valminusminival2014",
        "": "train2014+val2014",
    },
    "dataset.test_image_set": {
        VOC: "2007_test",
        AF: "minival2014",
        MAF: "minival2014",
        "": "test-dev2015",
    },
    "dataset.root_path": "./data",
    "dataset.dataset_path": {VOC: "./data/VOCdevkit", "": "./data/coco"},
    "dataset.NUM_CLASSES": {VOC: 21, "": 81},
    "dataset.proposal": "rpn",
    "TRAIN.CPP_CHIPS": True,
    "TRAIN.CHIPS_DB_PARTS": 20,
    "TRAIN.NUM_PROCESS": {VOC: 32, "": 64},
    "TRAIN.NUM_THREAD": 8,
    "TRAIN.WITH_MASK": {MASK: True, MAF: True, "": False},
    "TRAIN.SCALES": [(1400, 2000), (800, 1280), (-1, 512)],
    "TRAIN.VALID_RANGES": [(-1, 80), (32, 150), (120, -1)],
    "TRAIN.lr": {MOB: 0.025, "": 0.015},
    "TRAIN.lr_step": "5.33",
    "TRAIN.warmup": True,
    "TRAIN.warmup_lr": 0.0005,
    "TRAIN.warmup_step": {MOB: 9000, "": 1000},
    "TRAIN.wd": 0.0001,
    "TRAIN.fp16": True,
    "TRAIN.scale": 100.0,
    "TRAIN.begin_epoch": 0,
    "TRAIN.end_epoch": 7,
    "TRAIN.FLIP": True,
    "TRAIN.SHUFFLE": True,
    "TRAIN.BATCH_IMAGES": {MOB: 42, MASK: 10, MAF: 10, "": 16},
    "TRAIN.END2END": True,
    "TRAIN.BATCH_ROIS": -1,
    "TRAIN.FG_FRACTION": 0.25,
    "TRAIN.BBOX_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "TRAIN.RPN_CLOBBER_POSITIVES": False,
    "TRAIN.RPN_BBOX_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "TRAIN.RPN_POSITIVE_WEIGHT": -1.0,
    "TRAIN.CXX_PROPOSAL": False,
    "TRAIN.RPN_NMS_THRESH": 0.7,
    "TRAIN.RPN_PRE_NMS_TOP_N": 6000,
    "TRAIN.RPN_POST_NMS_TOP_N": 300,
    "TRAIN.RPN_MIN_SIZE": 0,
    "TRAIN.BATCH_ROIS_OHEM": 256,
    "TRAIN.FG_THRESH": 0.5,
    "TRAIN.BG_THRESH_HI": 0.5,
    "TRAIN.BG_THRESH_LO": 0.0,
    "TRAIN.BBOX_REGRESSION_THRESH": 0.5,
    "TRAIN.RPN_BATCH_SIZE": 256,
    "TRAIN.RPN_FG_FRACTION": 0.5,
    "TRAIN.RPN_POSITIVE_OVERLAP": 0.5,
    "TRAIN.RPN_NEGATIVE_OVERLAP": 0.4,
    "TRAIN.BBOX_NORMALIZATION_PRECOMPUTED": True,
    "TRAIN.BBOX_MEANS": [0.0, 0.0, 0.0, 0.0],
    "TRAIN.BBOX_STDS": [0.1, 0.1, 0.2, 0.2],
    "TEST.SCALES": {
        AF: [(480, 512), (800, 1280), (1400, 2000)],
        MAF: [(480, 512), (800, 1280), (1400, 2000)],
        "": [(1400, 2000), (800, 1280), (480, 512)],
    },
    "TEST.VALID_RANGES": {
        AF: [(75, -1), (32, 180), (-1, 75)],
        MAF: [(75, -1), (32, 180), (-1, 75)],
        "": [(-1, 90), (32, 180), (75, -1)],
    },
    "TEST.BATCH_IMAGES": {AF: [8, 8, 2], MAF: [8, 8, 2], "": [2, 2, 4]},
    "TEST.CONCURRENT_JOBS": 2,
    "TEST.MAX_PER_IMAGE": 200,
    "TEST.NMS": -1,
    "TEST.NMS_SIGMA": 0.55,
    "TEST.TEST_EPOCH": 7,
    "TEST.HAS_RPN": True,
    "TEST.PROPOSAL_NMS_THRESH": 0.7,
    "TEST.PROPOSAL_PRE_NMS_TOP_N": 20000,
    "TEST.PROPOSAL_POST_NMS_TOP_N": 2000,
    "TEST.PROPOSAL_MIN_SIZE": 0,
    "TEST.RPN_NMS_THRESH": 0.7,
    "TEST.RPN_PRE_NMS_TOP_N": 6000,
    "TEST.RPN_MIN_SIZE": 0,
    "TEST.RPN_POST_NMS_TOP_N": 300,
    "TEST.VISUALIZATION_PATH": "./debug/visualization",
    "TEST.VISUALIZE_INTERMEDIATE_SCALES": False,
    "TEST.EXTRACT_PROPOSALS": False,
    "TEST.PROPOSAL_SAVE_PATH": "output/proposals",
    "TEST.N_PROPOSAL_PER_SCALE": 300,
}
IN_AUTOFOCUS_FILES = {
    "TRAIN.AUTO_FOCUS": True,
    "TRAIN.AUTO_FOCUS_SMALL_THRESH": 64,
    "TRAIN.AUTO_FOCUS_DC_LOW": 5,
    "TRAIN.AUTO_FOCUS_DC_HIGH": 90,
    "TEST.AUTO_FOCUS": True,
    "TEST.DO_PRUNING": [False, True, True],
    "TEST.CHIP_HYPERPARAMS": [(3, 0.02, 16), (3, 0.2, 20), (-1, -1, -1)],
    "TEST.USE_CACHE": [False, False, False],
}
# Absent from at least one 2018 file: the 2018 defaults hold there.
DEFAULTS_2018 = {
    "proposal_path": "data/proposals",
    "TRAIN.ONLY_PROPOSAL": False,
    "TRAIN.USE_NEG_CHIPS": True,
    "TRAIN.AUTO_FOCUS": False,
    "TRAIN.AUTO_FOCUS_SMALL_THRESH": -1,
    "TRAIN.AUTO_FOCUS_DC_LOW": -1,
    "TRAIN.AUTO_FOCUS_DC_HIGH": -1,
    "TRAIN.lr_factor": 0.1,
    "TRAIN.momentum": 0.9,
    "TRAIN.model_prefix": "",
    "TRAIN.ENABLE_OHEM": False,
    "TRAIN.visualization_path": "debug/visualization",
    "TRAIN.visualization_freq": 100,
    "TEST.TEST_FLAG": False,
    "TEST.CXX_PROPOSAL": True,
    "TEST.max_per_image": 300,
    "TEST.test_epoch": 0,
    "TEST.AUTO_FOCUS": False,
    "TEST.DO_PRUNING": [False, False, False],
    "TEST.CHIP_HYPERPARAMS": [(-1, -1, -1)] * 3,
    "TEST.USE_CACHE": [False, False, False],
}
# The defaults of keys that every 2018 file sets; {"": ...} of the tables above does not apply.
OTHER_DEFAULTS_2018 = {
    "MXNET_VERSION": "",
    "gpus": "",
    "CLASS_AGNOSTIC": True,
    "default.kvstore": "device",
    "network.pretrained": "",
    "network.pretrained_epoch": 0,
    "network.PIXEL_MEANS": [0, 0, 0],
    "network.RPN_FEAT_STRIDE": 16,
    "network.FIXED_PARAMS": ["gamma", "beta"],
    "network.ANCHOR_RATIOS": [0.5, 1, 2],
    "network.ANCHOR_SCALES": [8, 16, 32],
    "network.NUM_ANCHORS": 9,
    "dataset.dataset": "PascalVOC",
    "dataset.image_set": "2007_trainval",
    "dataset.test_image_set": "2007_test",
    "dataset.root_path": "./data",
    "dataset.dataset_path": "./data/VOCdevkit",
    "dataset.NUM_CLASSES": 21,
    "TRAIN.CPP_CHIPS": False,
    "TRAIN.CHIPS_DB_PARTS": 20,
    "TRAIN.WITH_MASK": False,
    "TRAIN.SCALES": [3.0, 1.667, 512.0],
    "TRAIN.VALID_RANGES": [(-1, 80), (32, 150), (120, -1)],
    "TRAIN.lr": 0.0,
    "TRAIN.lr_step": "",
    "TRAIN.warmup": False,
    "TRAIN.warmup_lr": 0.0,
    "TRAIN.warmup_step": 0,
    "TRAIN.wd": 0.0005,
    "TRAIN.fp16": False,
    "TRAIN.scale": 1.0,
    "TRAIN.begin_epoch": 0,
    "TRAIN.end_epoch": 0,
    "TRAIN.FLIP": True,
    "TRAIN.SHUFFLE": True,
    "TRAIN.BATCH_IMAGES": 2,
    "TRAIN.END2END": False,
    "TRAIN.BATCH_ROIS": 128,
    "TRAIN.FG_FRACTION": 0.25,
    "TRAIN.BBOX_WEIGHTS": [1, 1, 1, 1],
    "TRAIN.RPN_CLOBBER_POSITIVES": False,
    "TRAIN.RPN_BBOX_WEIGHTS": [1, 1, 1, 1],
    "TRAIN.RPN_POSITIVE_WEIGHT": -1.0,
    "TRAIN.CXX_PROPOSAL": True,
    "TRAIN.RPN_NMS_THRESH": 0.7,
    "TRAIN.RPN_PRE_NMS_TOP_N": 12000,
    "TRAIN.RPN_POST_NMS_TOP_N": 2000,
    "TRAIN.RPN_MIN_SIZE": 16,
    "TRAIN.BATCH_ROIS_OHEM": 128,
    "TRAIN.FG_THRESH": 0.5,
    "TRAIN.BG_THRESH_HI": 0.5,
    "TRAIN.BG_THRESH_LO": 0,
    "TRAIN.BBOX_REGRESSION_THRESH": 0.5,
    "TRAIN.RPN_BATCH_SIZE": 256,
    "TRAIN.RPN_FG_FRACTION": 0.5,
    "TRAIN.RPN_POSITIVE_OVERLAP": 0.7,
    "TRAIN.RPN_NEGATIVE_OVERLAP": 0.3,
    "TRAIN.BBOX_NORMALIZATION_PRECOMPUTED": False,
    "TRAIN.BBOX_MEANS": [0, 0, 0, 0],
    "TRAIN.BBOX_STDS": [0.1, 0.1, 0.2, 0.2],
    "TEST.BATCH_IMAGES": [1, 1, 1],
    "TEST.HAS_RPN": False,
    "TEST.PROPOSAL_NMS_THRESH": 0.7,
    "TEST.PROPOSAL_PRE_NMS_TOP_N": 20000,
    "TEST.PROPOSAL_POST_NMS_TOP_N": 2000,
    "TEST.PROPOSAL_MIN_SIZE": 16,
    "TEST.RPN_NMS_THRESH": 0.7,
    "TEST.RPN_PRE_NMS_TOP_N": 6000,
    "TEST.RPN_MIN_SIZE": 16,
    "TEST.RPN_POST_NMS_TOP_N": 300,
}
# Where 2018 had no default, or one that cannot run.
NEW_DEFAULTS = {
    "symbol": "resnet_mx_101_e2e",  # 2018: ''
    "output_path": "./output",  # 2018: ''
    "dataset.proposal": "rpn",
    "TRAIN.NUM_PROCESS": -1,
    "TRAIN.NUM_THREAD": 8,
    "TEST.SCALES": [(1400, 2000), (800, 1280), (480, 512)],
    "TEST.VALID_RANGES": [(-1, 90), (32, 180), (75, -1)],
    "TEST.CONCURRENT_JOBS": 1,
    "TEST.MAX_PER_IMAGE": 200,
    "TEST.NMS": -1,  # 2018: 0.3, together with a sigma of 0.6
    "TEST.NMS_SIGMA": 0.55,
    "TEST.TEST_EPOCH": None,  # the newest checkpoint
    "TEST.VISUALIZATION_PATH": "./debug/visualization",
    "TEST.VISUALIZE_INTERMEDIATE_SCALES": False,
    "TEST.EXTRACT_PROPOSALS": False,
    "TEST.PROPOSAL_SAVE_PATH": "output/proposals",
    "TEST.N_PROPOSAL_PER_SCALE": 300,
}
# Keys of this project.
NEW_KEYS = {
    "dataset.EXIF": "auto",
    "dataset.CLASS_BALANCED": 0.0,
    "seed": 0,
    "TEST.MODE": "auto",
    "TEST.SINGLE_SCALE": None,
    "TEST.SLICE_SIZE": 512,
    "TEST.SLICE_OVERLAP": 0.2,
    "TEST.SLICE_FACTOR": 1.0,
    "TEST.SLICE_WITH_IMAGE": True,
    "TEST.SLICE_BATCH_IMAGES": 1,
    "TEST.SKIP_BAD_IMAGES": False,
    "TEST.SKIP_STRIDES": [],
    "TEST.MIN_SCORE": 0.001,
    "TEST.BOX_VOTING": 0.0,
    "TEST.ENGINE": "auto",
    "TEST.MAX_PIXELS": 0,
    "TEST.CLASS_AGNOSTIC": False,
    "TRAIN.SOFT_SAMPLING.ENABLE": False,
    "TRAIN.SOFT_SAMPLING.A": 0.25,
    "TRAIN.SOFT_SAMPLING.B": 50.0,
    "TRAIN.SOFT_SAMPLING.C": 20.0,
    "TRAIN.CROWD_IOA": 0.0,
    "TRAIN.MAX_CROWD": 10,
    "TRAIN.RPN_IGNORE_CROWD": False,
    "TRAIN.RPN_ALLOWED_BORDER": None,
    "TEST.PROPOSALS_AS_TRAINED": True,
    "dataset.annotation_file": "",
    "dataset.image_folder": "",
    "network.ANCHOR_ROUNDING": "legacy",
    "network.BN_MODE": "batch",
    "network.PADDING": "symmetric",
    "network.WIDTH": 1.0,
    "network.ACTIVATION": "relu6",
    "network.DILATE": True,
    "network.INIT": "legacy",
    "network.RPN_CHANNELS": 0,
    "network.RFCN_RELU": False,
    "network.SUPER_CLASSES": None,
    "network.FINE_ROIS": 50,
    "network.FINE_ID_OFFSET": 0,
    "network.ROI_CHANNELS": 256,
    "network.FC_CHANNELS": 0,
    "network.BN_MOMENTUM": 0.995,
    "TRAIN.CHIP_SIZE": 512,
    "TRAIN.MAX_GT": 100,
    "TRAIN.MAX_POLYGON_LEN": 500,
    "TRAIN.COCO_SCALE_OVERRIDE": True,
    "TRAIN.MAX_NEG_CHIPS": 2,
    "TRAIN.MIN_FALSE_ALARMS": None,
    "TRAIN.MINING_EPOCHS": 2,
    "TRAIN.BACKGROUND_CHIPS": 0.0,
    "TRAIN.RANDOM_CROPS": 0,
    "TRAIN.CHIP_RANGES": [],
    "TRAIN.SIDE_LIMITS": [],
    "TRAIN.MIN_VISIBLE": 0.0,
    "TRAIN.IMAGE_CACHE_MB": 512,
    "TRAIN.REDUCED_DECODING": False,
    "TRAIN.SHUFFLE_WINDOW": 0,
    "TRAIN.NEG_CHIPS_WITHOUT_OBJECTS": False,
    "TRAIN.PROPOSAL_OP.pre_nms_top_n": -1,
    "TRAIN.PROPOSAL_OP.nms_thresh": 0.7,
    "TRAIN.PROPOSAL_OP.min_size": 3,
    "TRAIN.PROPOSAL_OP.post_nms_top_n": 300,
    "TEST.PROPOSAL_OP.pre_nms_top_n": 12000,
    "TEST.PROPOSAL_OP.nms_thresh": 0.7,
    "TEST.PROPOSAL_OP.min_size": 3,
    "TEST.PROPOSAL_OP.post_nms_top_n": 300,
    "TRAIN.LEGACY_BOXES": False,
    "TRAIN.LEGACY_GT_CENTRE": True,
    "TRAIN.LEGACY_AREAS": True,
    "TRAIN.LEGACY_MIN_SIZE": True,
    "TRAIN.clip_gradient": 0.0,
    "TRAIN.DYNAMIC_LOSS_SCALE": False,
    "TRAIN.LOSS_SCALE_WINDOW": 2000,
    "TRAIN.ACCUMULATION_STEPS": 1,
    "TRAIN.GRADIENT_REDUCTION": "sum",
    "TRAIN.EMA_DECAY": 0.0,
    "TRAIN.REFERENCE_REPLICAS": 8,
    "TRAIN.LR_SCHEDULE": "step",
    "TRAIN.EARLY_STOPPING.PATIENCE": 0,
    "TRAIN.EARLY_STOPPING.MIN_DELTA": 0.0,
    "TRAIN.COLOR_JITTER.BRIGHTNESS": 0.0,
    "TRAIN.COLOR_JITTER.CONTRAST": 0.0,
    "TRAIN.COLOR_JITTER.SATURATION": 0.0,
    "TRAIN.COLOR_JITTER.HUE": 0.0,
    "TEST.FLIP": False,
    "TRAIN.KEEP_CHECKPOINTS": 0,
    "TRAIN.MAX_UPDATES": 0,
    "TRAIN.CHECKPOINT_EVERY": 0,
    "TRAIN.VALIDATE_EVERY": 0,
    "TRAIN.VALIDATION_SET": "",
    "TRAIN.KEEP_BEST": True,
    "TRAIN.TENSORBOARD": True,
    "TRAIN.bbox_loss_divisor": 0.0,
    "TRAIN.fine_loss_divisor": 0.0,
    "TRAIN.LEGACY_FINE_CAP": False,
}


def written_in(name: str) -> dict:
    """Keys and values of one 2018 file, by dotted path."""
    tables = [IN_ALL_FILES, IN_AUTOFOCUS_FILES] if name in AUTOFOCUS else [IN_ALL_FILES]
    values = {}
    for table in tables:
        for path, value in table.items():
            if isinstance(value, dict):
                value = value[name] if name in value else value[""]
            values[path] = value
    return values


def in_force(name: str) -> dict:
    """Values that a run with this file uses, by dotted path."""
    values = {**DEFAULTS_2018, **NEW_KEYS, **written_in(name), "name": name}
    values["TRAIN.REFERENCE_IMAGES"] = values["TRAIN.BATCH_IMAGES"]
    if name != VOC:
        values["TRAIN.SCALES"] = [3.0, 1.667, 512.0]
    if name in (MASK, MAF):
        values["TRAIN.PROPOSAL_OP.pre_nms_top_n"] = 6000
    return values


def plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def lookup(cfg, path: str):
    for part in path.split("."):
        cfg = cfg[part]
    return cfg


def assert_values(cfg, expected: dict) -> None:
    wrong = {
        path: (plain(lookup(cfg, path)), plain(value))
        for path, value in expected.items()
        if plain(lookup(cfg, path)) != plain(value)
    }
    assert not wrong
    alternate = {path for path in SCHEMA if path.startswith("TRAIN.ALTERNATE.")}
    assert len(alternate) == 17
    assert set(SCHEMA) - alternate == set(expected), "a key is not covered by the tables"
    assert {lookup(cfg, path) for path in alternate} == {0, ""}


@pytest.mark.parametrize("name", FILES_2018)
def test_our_recipe_has_the_values_of_2018(name):
    # What the files of 2018 could not say, as it was in its code: others get boxes that are exact,
    # and numbers of false alarms that go with those of the proposals.
    code = {"TRAIN.LEGACY_BOXES": True, "TRAIN.MIN_FALSE_ALARMS": [25.0, 10.0]}
    assert_values(load_config(OURS / f"{name}.yml"), {**in_force(name), **code})


def test_other_recipes_have_exact_boxes():
    names = {path.stem for path in OURS.glob("*.yml")}
    legacy = {name for name in names if load_config(OURS / f"{name}.yml").TRAIN.LEGACY_BOXES}
    assert legacy == set(FILES_2018)


@pytest.mark.parametrize("name", FILES_2018)
def test_a_file_in_the_form_of_2018_loads_unchanged(name):
    assert_values(load_config(FIXTURES / f"{name}.yml"), in_force(name))


def test_fixtures_have_the_traits_of_2018_files():
    texts = {name: (FIXTURES / f"{name}.yml").read_text() for name in FILES_2018}
    assert all("!!python/tuple" in text for text in texts.values())
    assert texts[AF].count("  AUTO_FOCUS: ") == 3  # twice in TRAIN, once in TEST
    assert [name for name in FILES_2018 if "\n---\n" not in texts[name]] == [MAF]
    assert not any("_BASE_" in text for text in texts.values())


def test_defaults_of_an_empty_file(tmp_path):
    path = tmp_path / "empty.yml"
    path.write_text("")
    tables = (DEFAULTS_2018, OTHER_DEFAULTS_2018, NEW_DEFAULTS, NEW_KEYS)
    expected = {"name": "empty"}
    for table in tables:
        assert not set(expected) & set(table), "a key stands in two tables"
        expected.update(table)
    expected["TRAIN.REFERENCE_IMAGES"] = expected["TRAIN.BATCH_IMAGES"]
    assert_values(load_config(path), expected)


def test_types_are_consistent():
    cfg = load_config(OURS / f"{VOC}.yml")
    assert cfg.network.PIXEL_MEANS.dtype == np.float64
    assert isinstance(cfg.TRAIN.SCALES, tuple)
    assert cfg.TRAIN.SCALES[0] == (1400, 2000)
    assert all(type(side) is int for pair in cfg.TRAIN.SCALES for side in pair)
    assert all(type(side) is float for pair in cfg.TRAIN.VALID_RANGES for side in pair)
    assert type(cfg.TEST.NMS) is float
    assert cfg.TRAIN.lr_step == "5.33"
    assert cfg.TRAIN.PROPOSAL_OP.nms_thresh == 0.7


@pytest.mark.parametrize("name", FILES_2018)
def test_saved_recipe_loads_to_the_same(name, tmp_path):
    cfg = load_config(OURS / f"{name}.yml", ["TRAIN.lr", "0.0125", "gpus", "cpu"])
    save_config(cfg, tmp_path / "config.yml")
    assert "!!" not in (tmp_path / "config.yml").read_text()
    again = load_config(tmp_path / "config.yml")
    assert dump_config(again) == dump_config(cfg)
    assert again.name == name
    assert again.TRAIN.lr == 0.0125


@pytest.mark.parametrize("name", FILES_2018)
def test_recipe_opens_with_its_comment(name):
    head = (OURS / f"{name}.yml").read_text().split("---")[0]
    assert all(line.startswith("#") for line in head.strip().splitlines())
    for word in ("What:", "Command:", "Needs:", "Time:", "Result:", f"--cfg configs/faster/{name}"):
        assert word in head
    assert "not run at" in head

"""Run-time rules and checks across keys."""

from __future__ import annotations

import logging

import pytest

from sniper.config import load_config, parse_gpus, parse_lr_steps
from sniper.errors import ConfigError

RULE = (3.0, 1.667, 512.0)
PAIRS = ((1400, 2000), (800, 1280), (-1, 512))


@pytest.fixture
def load(tmp_path):
    def load_text(text: str, *overrides: str):
        path = tmp_path / "x.yml"
        path.write_text(text)
        return load_config(path, overrides)

    return load_text


@pytest.fixture
def problems(load):
    def problems_of(*overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load("", *overrides)
        return str(caught.value)

    return problems_of


# --- COCO scale override ---

COCO = "dataset: {dataset: coco, NUM_CLASSES: 81}\n"
SCALES = f"TRAIN: {{SCALES: {[list(pair) for pair in PAIRS]}}}\n"


def test_coco_override_replaces_the_scales_of_a_plain_file(load, caplog):
    with caplog.at_level(logging.INFO):
        assert load(COCO + SCALES).TRAIN.SCALES == RULE
    assert len([line for line in caplog.messages if "pyramid" in line]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "dataset: {dataset: PascalVOC, NUM_CLASSES: 81}\n" + SCALES,
        "dataset: {dataset: coco, NUM_CLASSES: 80}\n" + SCALES,
        COCO + "TRAIN: {COCO_SCALE_OVERRIDE: false, SCALES: [[1400,2000],[800,1280],[-1,512]]}\n",
    ],
)
def test_coco_override_does_not_apply(load, text):
    assert load(text).TRAIN.SCALES == PAIRS


@pytest.mark.parametrize(
    ("written", "spelling"),
    [
        ("COCO", "coco"),
        ("Coco ", "coco"),
        ("pascalvoc", "PascalVOC"),
        ("VOC", "PascalVOC"),
        ("Folder", "folder"),
        ("MyFormat", "myformat"),
    ],
)
def test_the_kind_of_a_data_set_has_one_spelling(load, written, spelling):
    text = f"dataset: {{dataset: '{written}', NUM_CLASSES: 81}}\n{SCALES}"
    assert load(text).dataset.dataset == spelling
    cfg = load(COCO + SCALES, "dataset.dataset", written)
    assert cfg.dataset.dataset == spelling
    # However it is written, the rule for COCO applies to the same kind.
    assert (cfg.TRAIN.SCALES == RULE) == (spelling == "coco")
    assert load(text).TRAIN.SCALES == cfg.TRAIN.SCALES


def test_scales_on_the_command_line_win(load):
    cfg = load(COCO, "TRAIN.SCALES", str(list(PAIRS)))
    assert cfg.TRAIN.SCALES == PAIRS
    assert cfg.TRAIN.COCO_SCALE_OVERRIDE is False  # decided: a saved file keeps these scales


def test_scales_of_a_file_with_a_base_win_but_inherited_ones_do_not(load, tmp_path):
    (tmp_path / "base.yml").write_text(COCO + SCALES)
    assert load("_BASE_: base.yml\nseed: 1\n").TRAIN.SCALES == RULE
    cfg = load("_BASE_: base.yml\nTRAIN: {SCALES: [2.0, 1.0, 256]}\n")
    assert cfg.TRAIN.SCALES == (2.0, 1.0, 256.0)
    (tmp_path / "middle.yml").write_text("_BASE_: base.yml\nTRAIN: {SCALES: [4.0, 1.0, 256]}\n")
    assert load("_BASE_: middle.yml\n").TRAIN.SCALES == (4.0, 1.0, 256.0)


# --- other rules ---


def test_only_proposal_ignores_mask_and_focus(load, caplog):
    with caplog.at_level(logging.INFO):
        cfg = load("", "TRAIN.ONLY_PROPOSAL", "true", "TRAIN.AUTO_FOCUS", "true",
                   "TRAIN.WITH_MASK", "true")  # fmt: skip
    assert (cfg.TRAIN.AUTO_FOCUS, cfg.TRAIN.WITH_MASK) == (False, False)
    assert caplog.text.count("is ignored") == 2


def test_heads_that_differ_are_explained(load, caplog):
    mask = ("symbol", "resnet_mx_50_e2e_mask")
    with caplog.at_level(logging.INFO):
        load("", *mask, "TRAIN.WITH_MASK", "true")
        load("", *mask, "TRAIN.ONLY_PROPOSAL", "true")
        assert "without TRAIN." not in caplog.text
        load("", *mask, "TEST.AUTO_FOCUS", "true")
    assert "TEST.AUTO_FOCUS without TRAIN.AUTO_FOCUS" in caplog.text


def test_per_level_lists_fit_the_levels(load):
    cfg = load("", "TEST.SCALES", str([(9, 9), (8, 8), (7, 7), (6, 6)]),
               "TEST.VALID_RANGES", str([(-1, -1)] * 4), "TEST.BATCH_IMAGES", "3",
               "TEST.DO_PRUNING", "[false, true]")  # fmt: skip
    assert cfg.TEST.BATCH_IMAGES == (3, 3, 3, 3)
    assert cfg.TEST.DO_PRUNING == (False, True, False, False)
    assert cfg.TEST.USE_CACHE == (False,) * 4
    assert cfg.TEST.CHIP_HYPERPARAMS == ((-1, -1.0, -1),) * 4
    one = load("", "TEST.SCALES", "[(8, 9)]", "TEST.VALID_RANGES", "[(-1, -1)]")
    assert (one.TEST.BATCH_IMAGES, one.TEST.DO_PRUNING) == ((1,), (False,))


def test_nms_given_later_switches_the_other_off(load, tmp_path):
    (tmp_path / "soft.yml").write_text("TEST: {NMS: -1, NMS_SIGMA: 0.55}\n")
    cfg = load("_BASE_: soft.yml\nTEST: {NMS: 0.45}\n")
    assert (cfg.TEST.NMS, cfg.TEST.NMS_SIGMA) == (0.45, -1.0)
    cfg = load("TEST: {NMS: 0.45, NMS_SIGMA: -1}\n", "TEST.NMS_SIGMA", "0.3")
    assert (cfg.TEST.NMS, cfg.TEST.NMS_SIGMA) == (-1.0, 0.3)


def test_the_tested_epoch_is_the_users_or_the_newest(load, tmp_path):
    base = "TRAIN: {end_epoch: 4}\nTEST: {TEST_EPOCH: 2}\n"
    assert load(base).TEST.TEST_EPOCH == 2
    assert load(base, "TEST.TEST_EPOCH", "3", "TRAIN.end_epoch", "5").TEST.TEST_EPOCH == 3
    # Whoever changes the length of a base's training does not mean the epoch that the base tested.
    assert load(base, "TRAIN.end_epoch", "5").TEST.TEST_EPOCH is None
    (tmp_path / "base.yml").write_text(base)
    assert load("_BASE_: base.yml\nTRAIN: {end_epoch: 9}\n").TEST.TEST_EPOCH is None
    assert load("_BASE_: base.yml\nTRAIN: {lr: 0.1}\n").TEST.TEST_EPOCH == 2


def test_derived_values(load):
    cfg = load("TRAIN: {end_epoch: 4}\n", "network.ANCHOR_SCALES", "[2, 4]")
    assert (cfg.TEST.TEST_EPOCH, cfg.network.NUM_ANCHORS) == (None, 6)
    assert load("TEST: {RPN_POST_NMS_TOP_N: 9}\n").TEST.PROPOSAL_OP.post_nms_top_n == 9
    cfg = load("TEST: {RPN_POST_NMS_TOP_N: 9, PROPOSAL_OP: {post_nms_top_n: 8}}\n")
    assert cfg.TEST.PROPOSAL_OP.post_nms_top_n == cfg.TEST.RPN_POST_NMS_TOP_N == 8


def test_a_leaf_may_change_the_anchors_of_its_base(load, tmp_path):
    (tmp_path / "b.yml").write_text("network: {ANCHOR_SCALES: [1, 2], NUM_ANCHORS: 6}\n")
    assert load("_BASE_: b.yml\nnetwork: {ANCHOR_SCALES: [1]}\n").network.NUM_ANCHORS == 3


# --- checks ---


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["TRAIN.VALID_RANGES", "[(-1, 80)]"], "1 ranges for 3 TRAIN.SCALES"),
        (["TRAIN.CHIP_RANGES", "[(-1, 80)]"], "TRAIN.CHIP_RANGES: 1 entries for 3"),
        (
            ["TRAIN.CHIP_RANGES", "[(-1, 80), (90, 32), (120, -1)]"],
            "CHIP_RANGES: (90, 32) holds no size",
        ),
        (["TRAIN.SIDE_LIMITS", "[450, -1]"], "TRAIN.SIDE_LIMITS: 2 entries for 3"),
        (["TEST.VALID_RANGES", "[(-1, 80)]"], "TEST.VALID_RANGES: 1 entries for 3"),
        (["TEST.BATCH_IMAGES", "1,2"], "TEST.BATCH_IMAGES: 2 entries for 3"),
        (["TRAIN.SCALES", "[1.0, 2.0, 512.0]"], "must fall"),
        (["TRAIN.SCALES", "[2.0, -1.0, 512.0]"], "must be positive"),
        (["TRAIN.SCALES", "[(800, 1280), (1400, 2000), (-1, 512)]"], "finest level comes first"),
        (["TRAIN.SCALES", "[(-1, 512), (-1, 1280), (-1, 300)]"], "finest level comes first"),
        (["TRAIN.SCALES", "[(3, 4), (2, 3), (-1, -1)]"], "positive min side or max side"),
        (["TRAIN.VALID_RANGES", "[(-1, 80), (90, 32), (120, -1)]"], "holds no size"),
        (["TEST.VALID_RANGES", "[(-1, 80), (90, 32), (120, -1)]"], "holds no size"),
        (["TEST.SCALES", "[(2000, 1400), (800, 900), (4, 5)]"], "above its max side"),
        (["TEST.SCALES", "[(-1, 512), (800, 900), (4, 5)]"], "below 1"),
        (["network.NUM_ANCHORS", "21"], "expected 9"),
        (["TRAIN.CHIP_SIZE", "500"], "not a multiple"),
        (["network.RPN_FEAT_STRIDE", "24"], "not a multiple"),
        (["TEST.NMS_SIGMA", "-1"], "exactly one"),
        (["TEST.NMS", "0.4", "TEST.NMS_SIGMA", "0.4"], "exactly one"),
        (["TEST.NMS", "1.5"], "between 0 and 1"),
        (["TEST.AUTO_FOCUS", "true", "TEST.DO_PRUNING", "[true, true]"], "no level before it"),
        (["TEST.AUTO_FOCUS", "true", "network.RPN_FEAT_STRIDE", "32"], "STRIDE 16 only"),
        (["TRAIN.AUTO_FOCUS", "true"], "AUTO_FOCUS_DC_LOW < SMALL_THRESH"),
        (["gpus", "0,0"], "gpus"),
        (["gpus", "all"], "gpus"),
        (["gpus", "-1"], "gpus"),
        (["TRAIN.lr_step", "5,4"], "increase"),
        (["TRAIN.lr_step", "a"], "comma list of epochs"),
        (["TRAIN.RPN_NEGATIVE_OVERLAP", "0.8"], "RPN_POSITIVE_OVERLAP"),
        (["TEST.PROPOSAL_OP.pre_nms_top_n", "0"], "keeps no box"),
        (["TRAIN.BATCH_IMAGES", "0"], "below 1"),
        (["TRAIN.LR_SCHEDULE", "linear"], "one of 'step', 'cosine'"),
        (["TRAIN.REFERENCE_IMAGES", "0"], "below 1"),
        (["TRAIN.COLOR_JITTER.HUE", "0.6"], "above 0.5"),
        (["TRAIN.COLOR_JITTER.CONTRAST", "1.5"], "above 1"),
        (["TRAIN.COLOR_JITTER.BRIGHTNESS", "-0.1"], "below 0"),
        (["TEST.FLIP", "2"], "true or false"),
        (["TRAIN.EARLY_STOPPING.PATIENCE", "-1"], "below 0"),
        (["TRAIN.EARLY_STOPPING.PATIENCE", "2"], "set TRAIN.VALIDATE_EVERY to 1 or more"),
        (["TRAIN.EARLY_STOPPING.MIN_DELTA", "0.1"], "no effect without"),
        (
            ["TRAIN.EARLY_STOPPING.PATIENCE", "2", "TRAIN.VALIDATE_EVERY", "1"]
            + ["TRAIN.KEEP_BEST", "false"],
            "would lose the weights",
        ),
        (
            ["TRAIN.EARLY_STOPPING.PATIENCE", "2", "TRAIN.VALIDATE_EVERY", "1"]
            + ["TRAIN.ONLY_PROPOSAL", "true"],
            "is not validated",
        ),
    ],
)
def test_bad_combination(problems, overrides, expected):
    assert expected in problems(*overrides)


def test_checks_report_everything_at_once(problems):
    text = problems("TRAIN.CHIP_SIZE", "500", "gpus", "x", "network.NUM_ANCHORS", "4")
    assert "3 problems" in text


@pytest.mark.parametrize(
    "overrides",
    [
        ["TRAIN.SCALES", "[512.0]", "TRAIN.VALID_RANGES", "[(-1, -1)]"],
        ["TRAIN.SCALES", "[(3, 9), (3, -1), (-1, 4)]"],
        ["TRAIN.SCALES", "[(800, 1280), (600, 1280), (-1, 512)]"],
        ["gpus", "cpu,cpu"],
        ["gpus", ""],
    ],
)
def test_good_combination(load, overrides):
    load("", *overrides)


def test_value_parsers():
    assert parse_gpus("0, 2,10") == (0, 2, 10)
    assert parse_gpus("cpu") == parse_gpus("") == ()
    assert parse_lr_steps("5.33, 6u") == ((5.33, "epochs"), (6, "updates"))
    assert parse_lr_steps("") == ()

"""Merging, `--set`, yaml dialect, messages, saving."""

from __future__ import annotations

import logging
import re

import pytest

from sniper.config import dump_config, load_config, save_config
from sniper.config.schema import nearest
from sniper.config.yaml_files import RecipeLoader, read_yaml
from sniper.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, text: str):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_file


@pytest.fixture
def empty(write):
    return write("run.v2.yml", "")


def message(function, *args) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*args)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- precedence and _BASE_ ---


def test_precedence_and_deep_merge(write):
    write("base.yml", "TRAIN: {lr: 0.1, wd: 0.2, PROPOSAL_OP: {min_size: 5}}\nname: base\n")
    leaf = write(
        "leaf.small.yml",
        "_BASE_: base.yml\nTRAIN: {lr: 0.3, PROPOSAL_OP: {nms_thresh: 0.6}}\n",
    )
    cfg = load_config(leaf, ["TRAIN.PROPOSAL_OP.nms_thresh", "0.5"])
    assert (cfg.TRAIN.lr, cfg.TRAIN.wd, cfg.TRAIN.momentum) == (0.3, 0.2, 0.9)
    assert cfg.TRAIN.PROPOSAL_OP == {
        "pre_nms_top_n": -1,
        "nms_thresh": 0.5,
        "min_size": 5,
        "post_nms_top_n": 300,
    }
    assert cfg.name == "leaf"


def test_base_in_another_folder_and_by_recipe_name(write, tmp_path):
    (tmp_path / "sub").mkdir()
    write("base.yml", "seed: 5\n")
    leaf = write("sub/leaf.yml", "_BASE_: ../base.yml\n")
    assert load_config(leaf).seed == 5
    by_name = write("by_name.yml", "_BASE_: sniper_res50_e2e\n")
    assert load_config(by_name).symbol == "resnet_mx_50_e2e"


def test_base_circle_and_missing_base(write):
    write("a.yml", "_BASE_: b.yml\n")
    b = write("b.yml", "_BASE_: a.yml\n")
    assert "b.yml -> a.yml -> b.yml" in message(load_config, b)
    itself = write("itself.yml", "_BASE_: itself.yml\n")
    assert "circle" in message(load_config, itself)
    assert "sniper_res101_e2e" in message(load_config, write("c.yml", "_BASE_: nothing.yml\n"))
    assert "one file" in message(load_config, write("d.yml", "_BASE_: [a.yml, b.yml]\n"))


def test_empty_section_and_alternate_merge(write):
    path = write("x.yml", "TEST:\nTRAIN: {ALTERNATE: {rpn1_lr: 0.5}}\n")
    cfg = load_config(path)
    assert cfg.TRAIN.ALTERNATE.rpn1_lr == 0.5
    assert cfg.TRAIN.ALTERNATE.rpn2_lr == 0.0


# --- errors ---


def test_all_problems_at_once_with_nearest_names(write):
    path = write(
        "bad.yml",
        "lr: 0.1\nTRAIN: {lrr: 1, lr: x, USE_NEG_CHIPS: 1, PROPOSAL_OP: {nms: 3}}\nTEST: 4\n"
        "networks: {}\n1: 2\n",
    )
    text = message(load_config, path, ["TRAIN.USE_NEG_CHIP", "False", "TRAIN", "1"])
    assert "10 problems" in text
    for expected in (
        "lr (", "did you mean TRAIN.lr?",
        "TRAIN.lrr (", "TRAIN.lr (", "got 'x'",
        "TRAIN.USE_NEG_CHIPS (", "expected true, false or mine, got 1",
        "TRAIN.PROPOSAL_OP.nms (", "did you mean TRAIN.PROPOSAL_OP.nms_thresh?",
        "TEST (", "is a section, got 4",
        "networks (", "did you mean network?",
        "--set TRAIN.USE_NEG_CHIP: unknown key; did you mean TRAIN.USE_NEG_CHIPS?",
        "--set TRAIN: is a section",
    ):  # fmt: skip
        assert expected in text
    assert text.count(str(path)) >= 6


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("TRAIN.LR", "TRAIN.lr"),
        ("train.lr", "TRAIN.lr"),
        ("TRAIN.BATCH_IMAGE", "TRAIN.BATCH_IMAGES"),
        ("TEST.MAX_PER_IMAGES", "TEST.MAX_PER_IMAGE"),
        ("TRAIN.NMS", "TEST.NMS"),
        ("kvstore", "default.kvstore"),
        ("zzzzzz", None),
    ],
)
def test_nearest_name(wrong, right):
    assert nearest(wrong) == right


def test_set_pairs(empty):
    cfg = load_config(empty, ["gpus", "0,1", "TRAIN.lr=0.5", "TRAIN.lr", "1", "output_path=a=b"])
    assert (cfg.gpus, cfg.TRAIN.lr, cfg.output_path) == ("0,1", 1.0, "a=b")
    assert load_config(empty, ["dataset.image_set", ""]).dataset.image_set == ""
    text = message(load_config, empty, ["TRAIN.lr", "1", "TRAIN.wd"])
    assert "pairs" in text and "TRAIN.lr 1 TRAIN.wd" in text


def test_setting_a_legacy_key_warns(empty, caplog):
    load_config(empty, ["TEST.RPN_NMS_THRESH", "0.5"])
    assert "TEST.RPN_NMS_THRESH has no effect" in caplog.text


def test_keys_of_2018_that_nothing_reads_are_told_to_who_changes_them(empty, caplog, tmp_path):
    """Advice of 2018 was to lower NUM_THREAD; its own files repeat the default."""
    load_config(empty, ["TRAIN.NUM_THREAD", "4", "TRAIN.FG_THRESH", "0.5"])
    assert "--set TRAIN.NUM_THREAD has no effect" in caplog.text and "NUM_PROCESS" in caplog.text
    assert "--set TRAIN.FG_THRESH has no effect" in caplog.text
    caplog.clear()
    recipe = tmp_path / "own.yml"
    recipe.write_text("TRAIN: {NUM_THREAD: 2, FG_THRESH: 0.5, BG_THRESH_HI: 0.4}")
    load_config(recipe)
    assert "own.yml: TRAIN.NUM_THREAD has no effect" in caplog.text
    assert "BG_THRESH_HI has no effect" in caplog.text and "FG_THRESH" not in caplog.text
    caplog.clear()
    load_config("sniper_res101_e2e_autofocus")
    assert "no effect" not in caplog.text


def test_missing_file_lists_recipes():
    text = message(load_config, "no_such_recipe")
    assert "no_such_recipe" in text and "sniper_res101_e2e_mask_autofocus" in text


# --- yaml dialect ---


def test_tuple_tag_only_on_sequences(write):
    assert read_yaml(write("t.yml", "a: !!python/tuple [1, !!python/tuple [2]]\n")) == {
        "a": (1, (2,))
    }
    message(read_yaml, write("m.yml", "a: !!python/tuple {b: 1}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "seed: !!python/object/apply:os.getpid []",
        "seed: !!python/name:os.getpid",
        "seed: !!python/int '5'",
        "seed: !!python/object:sniper.errors.ConfigError {}",
        "- 1",
        "just text",
        "seed: [1",
        "a: 1\n---\nb: 2",
        "seed: 2020-13-40",
        "\tseed: 1",
    ],
)
def test_broken_or_unsafe_yaml_is_a_config_error(write, text):
    path = write("x.yml", text)
    assert str(path) in message(load_config, path)


def test_binary_file_and_folder(tmp_path):
    path = tmp_path / "x.yml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    message(load_config, path)
    message(load_config, tmp_path)


def test_repeated_keys(write, caplog):
    same = write("same.yml", "TRAIN:\n  AUTO_FOCUS: true\n  lr: 1\n  AUTO_FOCUS: True\n")
    with caplog.at_level(logging.WARNING):
        assert read_yaml(same) == {"TRAIN": {"AUTO_FOCUS": True, "lr": 1}}
    assert re.search(r"same\.yml, line 4: 'AUTO_FOCUS' appears twice", caplog.text)
    differ = write("differ.yml", "TRAIN:\n  lr: 1\n  lr: 2\n")
    assert "line 3" in message(read_yaml, differ)
    message(read_yaml, write("types.yml", "seed: 1\nseed: 1.0\n"))
    message(read_yaml, write("sections.yml", "TRAIN: {lr: 1}\nTRAIN: {wd: 1}\n"))


def test_merge_keys_and_anchors_still_work(write):
    path = write("x.yml", "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_yaml(path)["b"] == {"x": 1, "y": 3}


def test_loader_has_one_constructor_more_than_the_safe_one():
    extra = set(RecipeLoader.yaml_constructors) - set(RecipeLoader.__mro__[1].yaml_constructors)
    assert extra == {"tag:yaml.org,2002:python/tuple"}
    assert RecipeLoader.yaml_multi_constructors == {}


# --- saving ---


def test_saved_config_keeps_name_and_does_not_reapply_rules(write, tmp_path):
    base = write("coco.yml", "dataset: {dataset: coco, NUM_CLASSES: 81}\n")
    overrides = [
        ["TRAIN.SCALES", "[(900, 1000), (400, 500), (-1, 300)]"],
        ["TEST.NMS", "0.5"],
        ["TEST.RPN_POST_NMS_TOP_N", "77", "TEST.SCALES", "[(8, 9)]", "TEST.VALID_RANGES",
         "[(-1, -1)]"],
        ["TRAIN.ONLY_PROPOSAL", "true", "TRAIN.WITH_MASK", "true", "name", "other"],
        ["network.ANCHOR_SCALES", "1,2"],
    ]  # fmt: skip
    for items in overrides:
        cfg = load_config(base, items)
        save_config(cfg, tmp_path / "config.yml")
        again = load_config(tmp_path / "config.yml")
        assert dump_config(again) == dump_config(cfg)
        assert again.name == ("other" if "name" in items else "coco")


def test_set_wins_over_a_saved_config(empty, tmp_path):
    save_config(load_config(empty), tmp_path / "config.yml")
    cfg = load_config(tmp_path / "config.yml", ["TEST.RPN_POST_NMS_TOP_N", "50", "TEST.NMS", "0.4"])
    assert cfg.TEST.PROPOSAL_OP.post_nms_top_n == 50
    assert (cfg.TEST.NMS, cfg.TEST.NMS_SIGMA) == (0.4, -1.0)


def test_loading_leaves_no_shared_state(empty):
    first = load_config(empty)
    first.TRAIN.lr = 9.0
    first.network.PIXEL_MEANS[:] = 9.0
    second = load_config(empty)
    assert second.TRAIN.lr == 0.0
    assert second.network.PIXEL_MEANS.tolist() == [0.0, 0.0, 0.0]
    assert second.name == "run"


def test_a_flag_behind_set_is_told():
    with pytest.raises(ConfigError, match="--set --out: unknown key; --set must be the last flag"):
        load_config("sniper_mobilenetv2_toy", ["gpus", "cpu", "--out", "page.html"])

"""`sniper suggest-scales` on box sizes of many kinds: the suggestion must suit them and load."""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from sniper.chips.measures import measure
from sniper.chips.pyramid import level_factors
from sniper.config import load_config
from sniper.data.record import Record
from sniper.errors import DataError
from sniper.runs.levels import levels_of, untrained_windows
from sniper.runs.resolve import chip_settings
from sniper.tools.explain.suggest_advice import advise
from sniper.tools.explain.suggest_anchors import suggest_anchor_scales, suggest_max_gt
from sniper.tools.explain.suggest_pyramid import (
    MOST_CANDIDATES,
    InputLimits,
    box_sizes,
    chip_size_for_candidates,
    default_limits,
    fitting_chip_size,
    most_candidates,
    suggest_pyramid,
)
from sniper.tools.explain.training_set import TrainingSet
from sniper.tools.suggest_scales import main, to_json, yml_text


def records_of(sides, size, images=80, per_image=7, aspect=0.45):
    """Images with boxes whose sizes `sides(rng, n)` draws."""
    rng = np.random.default_rng(1)
    width, height = size
    records = []
    for image_id in range(images):
        side = sides(rng, per_image)
        stretch = np.exp(rng.normal(0, aspect / 2, per_image))
        w, h = np.clip(side * stretch, 2, width - 1), np.clip(side / stretch, 2, height - 1)
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        boxes = np.trunc(np.stack([x, y, x + w - 1, y + h - 1], 1)).astype(np.float32)
        ones = np.ones(per_image, np.int32)
        records.append(
            Record(f"{image_id}.jpg", image_id, width, height, False, boxes, ones, ones > 0)
        )
    return records


# Median 49 px; a third below 32 px and a quarter above 96 px, as in COCO.
def coco_like(rng, n):
    return np.clip(np.exp(rng.normal(3.9, 1.15, n)), 2, 600)


def log_uniform(low, high):
    return lambda rng, n: np.exp(rng.uniform(np.log(low), np.log(high), n))


SETS = {
    "coco-like": records_of(coco_like, (640, 480)),
    "small aerial": records_of(log_uniform(10, 60), (3000, 3000), images=40),
    "one fixed size": records_of(lambda rng, n: np.full(n, 40.0), (640, 480), aspect=0),
    "large objects": records_of(lambda rng, n: rng.uniform(300, 900, n), (1280, 960)),
    "tiny images": records_of(lambda rng, n: rng.uniform(8, 60, n), (96, 96)),
    "from tiny to huge": records_of(log_uniform(8, 1500), (4000, 3000), images=60),
}


def suggested(name, chip_size=512, levels=None):
    sizes = box_sizes(SETS[name])
    limits = default_limits(fitting_chip_size(sizes, chip_size))
    return suggest_pyramid(sizes, limits, levels), limits


def near(value, wanted, factor):
    return wanted / factor <= value <= wanted * factor


def test_coco_comes_out_near_the_paper():
    pyramid, limits = suggested("coco-like")
    assert limits == InputLimits(512, 32, 452)
    assert len(pyramid.scales) == 3
    assert near(pyramid.scales[0], 3, 1.1)
    assert near(pyramid.scales[1], 1.667, 1.15)
    assert pyramid.scales[2] == 512
    (_, high0), (low1, high1), (low2, _) = pyramid.valid_ranges
    assert near(high0, 80, 1.1)
    assert near(high1, 150, 1.1)
    assert near(low1, 32, 1.45)
    assert near(low2, 120, 1.45)
    assert pyramid.valid_ranges[0][0] == pyramid.valid_ranges[2][1] == -1


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("small aerial", 1),
        ("one fixed size", 1),
        ("large objects", 1),
        ("tiny images", 1),
        ("from tiny to huge", 4),
    ],
)
def test_number_of_levels_follows_the_spread_of_sizes(name, levels):
    assert len(suggested(name)[0].scales) == levels


def test_a_fixed_size_comes_to_the_middle_of_what_is_learned_well():
    pyramid, limits = suggested("one fixed size")
    assert near(40 * pyramid.factors[0], (limits.min_side * limits.max_side) ** 0.5, 1.1)


def test_large_objects_need_one_chip_for_the_whole_image():
    pyramid, _ = suggested("large objects")
    assert pyramid.scales == (512.0,)
    assert pyramid.valid_ranges == ((-1, -1),)


def test_small_objects_in_large_images_are_enlarged_no_further_than_needed():
    pyramid, limits = suggested("small aerial")
    smallest = np.percentile(box_sizes(SETS["small aerial"]).side, 5)
    assert near(smallest * pyramid.factors[0], limits.min_side, 1.05)


MIXED = [
    *records_of(log_uniform(10, 60), (3000, 2000), images=20),
    *records_of(log_uniform(10, 60), (900, 600), images=20),
]


def test_one_level_is_a_factor_so_that_images_of_all_sizes_are_seen_alike(tmp_path):
    data = TrainingSet(load_config("sniper_res101_e2e", ["gpus", "cpu"]), MIXED, ("b", "t"))
    limits = default_limits(512)
    advice = advise(data, limits)
    (tmp_path / "mixed.yml").write_text(yml_text(advice, data, "sniper_res101_e2e"))
    cfg = load_config(tmp_path / "mixed.yml")
    (factor,) = cfg.TRAIN.SCALES
    smallest = np.percentile(box_sizes(MIXED).side, 5)
    assert near(smallest * factor, limits.min_side, 1.05)
    made = chip_settings(cfg)
    assert (
        level_factors(3000, 2000, made.scales) == level_factors(900, 600, made.scales) == (factor,)
    )
    # Windows show the same px, and no image in full, which was not trained.
    assert (cfg.TEST.MODE, cfg.TEST.SLICE_FACTOR) == ("slice", factor)
    assert not cfg.TEST.SLICE_WITH_IMAGE
    assert cfg.TEST.SLICE_SIZE * factor <= 1032
    # What lies at a border of a window is whole in its neighbour.
    largest = np.percentile(box_sizes(MIXED).long_side, 99)
    assert cfg.TEST.SLICE_SIZE * cfg.TEST.SLICE_OVERLAP >= largest
    assert untrained_windows(levels_of(cfg, "slice"), cfg.TRAIN.SCALES, 3000, 2000) is None


def test_windows_and_whole_images_where_both_are_trained(tmp_path):
    data, advice = advice_for("from tiny to huge")
    (tmp_path / "huge.yml").write_text(yml_text(advice, data, "sniper_res101_e2e"))
    cfg = load_config(tmp_path / "huge.yml")
    assert (cfg.TEST.MODE, cfg.TEST.SLICE_FACTOR) == ("slice", cfg.TRAIN.SCALES[0])
    assert cfg.TEST.SLICE_WITH_IMAGE and cfg.TEST.SINGLE_SCALE == cfg.TEST.SCALES[-1]
    data, advice = advice_for("coco-like")
    text = yml_text(advice, data, "sniper_res101_e2e")
    assert "MODE" not in yaml.safe_load(text)["TEST"] and "SLICE_FACTOR" in text


def test_windows_that_were_not_trained_are_told():
    cfg = load_config("sniper_mobilenetv2_toy", ["TRAIN.SCALES", "[3.0]", *_ONE_RANGE])
    warning = untrained_windows(levels_of(cfg, "slice"), cfg.TRAIN.SCALES, 640, 480)
    assert "x1 (TEST.SLICE_FACTOR)" in warning and "--set TEST.SLICE_FACTOR 3 " in warning
    assert untrained_windows(levels_of(cfg, "pyramid"), cfg.TRAIN.SCALES, 640, 480) is None
    fitting = load_config("sniper_mobilenetv2_toy", ["TEST.SLICE_FACTOR", "2.2"])
    assert untrained_windows(levels_of(fitting, "slice"), fitting.TRAIN.SCALES, 640, 480) is None


_ONE_RANGE = ("TRAIN.VALID_RANGES", "[[-1, -1]]")


def test_chips_grow_where_there_would_be_too_many_to_choose_from(tmp_path):
    wide = records_of(lambda rng, n: rng.uniform(8, 20, n), (24000, 24000), images=1, per_image=300)
    sizes = box_sizes(wide)
    size = chip_size_for_candidates(sizes, 128, 16)
    assert size > 128 and size % 16 == 0
    factor = suggest_pyramid(sizes, default_limits(size)).factors[0]
    assert most_candidates(sizes, factor, size) <= MOST_CANDIDATES
    assert chip_size_for_candidates(box_sizes(SETS["coco-like"]), 128, 16) == 128


def test_larger_chips_come_in_smaller_batches_with_a_rate_to_match(tmp_path):
    keys = ["TRAIN.SCALES", "[15.0]", "TRAIN.CHIP_SIZE", "64", *_ONE_RANGE]
    data = TrainingSet(load_config("sniper_mobilenetv2_toy", keys), MIXED, ("b", "t"))
    advice = advise(data, default_limits(256))
    # As it is, an image has too many candidate chips: there are no numbers of "now".
    assert advice.current is None
    (tmp_path / "larger.yml").write_text(yml_text(advice, data, "sniper_mobilenetv2_toy"))
    cfg = load_config(tmp_path / "larger.yml")
    assert (cfg.TRAIN.CHIP_SIZE, cfg.TRAIN.BATCH_IMAGES) == (256, 1)
    assert cfg.TRAIN.lr == pytest.approx(0.1 / 16, rel=0.01)


def test_chips_are_never_larger_than_the_images_need():
    assert suggested("tiny images")[1].chip_size == 288  # 3 x 96
    assert suggested("coco-like")[1].chip_size == 512


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("levels", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("chip_size", [512, 128])
def test_every_suggestion_is_a_valid_pyramid(name, levels, chip_size):
    pyramid, limits = suggested(name, chip_size, levels)
    assert levels in (None, len(pyramid.scales))
    assert len(pyramid.scales) == len(pyramid.valid_ranges) == len(pyramid.reasons)
    assert list(pyramid.factors) == sorted(pyramid.factors, reverse=True)
    pyramid.chip_settings(limits.chip_size)  # raises when it is wrong
    for (_, high), (low, _) in zip(pyramid.valid_ranges, pyramid.valid_ranges[1:]):
        assert 0 < low < high, "the ranges leave a gap"
    for factor, (_, high) in zip(pyramid.factors, pyramid.valid_ranges[:-1]):
        assert high * factor <= limits.max_side, "the largest valid box does not fit into a chip"


@pytest.mark.parametrize("name", SETS)
def test_the_suggestion_trains_nearly_all_boxes(name):
    pyramid, limits = suggested(name)
    measures = measure(SETS[name], pyramid.chip_settings(limits.chip_size), seed=0, epoch=0)
    assert measures.trained_share > 0.97
    boxes = measures.trained_boxes_chip
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1))
    assert ((sides >= limits.min_side) & (sides <= limits.max_side)).mean() > 0.8


@functools.cache
def advice_for(name, recipe="sniper_res101_e2e"):
    """The data and the advice of a set; some tests share them."""
    data = TrainingSet(load_config(recipe, ["gpus", "cpu"]), SETS[name], ("background", "thing"))
    return data, advise(data, suggested(name)[1])


def test_sizes_of_the_old_pyramid_do_not_stay(tmp_path):
    keys = ("TRAIN.CHIP_RANGES", "[[-1,80],[80,150],[150,-1]]", "TRAIN.SIDE_LIMITS", "[99,199,-1]")
    data, advice = advice_for("one fixed size")
    old = replace(data, cfg=load_config("sniper_res101_e2e", ["gpus", "cpu", *keys]))
    path = tmp_path / "mine.yml"
    path.write_text(yml_text(advice, old, "sniper_res101_e2e"))
    assert load_config(path).TRAIN.CHIP_RANGES == ()
    assert "SIDE_LIMITS: []" in path.read_text()
    values = to_json(advice, old)["suggestion"]
    assert values["TRAIN.CHIP_RANGES"] == values["TRAIN.SIDE_LIMITS"] == []
    cfg = load_config("sniper_res101_e2e", [*keys, "TRAIN.CHIP_RANGES", "[]"])
    assert cfg.TRAIN.CHIP_RANGES == ()
    assert "CHIP_RANGES" not in yml_text(advice, data, "sniper_res101_e2e")


@pytest.mark.parametrize("name", ["coco-like", "one fixed size", "from tiny to huge"])
def test_the_fragment_loads_and_says_what_was_suggested(tmp_path, name):
    data, advice = advice_for(name)
    text = yml_text(advice, data, "sniper_res101_e2e")
    path = tmp_path / "mine.yml"
    path.write_text(text)
    cfg = load_config(path)
    suggestion = advice.suggestion
    assert cfg.TRAIN.SCALES == suggestion.pyramid.scales
    assert cfg.TRAIN.VALID_RANGES == suggestion.pyramid.valid_ranges
    assert cfg.network.ANCHOR_SCALES == suggestion.anchor_scales
    assert cfg.network.NUM_ANCHORS == 3 * len(suggestion.anchor_scales)
    assert cfg.TRAIN.CHIP_SIZE == suggestion.limits.chip_size
    assert cfg.TRAIN.MAX_GT == suggestion.max_gt
    assert len(cfg.TEST.SCALES) == len(cfg.TRAIN.SCALES)
    assert chip_settings(cfg).scales == suggestion.pyramid.scales
    # Every number has its reason.
    for line in text.splitlines():
        assert len(line) <= 100
        if re.match(r"\s*(- |MAX_GT|COCO_SCALE)", line):
            assert "# " in line
    assert advice.suggested.trained > 0.97
    assert advice.suggested.anchors > 0.8


def test_pasted_without_base_the_scales_still_count(tmp_path):
    """The 2018 rule for COCO must not take the suggestion away."""
    data, advice = advice_for("coco-like")
    content = yaml.safe_load(yml_text(advice, data, "sniper_res101_e2e"))
    content.pop("_BASE_")
    content["dataset"] = {"dataset": "coco", "NUM_CLASSES": 81}
    (tmp_path / "plain.yml").write_text(yaml.safe_dump(content))
    cfg = load_config(tmp_path / "plain.yml")
    assert cfg.TRAIN.SCALES == advice.suggestion.pyramid.scales


def test_autofocus_keeps_its_test_levels():
    data, advice = advice_for("large objects", "sniper_res101_e2e_autofocus")
    text = yml_text(advice, data, "sniper_res101_e2e_autofocus")
    assert "TEST:" not in text


def test_dense_images_get_a_larger_gt_limit():
    dense = records_of(lambda rng, n: np.full(n, 20.0), (400, 400), images=3, per_image=700)
    data = TrainingSet(load_config("sniper_res101_e2e", ["gpus", "cpu"]), dense, ("b", "t"))
    advice = advise(data, default_limits(512))
    assert advice.suggestion.fullest_chip > 100
    assert advice.suggestion.max_gt >= advice.suggestion.fullest_chip
    assert advice.suggestion.max_gt % 50 == 0
    assert (suggest_max_gt(3), suggest_max_gt(100), suggest_max_gt(101)) == (100, 100, 150)


def test_anchor_scales():
    limits = default_limits(512)
    sides = np.geomspace(20, 400, 500)
    scales = suggest_anchor_scales(sides, 16, limits)
    assert scales[0] * 16 == 24
    assert near(scales[-1] * 16, 390, 1.1)
    assert all(b / a <= 1.8 for a, b in zip(scales, scales[1:]))
    assert suggest_anchor_scales(np.full(50, 100.0), 16, limits) == (6.0,)
    assert suggest_anchor_scales(np.zeros(0), 16, limits) == (1.5,)
    assert suggest_anchor_scales(sides, 32, limits)[0] == 1


def test_no_boxes_is_an_error():
    with pytest.raises(DataError, match="no boxes"):
        box_sizes([])


def test_command(tiny_set, capsys):
    out, plot = tiny_set.root / "sub" / "better.yml", tiny_set.root / "plot.png"
    numbers = tiny_set.root / "numbers.json"
    flags = ["--out", str(out), "--plot", str(plot), "--json", str(numbers)]
    assert main(["--cfg", str(tiny_set.recipe), *flags]) == 0
    printed, told = capsys.readouterr()
    assert re.search(r"training: \d.*GB; \d:\d\d.*an epoch.*\n  testing: .*GB; .* s an image", told)
    assert printed == out.read_text()
    assert "_BASE_: ../tiny.yml" in printed
    cfg = load_config(out)
    content = json.loads(numbers.read_text())
    assert list(content) == [
        "tool", "version", "config", "image_set", "boxes", "images", "percentiles_px",
        "suggestion", "reasons", "now", "suggested", "estimate",
    ]  # fmt: skip
    assert content["estimate"]["train_gb"] > 0.4 and content["estimate"]["epoch_s"] > 0
    assert content["boxes"] == 6
    assert content["suggestion"]["TRAIN.SCALES"] == list(cfg.TRAIN.SCALES)
    assert set(content["now"]) == set(content["suggested"]) == {
        "trained", "comfortable", "anchors", "chips_per_image", "pixels_of_pyramid",
    }  # fmt: skip
    first = plot.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert main(["--cfg", str(tiny_set.recipe), "--plot", str(plot), "--no-estimate"]) == 0
    assert plot.read_bytes() == first
    assert capsys.readouterr().out.splitlines()[8:] == [
        line.replace("../tiny.yml", _relative(tiny_set)) for line in printed.splitlines()[8:]
    ]


def _relative(tiny_set):
    return os.path.relpath(tiny_set.recipe)


def test_levels_and_chip_size_can_be_chosen(tiny_set, capsys):
    flags = ["--levels", "2", "--chip-size", "64", "--min-side", "16", "--max-side", "60"]
    flags.append("--no-estimate")
    assert main(["--cfg", str(tiny_set.recipe), *flags, "--json", "-"]) == 0
    values = json.loads(capsys.readouterr().out)["suggestion"]
    assert len(values["TRAIN.SCALES"]) == 2
    assert values["TRAIN.CHIP_SIZE"] == 64


@pytest.mark.parametrize(
    "flags",
    [
        ["--levels", "0"],
        ["--levels", "9"],
        ["--chip-size", "100"],
        ["--chip-size", "16"],
        ["--min-side", "90"],
        ["--max-side", "900"],
    ],
)
def test_wrong_flags(tiny_set, flags):
    assert main(["--cfg", str(tiny_set.recipe), *flags]) == 2


def test_help_teaches(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for text in ("32 and\n450 px", "(3, 1.667, long side 512)", "examples:", "--plot"):
        assert text in shown

"""`sniper chip-stats` on a set that is small enough to count by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sniper.chips.measures import measure
from sniper.config import load_config
from sniper.runs.resolve import chip_settings
from sniper.tools.chip_stats import main
from sniper.tools.explain.chip_numbers import statistics, table
from sniper.tools.explain.training_set import TrainingSet, load_training_set
from sniper.vis.plots import ChipStatsView, plot_chip_stats

LEVEL_KEYS = {
    "level", "scale", "valid_range", "boxes_in_range", "boxes_trained", "images", "positive",
    "negative", "background", "area_unseen", "others", "others_unseen",
}  # fmt: skip


def numbers_of(tiny_set, *overrides):
    data = load_training_set(str(tiny_set.recipe), overrides)
    measures = measure(data.records, chip_settings(data.cfg), seed=data.cfg.seed, epoch=0)
    return statistics(data, measures)


def test_numbers(tiny_set):
    numbers = numbers_of(tiny_set, "TRAIN.FLIP", "False")
    assert (numbers.images, numbers.mirrored, numbers.boxes) == (3, 0, 6)
    fine, coarse = numbers.levels
    # Sizes 27, 73, 27, 20, 24 and 199 px; ranges below 60 and from 40 px.
    assert (fine.boxes_in_range, coarse.boxes_in_range) == (4, 2)
    assert (fine.scale, fine.valid_range) == ("x1.5", "below 60")
    assert (coarse.scale, coarse.valid_range) == ("long side 128", "from 40")
    assert coarse.positive == coarse.images == 2
    assert fine.images == 3
    assert {row.name: row.boxes for row in numbers.fates if row.boxes} == {"trained": 6}
    assert numbers.chips == fine.positive + coarse.positive
    assert numbers.pixels.chips == pytest.approx(numbers.chips * 128**2 / 3e6)
    # Levels of 200x150, 150x200 and 320x240 px at x1.5 and at a long side of 128 px.
    pyramid = 300 * 225 + 225 * 300 + 480 * 360 + 128 * 96 + 96 * 128 + 128 * 96
    assert numbers.pixels.pyramid == pytest.approx(pyramid / 3e6)


def test_the_sizes_that_chips_are_made_for(tiny_set):
    keys = ("TRAIN.CHIP_RANGES", "[[-1, 50], [50, -1]]", "TRAIN.SIDE_LIMITS", "[29, -1]")
    numbers = numbers_of(tiny_set, "TRAIN.FLIP", "False", *keys)
    fine, coarse = numbers.levels
    # Boxes of 30x25, 90x60, 25x30, 20x20, 20x30 and 200x200 px (a side less its last px counts).
    assert (fine.boxes_in_range, coarse.boxes_in_range) == (1, 5)
    assert fine.valid_range == "below 50, no side of 29 px or more"
    assert coarse.valid_range == "from 50 or a side of 29 px and more"
    # The third box of the largest image has 8 px on the coarse level.
    assert (fine.boxes_trained, fine.positive, coarse.boxes_trained) == (1, 1, 4)
    lines = table(numbers)
    assert len({line.index("chips +") for line in lines if "chips +" in line}) == 1
    assert next(line for line in lines if line.startswith("1:")).split()[-6:-4] == ["5", "4"]


def test_levels_that_see_too_little_are_told(tiny_set):
    numbers = numbers_of(tiny_set, "TRAIN.FLIP", "False")
    fine, coarse = numbers.levels
    assert (fine.others, coarse.others) == (2, 4)
    assert 0.4 < fine.area_unseen < 1 and fine.others_unseen <= 2
    lines = "\n".join(table(numbers))
    assert (
        f"level 0: {fine.area_unseen:.0%} of the area, {fine.others_unseen} of 2 objects" in lines
    )
    assert "no negative chips at level 0" in lines and "TRAIN.USE_NEG_CHIPS mine" in lines
    numbers = numbers_of(tiny_set, "TRAIN.BACKGROUND_CHIPS", "20")
    assert numbers.levels[0].background == numbers.levels[0].negative > 6
    assert "no negative chips at level 0" not in "\n".join(table(numbers))


def test_mirrored_copies_double_everything(tiny_set):
    once, twice = numbers_of(tiny_set, "TRAIN.FLIP", "False"), numbers_of(tiny_set)
    assert (twice.images, twice.mirrored, twice.boxes) == (6, 3, 12)
    assert twice.pixels.pyramid == pytest.approx(once.pixels.pyramid)


def test_boxes_that_are_not_trained_are_explained(tiny_set):
    tiny_set.add(9, [105, 105, 5, 5])
    tiny_set.add(9, [5, 5, 90, 10])
    tiny_set.write()
    numbers = numbers_of(tiny_set, "TRAIN.FLIP", "False")
    fates = {row.name: row.boxes for row in numbers.fates if row.boxes}
    assert fates == {"trained": 6, "too_small": 1, "too_long": 1}
    lines = "\n".join(table(numbers))
    assert "boxes below 10 px in every chip" in lines
    assert "-> a larger first factor" in lines
    numbers = numbers_of(tiny_set, "TRAIN.VALID_RANGES", "[(-1, 22), (100, -1)]")
    assert next(row.boxes for row in numbers.fates if row.name == "no_range") > 0


def test_crowded_chips_are_counted(tiny_set):
    numbers = numbers_of(tiny_set, "TRAIN.MAX_GT", "1")
    assert numbers.fullest_chip >= 2
    assert numbers.chips_over_max_gt > 0
    assert "hold more than TRAIN.MAX_GT 1 boxes" in "\n".join(table(numbers))


def test_images_without_chips_do_not_break_the_numbers(tiny_set):
    data = load_training_set(str(tiny_set.recipe), ["TRAIN.VALID_RANGES", "[(-1, 2), (900, -1)]"])
    measures = measure(data.records, chip_settings(data.cfg), seed=0, epoch=0)
    numbers = statistics(data, measures)
    assert (numbers.chips, numbers.images_without_chips, numbers.chips_per_image) == (0, 6, 0)
    assert any("no valid" in line or "valid at no" in line for line in table(numbers))


def test_the_coco_rule_is_named(tiny_set):
    data = load_training_set(str(tiny_set.recipe), ())
    cfg = load_config("sniper_res101_e2e", ["gpus", "cpu"])
    measures = measure(data.records, chip_settings(cfg), seed=0, epoch=0)
    numbers = statistics(TrainingSet(cfg, data.records, data.class_names), measures)
    assert numbers.coco_override
    assert any("2018 rule for COCO" in line for line in table(numbers))


def test_more_trained_than_in_range_is_explained(tiny_set):
    numbers = numbers_of(tiny_set)
    levels = [replace(row, boxes_trained=row.boxes_in_range) for row in numbers.levels]
    same = "\n".join(table(replace(numbers, levels=tuple(levels))))
    assert "trained may be above" not in same
    levels[0] = replace(levels[0], boxes_trained=levels[0].boxes_in_range + 1)
    assert "trained may be above in range" in "\n".join(
        table(replace(numbers, levels=tuple(levels)))
    )


@pytest.mark.parametrize(
    ("counts", "label"),
    [
        (np.arange(30), "chips of an image"),
        (np.arange(300), "chips of an image (bars of 10 numbers)"),
        (np.r_[np.full(200, 100), 9000], "bars of 4 numbers, the last: 100 and more, up to 9000)"),
    ],
)
def test_bars_of_chips_per_image_stay_few(counts, label):
    view = ChipStatsView("h", ["0"], [1], [0], counts, {"a": 1.0, "b": 2.0}, {})
    axes = plot_chip_stats(view).axes[1]
    assert label in axes.get_xlabel() and len(axes.patches) <= 31
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(100)


def test_command_json_and_plot(tiny_set, capsys):
    plot, path = tiny_set.root / "a" / "plot.png", tiny_set.root / "numbers.json"
    flags = ["--cfg", str(tiny_set.recipe), "--plot", str(plot)]
    assert main([*flags, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "tiny, herbst: 6 images (3 mirrored), 12 boxes, epoch 0" in printed
    assert "0: x1.5" in printed
    content = json.loads(path.read_text())
    assert list(content)[:2] == ["tool", "version"]
    assert set(content) >= {
        "config", "image_set", "epoch", "coco_override", "images", "boxes", "levels", "fates",
        "chips", "negative_chips", "chips_per_image", "pixels", "fullest_chip",
    }  # fmt: skip
    assert all(set(level) == LEVEL_KEYS for level in content["levels"])
    assert set(content["pixels"]) == {
        "chips", "pyramid", "single_scale", "share_of_pyramid", "times_single_scale",
    }  # fmt: skip
    assert sum(fate["boxes"] for fate in content["fates"]) == content["boxes"]
    first = plot.read_bytes()
    assert main([*flags, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == content
    assert plot.read_bytes() == first


def test_some_images_only(tiny_set, capsys):
    assert main(["--cfg", str(tiny_set.recipe), "--images", "2", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    assert main(["--cfg", str(tiny_set.recipe), "--images", "-1"]) == 2
    assert main(["--cfg", str(tiny_set.recipe), "--image_set", "sommer"]) == 3


def test_help_teaches(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for text in ("coverage", "against the full pyramid", "--plot", "examples:"):
        assert text in shown

"""FocusChips made of the labels, in `sniper show-chips`."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sniper.tools.explain import focus_sheet as sheets
from sniper.tools.explain.focus_sheet import focus_levels, focus_sheet, focus_summary
from sniper.tools.explain.training_set import load_training_set
from sniper.tools.show_chips import main, pick
from sniper.vis.chip_pictures import IGNORED, NEVER, VALID

FOCUS = """
symbol: resnet_mx_18_e2e
network: {ACTIVATION: relu6, RPN_FEAT_STRIDE: 16}
"""
TRAIN = """
  AUTO_FOCUS: true
  AUTO_FOCUS_DC_LOW: 5
  AUTO_FOCUS_SMALL_THRESH: 40
  AUTO_FOCUS_DC_HIGH: 60
TEST:
  SCALES: [[240, 320], [480, 640]]
  VALID_RANGES: [[30, -1], [-1, 40]]
  BATCH_IMAGES: [1, 1]
  AUTO_FOCUS: true
  DO_PRUNING: [false, true]
  CHIP_HYPERPARAMS: [[1, 0.5, 4], [-1, -1, -1]]
"""


@pytest.fixture
def focus_set(tiny_set):
    """The recipe with the branch; image 9 has 320x240 px."""
    text = tiny_set.recipe.read_text() + TRAIN.lstrip("\n")
    tiny_set.recipe.write_text(text + FOCUS)
    return tiny_set


def load(focus_set, image_id=9, *overrides):
    data = load_training_set(str(focus_set.recipe), overrides)
    return data, pick(data, ids=[image_id])[0].record


def test_the_second_level_sees_the_chips_around_small_boxes(focus_set):
    data, record = load(focus_set)
    coarse, fine = focus_levels(data.cfg, record)
    assert coarse.chips.tolist() == [[0, 0, 320, 240]] and coarse.factor == 1.0
    marked = np.zeros((15, 20), bool)
    marked[6:9, 6:9] = True  # 100 ... 119: cells 6 and 7, and the one at the end
    marked[5:9, 8:11] = True  # x 130 ... 149, y 90 ... 119
    assert np.array_equal(coarse.focus[0], marked)
    assert fine.chips.tolist() == [[96, 80, 176, 144]]  # 5 x 4 cells
    assert fine.factor == 2.0 and fine.network_px == 80 * 64 * 4
    assert coarse.found.tolist() == [False, False, True]
    assert fine.found.tolist() == [False, True, False]
    assert "1 + 1 windows" in focus_summary(record, [coarse, fine])


def test_what_touches_a_border_inside_the_image_is_not_found(focus_set):
    """Box 0 begins 4 px from the left side of its chip."""
    data, record = load(focus_set)
    _, fine = focus_levels(data.cfg, record)
    assert not fine.found[0]
    data, record = load(focus_set, 9, "TEST.CHIP_HYPERPARAMS", "[[3, 0.5, 4], [-1, -1, -1]]")
    _, fine = focus_levels(data.cfg, record)
    assert fine.chips.tolist() == [[80, 64, 192, 160]]
    assert fine.found.tolist() == [True, True, False]


def test_without_pruning_every_level_sees_the_image(focus_set):
    data, record = load(focus_set, 9, "TEST.DO_PRUNING", "[false, false]")
    coarse, fine = focus_levels(data.cfg, record)
    assert fine.chips.tolist() == coarse.chips.tolist()
    assert "100 % of the full pyramid's pixels, 0 of 3" in focus_summary(record, [coarse, fine])


def test_an_image_without_small_objects_has_no_windows(focus_set):
    data, record = load(focus_set, 7, "TRAIN.AUTO_FOCUS_SMALL_THRESH", "20")
    coarse, fine = focus_levels(data.cfg, record)
    assert not coarse.focus[0].any()
    assert fine.chips.shape == (0, 4) and fine.network_px == 0 and not fine.found.any()
    assert cv2.countNonZero(_drawn(data.cfg, record, [coarse, fine])[..., 0])


def _drawn(cfg, record, levels):
    figure = focus_sheet(cfg, record, levels)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def test_panels_of_the_sheet(focus_set, monkeypatch):
    data, record = load(focus_set)
    drawn = []
    monkeypatch.setattr(sheets, "draw_levels", lambda *args, **named: drawn.append((args, named)))
    focus_sheet(data.cfg, record, focus_levels(data.cfg, record))
    (image, heading, panels), named = drawn[0]
    assert image.shape == (240, 320, 3) and "id 9" in heading
    coarse, fine = panels
    assert coarse.states == [NEVER, IGNORED, VALID]
    assert fine.states == [NEVER, VALID, IGNORED]
    assert coarse.focus.shape == (240, 320) and coarse.focus[96:144, 96:144].all()
    assert coarse.focus.sum() == (9 + 12 - 3) * 256
    # At twice the size box 1 is no FocusPixel any more.
    assert fine.focus[100:118, 100:118].all() and not fine.focus[:, 132:].any()
    assert not fine.focus[:80].any()
    assert "80x64" not in fine.title and "640x480 px" in fine.title
    assert set(named["texts"]) == {VALID, IGNORED, NEVER}


def test_focus_pixels_are_drawn(focus_set):
    data, record = load(focus_set)
    levels = focus_levels(data.cfg, record)
    plain = focus_levels(data.cfg, record)
    for level in plain:
        for cells in level.focus:
            cells[:] = False
    changed = (_drawn(data.cfg, record, levels) != _drawn(data.cfg, record, plain)).any(axis=2)
    assert changed.sum() > 1000


def test_the_command_draws_it_for_recipes_with_the_branch(focus_set, capsys):
    out = focus_set.root / "pictures"
    flags = ["--cfg", str(focus_set.recipe), "--ids", "9", "--tensors", "0", "--out", str(out)]
    assert main(flags) == 0
    assert "9_focus.png: 1 + 1 windows, " in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["9_focus.png", "9_levels.png"]
    assert min(cv2.imread(str(out / "9_focus.png")).shape[:2]) > 300


def test_settings_that_make_no_chips_are_a_config_error(focus_set, capsys):
    flags = ["--cfg", str(focus_set.recipe), "--ids", "9", "--tensors", "0"]
    assert main([*flags, "--set", "TEST.CHIP_HYPERPARAMS", "[[-1, -1, -1], [-1, -1, -1]]"]) == 2
    assert "CHIP_HYPERPARAMS" in capsys.readouterr().err

"""`sniper show-chips`: which images it takes, what the panels hold, that MXNet is not needed."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from sniper.data import ProposalSet, save_proposals
from sniper.errors import DataError
from sniper.loader.sample import make_sample
from sniper.runs.resolve import batch_settings
from sniper.tools.explain import chip_sheets
from sniper.tools.explain.chip_sheets import level_sheet, tensor_panel, tensor_sheet
from sniper.tools.explain.training_set import load_training_set
from sniper.tools.show_chips import main, pick
from sniper.vis.chip_pictures import IGNORED, NEVER, VALID
from sniper.vis.figures import png_bytes


def load(tiny_set, *overrides):
    return load_training_set(str(tiny_set.recipe), overrides)


def with_negatives(tiny_set):
    """36 false alarms in a corner of image 7, so that it has a negative chip."""
    corners = np.mgrid[120:168:8, 92:140:8].reshape(2, -1).T.astype(np.float32)
    save_proposals(
        tiny_set.root / "proposals" / "COCO_herbst_rpn.npz",
        ProposalSet(
            "COCO_herbst",
            np.array([7, 8, 9, 12], np.int64),
            np.array([0, 36, 36, 36, 36], np.int64),
            np.concatenate([corners, corners + 9], axis=1),
            np.linspace(1, 0.5, 36).astype(np.float32),
        ),
    )
    return load(tiny_set, "TRAIN.USE_NEG_CHIPS", "True")


def panels_of(monkeypatch, data, item):
    """What `level_sheet` hands to the drawing."""
    drawn = []
    monkeypatch.setattr(chip_sheets, "draw_levels", lambda *arguments: drawn.append(arguments))
    level_sheet(data, item)
    return drawn[0]


def test_images_are_spread_evenly_and_always_the_same(tiny_set):
    data = load(tiny_set)
    assert [item.record.image_id for item in pick(data, 2)] == [7, 9]
    assert [item.record.image_id for item in pick(data, 9)] == [7, 8, 9]
    assert [item.name for item in pick(data, 9, flipped=True)] == [
        "7_flipped", "8_flipped", "9_flipped",
    ]  # fmt: skip
    assert [item.record.image_id for item in pick(data, 1, [9, 8])] == [8, 9]


def test_chips_are_those_of_training(tiny_set):
    """The choice of images must not change their chips."""
    data = load(tiny_set)
    alone = pick(data, ids=[9], epoch=3)[0].chips
    among = next(i for i in pick(data, 9, epoch=3) if i.record.image_id == 9).chips
    assert [chip.rect for chip in alone] == [chip.rect for chip in among]


def test_unknown_ids_and_missing_copies(tiny_set):
    with pytest.raises(DataError, match="5, 12"):
        pick(load(tiny_set), ids=[7, 12, 5])
    with pytest.raises(DataError, match="FLIP"):
        pick(load(tiny_set, "TRAIN.FLIP", "False"), flipped=True)


def test_states_of_boxes(tiny_set, monkeypatch):
    tiny_set.add(9, [105, 105, 5, 5])  # below 10 px at both levels
    tiny_set.write()
    data = load(tiny_set)
    item = pick(data, ids=[9])[0]
    image, heading, panels = panels_of(monkeypatch, data, item)
    assert image.shape == (240, 320, 3)
    assert "id 9, 320x240 px" in heading
    fine, coarse = panels
    assert fine.states == [VALID, VALID, IGNORED, NEVER]
    assert coarse.states == [IGNORED, IGNORED, VALID, NEVER]
    assert "level 0, x1.5 = 480x360 px: sqrt(area) below 60 px" in fine.title
    assert "2 box(es) trained" in fine.title
    assert len(coarse.chips) == 1


def test_negative_chips_and_false_alarms(tiny_set, monkeypatch):
    data = with_negatives(tiny_set)
    item = pick(data, ids=[7])[0]
    _, heading, panels = panels_of(monkeypatch, data, item)
    assert "1 negative" in heading
    fine = panels[0]
    assert [chip.negative for chip in fine.chips].count(True) == 1
    assert len(fine.alarms) > 10
    assert not len(panels[1].alarms)
    numbers = [chip.number for panel in panels for chip in panel.chips]
    assert sorted(numbers) == list(range(1, len(item.chips) + 1))
    assert png_bytes(tensor_sheet(data, item, 0, 9)).startswith(b"\x89PNG")


def test_crowd_regions_of_coco_are_drawn(tiny_set, monkeypatch, capsys):
    tiny_set.add(9, [150, 20, 61, 41], iscrowd=1)
    tiny_set.write()
    data = load(tiny_set)
    item, mirrored = pick(data, ids=[9])[0], pick(data, ids=[9], flipped=True)[0]
    _, heading, panels = panels_of(monkeypatch, data, item)
    assert "3 boxes, 1 group or crowd regions" in heading
    for panel in panels:
        assert panel.crowd.tolist() == [[150, 20, 210, 60]]
        assert len(panel.states) == 3  # it is no object
    _, _, panels = panels_of(monkeypatch, data, mirrored)
    assert panels[0].crowd.tolist() == [[109, 20, 169, 60]]
    settings = batch_settings(data.cfg)
    whole = next(n for n, chip in enumerate(item.chips) if chip.level == 1)
    chip, crowd = item.chips[whole], tensor_panel(data, item, settings, whole, 0).crowd
    origin = np.tile(chip.rect[:2], 2)
    expected = (np.array([150, 20, 211, 61]) - origin) * chip.factor - [0, 0, 1, 1]
    np.testing.assert_allclose(crowd, [expected], atol=1)
    _, heading, panels = panels_of(monkeypatch, data, pick(data, ids=[7])[0])
    assert "crowd" not in heading and not len(panels[0].crowd)


def test_group_boxes_of_open_images_are_drawn(tiny_set, monkeypatch):
    """The same images in the official tables, two boxes of one image as a group."""
    folder, titles = tiny_set.root / "data", "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf"
    rows = ["a,/m/1,0.1,0.3,0.2,0.5,0", "a,/m/1,0.5,0.75,0.4,0.8,1", "b,/m/2,0.2,0.6,0.2,0.6,0"]
    (folder / "herbst-annotations-bbox.csv").write_text("\n".join([titles, *rows]) + "\n")
    (folder / "class-descriptions-boxable.csv").write_text("/m/1,kite\n/m/2,ant\n")
    for name, image in (("a", 7), ("b", 8)):
        tiny_set.image(image).rename(tiny_set.image(image).with_name(f"{name}.jpg"))
    names = ("dataset.dataset", "openimages", "dataset.NUM_CLASSES", "3")
    data = load(tiny_set, *names)
    item = pick(data, ids=["a"])[0]
    _, heading, panels = panels_of(monkeypatch, data, item)
    assert "1 boxes, 1 group or crowd regions" in heading
    np.testing.assert_allclose(panels[0].crowd, [[100, 60, 149, 119]], atol=0.1)


def test_tensors_are_those_of_the_loader(tiny_set):
    data = load(tiny_set)
    item, settings = pick(data, ids=[9])[0], batch_settings(data.cfg)
    panel = tensor_panel(data, item, settings, 0, 0)
    sample = make_sample(item.record, item.chips[0], settings)
    np.testing.assert_array_equal(panel.data, sample["data"])
    used = sample["gt_boxes"][sample["gt_boxes"][:, 4] >= 0]
    np.testing.assert_array_equal(panel.boxes, used[:, :4])
    assert panel.labels == [data.class_names[int(c)] for c in used[:, 4]]
    assert [(label.shape, stride) for label, stride in panel.anchors] == [((15, 8, 8), 16)]
    assert (panel.anchors[0][0] == 1).sum() == (sample["label"] == 1).sum()
    assert f"boxes {panel.states.count(VALID)} valid" in panel.title
    again = tensor_panel(data, item, settings, 0, 0)
    np.testing.assert_array_equal(panel.anchors[0][0], again.anchors[0][0])


def test_rpn_only_training_has_boxes_too(tiny_set):
    data = load(tiny_set, "TRAIN.ONLY_PROPOSAL", "True")
    item = pick(data, ids=[9])[0]
    panel = tensor_panel(data, item, batch_settings(data.cfg), 0, 0)
    assert VALID in panel.states
    assert "valid 0" not in panel.title


def test_focus_pixels(tiny_set):
    focus = ("TRAIN.AUTO_FOCUS", "True", "TRAIN.AUTO_FOCUS_SMALL_THRESH", "64")
    ranges = ("TRAIN.AUTO_FOCUS_DC_LOW", "5", "TRAIN.AUTO_FOCUS_DC_HIGH", "90")
    data = load(tiny_set, *focus, *ranges)
    item = pick(data, ids=[9])[0]
    panel = tensor_panel(data, item, batch_settings(data.cfg), 0, 0)
    focus, stride = panel.focus
    assert focus.shape == (8, 8) and stride == 16
    assert (focus == 1).any()
    assert (
        tensor_panel(load(tiny_set), item, batch_settings(load(tiny_set).cfg), 0, 0).focus is None
    )


def test_command(tiny_set, capsys):
    out = tiny_set.root / "pictures"
    flags = ["--cfg", str(tiny_set.recipe), "--ids", "9", "--out", str(out)]
    assert main(flags) == 0
    printed = capsys.readouterr().out
    assert f"{out / '9_levels.png'}: " in printed
    assert "positive and 0 negative chips, 3 boxes" in printed
    files = sorted(path.name for path in out.iterdir())
    assert files == ["9_levels.png", "9_tensors.png"]
    for name in files:
        assert min(cv2.imread(str(out / name)).shape[:2]) > 300
    before = {name: (out / name).read_bytes() for name in files}
    assert main(flags) == 0
    assert before == {name: (out / name).read_bytes() for name in files}


def test_default_folder_and_no_tensors(tiny_set):
    flags = ["--cfg", str(tiny_set.recipe), "--images", "1", "--tensors", "0", "--flipped"]
    assert main(flags) == 0
    folder = tiny_set.root / "output" / "tiny" / "herbst" / "chips"
    assert [path.name for path in folder.iterdir()] == ["7_flipped_levels.png"]


def test_many_chips_are_thinned_out(tiny_set, monkeypatch):
    data = load(tiny_set)
    item = pick(data, ids=[9])[0]
    drawn = []
    monkeypatch.setattr(chip_sheets, "draw_tensors", lambda *arguments: drawn.append(arguments))
    tensor_sheet(data, item, 0, 1)
    heading, panels, _ = drawn[0]
    assert len(panels) == 1
    assert f"1 of {len(item.chips)} chips" in heading


def test_wrong_flags(tiny_set):
    assert main(["--cfg", str(tiny_set.recipe), "--images", "0"]) == 2
    assert main(["--cfg", str(tiny_set.recipe), "--ids", "1", "--images", "2"]) == 2
    assert main(["--cfg", str(tiny_set.recipe), "--ids", "4711"]) == 3


def test_help_teaches(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for text in ("<id>_levels.png", "<id>_tensors.png", "negative chips", "examples:"):
        assert text in shown


def test_tools_for_data_work_without_mxnet(tiny_set):
    code = (
        "import importlib, sys\n"
        "sys.modules['mxnet'] = None\n"
        "for tool in ('show_chips', 'chip_stats', 'suggest_scales', 'check_data', 'report'):\n"
        "    tool = importlib.import_module(f'sniper.tools.{tool}')\n"
        f"    assert tool.main(['--cfg', {str(tiny_set.recipe)!r}]) == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr

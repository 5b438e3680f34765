"""Coarse to fine through main_test.py, demo.py and the benchmark; the weights are random."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from bench import autofocus
from sniper.config import load_config
from sniper.inference.detector import Detector
from sniper.models.assembly import build_detector, train_input_shapes
from sniper.models.initialisers import initialise
from sniper.models.weights import with_test_params, write_params
from sniper.runs import detect_set
from sniper.runs.datasets import open_dataset
from sniper.runs.folders import model_folder
from sniper.runs.load_model import load_model, make_detector
from sniper.runs.plan import test_plan
from sniper.runs.resolve import data_source, detector_spec
from sniper.tools.demo import main as demo_main
from sniper.tools.test import main as run_test

KEYS = (
    *("symbol", "resnet_mx_18_e2e_mask", "network.RPN_FEAT_STRIDE", "16"),
    *("network.ACTIVATION", "relu6", "TRAIN.WITH_MASK", "True", "TRAIN.AUTO_FOCUS", "True"),
    *("TRAIN.AUTO_FOCUS_DC_LOW", "5", "TRAIN.AUTO_FOCUS_SMALL_THRESH", "64"),
    *("TRAIN.AUTO_FOCUS_DC_HIGH", "90", "TEST.AUTO_FOCUS", "True", "TEST.MAX_PER_IMAGE", "40"),
    *("TEST.SCALES", "[[96, 128], [180, 240]]", "TEST.VALID_RANGES", "[[40, -1], [-1, 60]]"),
    *("TEST.BATCH_IMAGES", "[2, 3]", "TEST.DO_PRUNING", "[False, True]"),
)
SCALES = {
    **{"cls_score_weight": 0.02, "conv_new_out_weight": 0.1},
    **{"mask_out_weight": 20, "mask_deconv_weight": 20},
}
BOXES = ("TRAIN.WITH_MASK", "False")


class FocusNetwork:
    """A tiny untrained network with both branches, in its own output folder.

    Attributes:
        peaks: image id -> largest value of its first map.
    """

    def __init__(self, tiny):
        self.tiny = tiny
        self.output = tiny.root / "focus"
        self.keys = [*KEYS, "output_path", str(self.output)]
        cfg = load_config(tiny.cfg, self.keys)
        spec = detector_spec(cfg, train=True, batch_images=1, fp16=False)
        shapes = train_input_shapes(spec, cfg.TRAIN.CHIP_SIZE)
        arg, aux, _ = initialise(build_detector(spec, train=True), shapes, None, 3, init="scratch")
        # Scores, masks and maps that differ from place to place without being all 0 or 1.
        for name, scale in SCALES.items():
            arg[name] *= scale
        write_params(model_folder(cfg) / "SNIPER-0002.params", with_test_params(arg), aux)
        self.peaks = self._peaks()

    def _peaks(self):
        cfg = load_config(self.tiny.cfg, [*self.keys, *self.threshold(0.0)])
        dataset = open_dataset(data_source(cfg), "val")
        weights = model_folder(cfg) / "SNIPER-0002.params"
        plan = test_plan(cfg, devices="cpu")
        model = load_model(plan.detector, weights, dataset.class_names)
        with pytest.MonkeyPatch.context() as patch:
            levels = spy_on_levels(patch)
            make_detector(plan, model).detect(dataset.records)
        return {image: float(found.focus_map.max()) for image, found in levels[0].found}

    @staticmethod
    def threshold(value):
        return ("TEST.CHIP_HYPERPARAMS", f"[[1, {value}, 3], [-1, -1, -1]]")

    @property
    def between(self):
        """A threshold that one image does not reach."""
        lowest, second = sorted(self.peaks.values())[:2]
        return (lowest + second) / 2

    def arguments(self, *flags, keys=()):
        return ["--cfg", str(self.tiny.cfg), *flags, "--set", *self.keys, *keys]

    def results(self, *flags, keys=()):
        """Rows of the results file, and the report, of a run of main_test.py."""
        assert run_test(self.arguments(*flags, keys=keys)) == 0
        folder = self.output / "results"
        names = ("detections_val_results.json", "detections_val_report.json")
        return tuple(json.loads((folder / name).read_text()) for name in names)


class Level:
    """What a level of a detector was called with and gave, by image id."""

    def __init__(self, records, windows):
        self.ids = [record.image_id for record in records]
        self.windows = dict(zip(self.ids, windows))
        self.found = []


def spy_on_levels(patch):
    """Collects the levels that run from now on."""
    levels, run_level = [], Detector.run_level

    def spying(self, index, run, windows):
        level = Level(run.records, windows)
        levels.append(level)
        for found in run_level(self, index, run, windows):
            level.found.append((level.ids[found.image_index], found))
            yield found

    patch.setattr(Detector, "run_level", spying)
    return levels


@pytest.fixture(scope="module")
def network(tiny):
    return FocusNetwork(tiny)


def test_the_finer_level_sees_focus_chips(network, monkeypatch, capsys):
    """One of the three images has no focus: the finer level skips it."""
    levels = spy_on_levels(monkeypatch)
    rows, report = network.results(keys=network.threshold(network.between))
    coarse, fine = levels
    whole = {image: own[0] for image, own in coarse.windows.items()}
    assert len(whole) == sum(map(len, coarse.windows.values())) == 3
    skipped = [image for image, own in fine.windows.items() if not own]
    assert skipped == [min(network.peaks, key=network.peaks.get)]
    for image, own in fine.windows.items():
        assert len(set(own)) == len(own)
        for x1, y1, x2, y2 in own:
            assert 0 <= x1 < x2 <= whole[image][2] and 0 <= y1 < y2 <= whole[image][3]
    seen = {(image, found.chip_index) for image, found in fine.found}
    assert seen == {(image, n) for image, own in fine.windows.items() for n in range(len(own))}
    assert len(seen) == len(fine.found) >= 2
    share = report["speed"]["percent_of_pixels"]
    assert 20 < share < 90
    assert "focus: 3 images in " in capsys.readouterr().err
    assert len({row["image_id"] for row in rows}) == 3 and len(rows) > 15
    assert all(set(row["segmentation"]) == {"size", "counts"} for row in rows)
    assert "masks" in report


def test_focus_everywhere_is_the_full_pyramid(network):
    """Every cell is focus: the chip is the image."""
    everywhere, report = network.results(keys=network.threshold(0.0))
    full, _ = network.results(keys=("TEST.MODE", "pyramid"))
    assert everywhere == full
    assert report["speed"]["percent_of_pixels"] == pytest.approx(100)


def test_focus_nowhere_is_the_coarse_level(network):
    nowhere, report = network.results(keys=network.threshold(1.0))
    one = ("TEST.SCALES", "[[96, 128]]", "TEST.VALID_RANGES", "[[40, -1]]")
    one += ("TEST.BATCH_IMAGES", "[2]", "TEST.DO_PRUNING", "[False]")
    one += ("TEST.CHIP_HYPERPARAMS", "[[-1, -1, -1]]", "TEST.USE_CACHE", "[False]")
    assert nowhere == network.results(keys=one)[0]
    assert report["speed"]["percent_of_pixels"] < 40


def test_boxes_do_not_depend_on_masks_or_batches(network):
    focus = network.threshold(network.between)
    with_masks, _ = network.results(keys=focus)
    for row in with_masks:
        del row["segmentation"]
    boxes, report = network.results(keys=(*focus, *BOXES))
    assert "masks" not in report
    assert with_masks == boxes
    single = network.results(keys=(*focus, *BOXES, "TEST.BATCH_IMAGES", "[1, 1]"))[0]
    assert single == boxes


def test_the_demo_finds_what_the_test_finds(network, tiny, tmp_path):
    focus = network.threshold(network.between)
    rows, _ = network.results(keys=focus)
    best = max(rows, key=lambda row: row["score"])
    annotations = json.loads((tiny.root / "toy/annotations/instances_val.json").read_text())
    name = next(i["file_name"] for i in annotations["images"] if i["id"] == best["image_id"])
    out = tmp_path / "drawn.png"
    flags = ("--im_path", str(tiny.root / "toy" / "images" / "val" / name), "--out", str(out))
    assert demo_main(network.arguments(*flags, keys=focus)) == 0
    assert out.exists()
    (image,) = json.loads(out.with_suffix(".json").read_text())["images"]
    found = sorted(one["score"] for one in image["detections"])
    own = [row["score"] for row in rows if row["image_id"] == best["image_id"]]
    assert found == pytest.approx(sorted(score for score in own if score >= 0.5), abs=1e-4)
    assert found


def test_two_jobs_find_the_same(network, monkeypatch):
    monkeypatch.setattr(detect_set, "_BLOCK_IMAGES", (1, 1))
    focus = (*network.threshold(network.between), *BOXES)
    one, _ = network.results(keys=focus)
    two, report = network.results(keys=(*focus, "TEST.CONCURRENT_JOBS", "2"))
    assert one == two
    assert report["speed"]["jobs"] == 2 and report["speed"]["percent_of_pixels"] < 90


@pytest.mark.parametrize("mode", ["single", "slice"])
def test_the_other_modes_run_with_the_same_weights(network, mode):
    windows = ("TEST.SLICE_SIZE", "96", "TEST.SLICE_FACTOR", "1.5", "TEST.MODE", mode)
    rows, report = network.results(keys=(*BOXES, *windows))
    assert rows and report["speed"]["mode"] == mode


def test_the_benchmark(network, tmp_path, capsys, monkeypatch):
    # The benchmark sets it for its process; processes that later tests start must not inherit it.
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
    out = tmp_path / "out.json"
    slices = ("TEST.SLICE_SIZE", "96", "TEST.SLICE_FACTOR", "1.5")
    keys = (*BOXES, *slices, *network.threshold(network.between))
    flags = ("--rounds", "2", "--images", "2", "--threads", "1", "--out", str(out))
    assert autofocus.main(network.arguments(*flags, keys=keys)) == 0
    printed = capsys.readouterr().out
    assert "| pyramid |" in printed and "focus: pixels " in printed
    content = json.loads(out.read_text())
    assert list(content["modes"]) == list(autofocus.MODES) and content["images"] == 2
    pyramid, focus = content["modes"]["pyramid"], content["modes"]["focus"]
    assert pyramid["pixel_share"] == pytest.approx(1) and pyramid["ratios"] == [1, 1]
    assert focus["pixel_share"] < 1 and len(focus["times_s"]) == 2
    expected = np.divide(focus["times_s"], pyramid["times_s"])
    assert focus["ratios"] == pytest.approx(expected.tolist())

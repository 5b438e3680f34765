"""main_test.py and demo.py with a network that has a mask head; the weights are random."""

from __future__ import annotations

import contextlib
import io
import json
import shutil

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sniper.config import load_config
from sniper.models.assembly import build_detector, train_input_shapes
from sniper.models.initialisers import initialise
from sniper.models.weights import with_test_params, write_params
from sniper.runs import detect_set
from sniper.runs.folders import model_folder
from sniper.runs.resolve import detector_spec
from sniper.tools.demo import main as demo_main
from sniper.tools.test import main as run_test

MASKS = ("symbol", "mobilenetv2_e2e_mask", "TRAIN.WITH_MASK", "True", "TEST.MAX_PER_IMAGE", "40")


class MaskNetwork:
    """A tiny untrained network with masks, in its own output folder."""

    def __init__(self, tiny):
        self.tiny = tiny
        self.output = tiny.root / "masks"
        self.overrides = [*MASKS, "output_path", str(self.output)]
        cfg = load_config(tiny.cfg, self.overrides)
        spec = detector_spec(cfg, train=True, batch_images=1, fp16=False)
        symbol = build_detector(spec, train=True)
        shapes = train_input_shapes(spec, cfg.TRAIN.CHIP_SIZE)
        arg, aux, _ = initialise(symbol, shapes, None, 3, init="scratch")
        # Last layers that say something, so that scores and masks differ from place to place.
        for name in ("cls_score_weight", "mask_out_weight", "mask_deconv_weight"):
            arg[name] *= 20
        self.results = self.output / "results"
        write_params(model_folder(cfg) / "SNIPER-0002.params", with_test_params(arg), aux)

    def arguments(self, *flags, overrides=()):
        return ["--cfg", str(self.tiny.cfg), *flags, "--set", *self.overrides, *overrides]

    def read(self, name):
        return json.loads((self.results / name).read_text())


@pytest.fixture(scope="module")
def network(tiny):
    return MaskNetwork(tiny)


def test_results_and_report_have_masks(network, tiny, capsys):
    pictures = ("TEST.VISUALIZATION_PATH", str(tiny.root / "mask_pictures"))
    assert run_test(network.arguments("--vis", overrides=pictures)) == 0
    logged = capsys.readouterr().err
    assert "box AP in percent" in logged and "mask AP in percent" in logged
    rows = network.read("detections_val_results.json")
    assert len(rows) > 20
    assert all(set(row["segmentation"]) == {"size", "counts"} for row in rows)
    assert len({row["segmentation"]["counts"] for row in rows}) > len(rows) / 2
    report = network.read("detections_val_report.json")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tiny.root / "toy" / "annotations" / "instances_val.json"))
        found = truth.loadRes(str(network.results / "detections_val_results.json"))
        evaluator = COCOeval(truth, found, iouType="segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    # The sizes of pycocotools' own loader are those of the boxes: only `all` can be compared.
    assert report["masks"]["ap"] == pytest.approx(evaluator.stats[0], abs=1e-9)
    assert report["masks"]["ap50"] == pytest.approx(evaluator.stats[1], abs=1e-9)
    assert len(list((tiny.root / "mask_pictures" / "dets_final").glob("*.jpg"))) == 3


def test_boxes_are_those_of_the_network_without_its_mask_head(network):
    assert run_test(network.arguments()) == 0
    with_masks = network.read("detections_val_results.json")
    assert run_test(network.arguments(overrides=("TRAIN.WITH_MASK", "False"))) == 0
    boxes_only = network.read("detections_val_results.json")
    assert "masks" not in network.read("detections_val_report.json")
    for row in with_masks:
        del row["segmentation"]
    assert with_masks == boxes_only


def test_a_set_without_polygons_is_evaluated_on_boxes_only(network, tiny, tmp_path, capsys):
    shutil.copytree(tiny.root / "toy", tmp_path / "toy")
    path = tmp_path / "toy" / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        del entry["segmentation"]
    path.write_text(json.dumps(content))
    overrides = ("dataset.dataset_path", str(tmp_path / "toy"))
    assert run_test(network.arguments(overrides=overrides)) == 0
    sentence = "masks on COCO_val are not evaluated: no object has a segmentation"
    assert sentence in capsys.readouterr().err
    report = network.read("detections_val_report.json")
    assert report["masks_not_evaluated"] == sentence and "ap" in report
    assert all("segmentation" in row for row in network.read("detections_val_results.json"))


def test_a_set_without_annotations_has_masks_in_its_results(network):
    overrides = ("dataset.test_image_set", "test-dev2026")
    assert run_test(network.arguments(overrides=overrides)) == 0
    rows = network.read("detections_test-dev2026_results.json")
    assert rows and all("segmentation" in row for row in rows)


def test_demo_draws_masks(network, tiny, tmp_path):
    image_path = next((tiny.root / "toy" / "images" / "val").iterdir())
    drawn = []
    for name, overrides in (("masks", ()), ("boxes", ("TRAIN.WITH_MASK", "False"))):
        out = tmp_path / f"{name}.png"
        flags = ("--im_path", str(image_path), "--out", str(out))
        assert demo_main(network.arguments(*flags, overrides=overrides)) == 0
        drawn.append(cv2.imread(str(out)).astype(int))
    image = cv2.imread(str(image_path)).astype(int)
    by_masks = (drawn[0] != drawn[1]).any(axis=2)
    assert by_masks.mean() > 0.01
    # Tinted, not covered: the picture still shows through.
    change = np.abs(drawn[0] - image)[by_masks].max(axis=1)
    assert 0 < np.median(change) < 200


def test_proposals_need_no_mask_head(network, tmp_path):
    overrides = ("TEST.EXTRACT_PROPOSALS", "True", "TEST.PROPOSAL_SAVE_PATH", str(tmp_path))
    assert run_test(network.arguments(overrides=overrides)) == 0
    assert (tmp_path / "COCO_val_rpn.npz").exists()


def test_masks_come_from_the_network_and_not_from_cached_levels(network, capsys):
    assert run_test(network.arguments()) == 0
    expected = network.read("detections_val_results.json")
    assert run_test(network.arguments(overrides=("TEST.USE_CACHE", "[True, True]"))) == 0
    assert "TEST.USE_CACHE is not in force: masks" in capsys.readouterr().err
    assert network.read("detections_val_results.json") == expected
    assert not list(network.results.glob("cache_*"))


@pytest.mark.slow
def test_two_jobs_give_the_same_masks(network, monkeypatch):
    assert run_test(network.arguments()) == 0
    expected = network.read("detections_val_results.json")
    monkeypatch.setattr(detect_set, "_BLOCK_IMAGES", (1, 1))
    assert run_test(network.arguments(overrides=("TEST.CONCURRENT_JOBS", "2"))) == 0
    assert network.read("detections_val_report.json")["speed"]["jobs"] == 2
    assert network.read("detections_val_results.json") == expected

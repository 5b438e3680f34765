"""SSH behind the programs of all detectors: levels, modes, archives, INT8, what is refused."""

from __future__ import annotations

import json
import zipfile

import cv2
import numpy as np
import pytest

from sniper import Predictor
from sniper.config import load_config
from sniper.data.cut import chip_image
from sniper.errors import ConfigError
from sniper.inference.mxnet_executor import BoundGraph
from sniper.models.assembly import build_detector, short_output_names
from sniper.models.heads.ssh import SshModule
from sniper.models.lazy import mx
from sniper.runs import int8 as int8_module
from sniper.runs.load_model import load_model
from sniper.runs.plan import test_plan
from sniper.tools.demo import main as demo
from sniper.tools.detect import main as detect
from sniper.tools.export import main as export
from sniper.tools.fit_classes import main as fit_classes
from sniper.tools.quantize import main as quantize
from sniper.tools.test import main as run_test
from tests.inference.test_box_voting import overlap
from tests.models.test_ssh_decode import slow
from tests.runs.random_run import random_ssh

# No factor is a whole number, no side a multiple of a stride.
WIDTH, HEIGHT = 211, 157


def picture(width=WIDTH, height=HEIGHT, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 10 + 2, width // 10 + 2, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return random_ssh(tmp_path_factory.mktemp("ssh"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    cv2.imwrite(str(path), picture())
    return path


def set_of_faces(root):
    """Four pictures in each of two sets, two faces in each of them."""
    for name in ("train", "val"):
        folder = root / f"WIDER_{name}" / "images" / "0--Fair"
        folder.mkdir(parents=True)
        lines = []
        for number in range(4):
            cv2.imwrite(str(folder / f"{name}{number}.png"), picture(96, 80, seed=number))
            boxes = [f"{x} 20 24 30 0 0 0 0 0 0" for x in (10, 55)]
            lines += [f"0--Fair/{name}{number}.png", "2", *boxes]
        text = root / "wider_face_split" / f"wider_face_{name}_bbx_gt.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text("\n".join(lines) + "\n")
    return root


def factor_of(short, long):
    factor = short / min(WIDTH, HEIGHT)
    return long / max(WIDTH, HEIGHT) if round(factor * max(WIDTH, HEIGHT)) > long else factor


def by_hand(run, scales, skipped):
    """The original's test of one image, a level, a module and a box at a time: rows, best first."""
    cfg = run.cfg
    plan = test_plan(cfg, devices="cpu")
    model = load_model(plan.detector, run.weights)
    graph = build_detector(plan.detector, train=False)
    names = short_output_names(graph.list_outputs())
    found = []
    for scale, without in zip(scales, skipped):
        factor = factor_of(*scale)
        size = round(HEIGHT * factor), round(WIDTH * factor)
        sides = [-(-side // 32) * 32 for side in size]
        data = chip_image(picture(), (0, 0, WIDTH, HEIGHT), factor, tuple(sides), plan.pixel_means)
        numbers = {name: np.zeros(1, np.float32) for name in ("im_ids", "chip_ids")}
        inputs = {"data": data[None], "im_info": np.float32([[*size, factor]]), **numbers}
        outputs = BoundGraph(graph, model, mx.cpu()).start(inputs)
        outputs = dict(zip(names, (output.asnumpy() for output in outputs)))
        for number in (1, 2, 3):
            module = SshModule(number)
            if module.stride in without:
                continue
            rows = slow(
                outputs[f"rpn_cls_prob_stride{module.stride}"][0],
                outputs[f"rpn_bbox_pred_stride{module.stride}"][0],
                *(module.stride, module.anchors(plan.detector)),
                legacy=True,
                top_n=cfg.TEST.PROPOSAL_OP.pre_nms_top_n,
                min_side=0,
                size=size,
            )
            found += [(*(value / factor for value in box), score) for score, box in rows]
    found = sorted((row for row in found if row[4] > cfg.TEST.MIN_SCORE), key=lambda row: -row[4])
    kept = []
    for row in found:
        if all(overlap(row, best) <= cfg.TEST.NMS for best in kept):
            kept.append(row)
    return np.array(kept), found


@pytest.mark.parametrize("mode", ["single", "pyramid"])
def test_boxes_are_those_of_the_original_rules(run, mode):
    """Every level clips to its own input, before its factor is taken back; one NMS for all."""
    test = run.cfg.TEST
    scales = [test.SINGLE_SCALE] if mode == "single" else test.SCALES
    skipped = [()] if mode == "single" else test.SKIP_STRIDES
    (prediction,) = Predictor(run.recipe, mode=mode)(picture())
    expected, pooled = by_hand(run, scales, skipped)
    assert len(prediction) == len(expected) > 10 and len(pooled) > 2 * len(expected)
    np.testing.assert_allclose(prediction.boxes, expected[:, :4], rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(prediction.scores, np.float32(expected[:, 4]))
    assert set(prediction.classes) == {1}
    ends = [((round(side * factor_of(*s)) - 1) / factor_of(*s)) for side in (WIDTH, HEIGHT)
            for s in scales]  # fmt: skip
    assert (prediction.boxes >= 0).all() and (prediction.boxes.max(axis=0) <= max(ends)).all()
    if mode == "pyramid":
        everything, _ = by_hand(run, scales, [()] * len(scales))
        assert len(everything) != len(expected) or not np.allclose(everything, expected)


def test_slices_see_faces_of_the_image_and_of_the_windows(run):
    """At borders inside the image those of the windows are left out."""
    cfg = load_config(run.recipe, ["TEST.SLICE_SIZE", "80", "TEST.SLICE_OVERLAP", "0.25"])
    (sliced,) = Predictor(cfg, run.weights, mode="slice")(picture())
    (single,) = Predictor(cfg, run.weights, mode="single")(picture())
    assert len(sliced) > len(single)
    assert (sliced.boxes >= 0).all() and (sliced.boxes[:, 2] <= WIDTH).all()
    cfg.TEST.SLICE_WITH_IMAGE = False
    (windows,) = Predictor(cfg, run.weights, mode="slice")(picture())
    sides = windows.boxes[:, 2:] - windows.boxes[:, :2] + 1
    assert len(windows) > 20 and sides.max() <= 81


def test_a_limit_of_pixels_shrinks_levels(run, caplog):
    cfg = load_config(run.recipe, ["TEST.MAX_PIXELS", "12000"])
    predictor = Predictor(cfg, run.weights, mode="pyramid")
    for _ in range(2):
        predictor(picture())
    told = [record.getMessage() for record in caplog.records if "MAX_PIXELS" in record.message]
    assert [message.partition(" would")[0][-7:] for message in told] == ["level 2", "level 3"]
    stats = predictor.take_stats()
    # 48x65 px, and twice what the limit allows.
    assert stats.pixels == pytest.approx(2 * (48**2 * WIDTH / HEIGHT + 2 * 12000), rel=0.01)


def test_voted_boxes_differ_scores_do_not(run):
    cfg = load_config(run.recipe, ["TEST.BOX_VOTING", "0.5"])
    (plain,) = Predictor(run.recipe, mode="pyramid")(picture())
    (voted,) = Predictor(cfg, run.weights, mode="pyramid")(picture())
    np.testing.assert_array_equal(voted.scores, plain.scores)
    assert (np.abs(voted.boxes - plain.boxes).max(axis=1) > 0.5).mean() > 0.1


def test_proposals_are_the_best_of_all_modules(run, tmp_path):
    """Not of the first one alone."""
    data = set_of_faces(tmp_path)
    values = ["dataset.dataset_path", data, "TEST.EXTRACT_PROPOSALS", "True"]
    values += ["TEST.PROPOSAL_SAVE_PATH", tmp_path / "proposals", "output_path", tmp_path / "out"]
    values += ["TEST.N_PROPOSAL_PER_SCALE", "30"]
    flags = ["--cfg", run.recipe, "--weights", run.weights, "--set", *values]
    assert run_test(list(map(str, flags))) == 0
    (file,) = (tmp_path / "proposals").glob("*.npz")
    with np.load(file) as arrays:
        boxes, scores = arrays["boxes"], arrays["scores"]
        offsets = arrays["offsets"]
    assert (np.diff(offsets) == 3 * 30).all()
    for start in range(0, len(scores), 30):
        assert (np.diff(scores[start : start + 30]) <= 0).all()
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1))
    assert sides.min() < 40 and sides.max() > 60


def test_networks_without_proposals_have_no_cap_of_them(run):
    many = ["TEST.PROPOSAL_OP.post_nms_top_n", "2000"]
    assert all(level.cap is None for level in test_plan(load_config(run.recipe, many)).levels)
    e2e = load_config("sniper_mobilenetv2_toy", [*many, "gpus", "cpu"])
    assert all(level.cap is not None for level in test_plan(e2e).levels)


def test_detect_demo_and_archives(run, photo, tmp_path):
    flags = ["--cfg", str(run.recipe), "--weights", str(run.weights)]
    archive = tmp_path / "ssh.zip"
    assert export([*flags, "--out", str(archive)]) == 0
    found = []
    for number, model in enumerate((["--cfg", str(run.recipe)], ["--model", str(archive)])):
        out = tmp_path / str(number)
        arguments = [str(photo), "--out", str(out), *model, "--mode", "pyramid"]
        assert detect([*arguments, "--threshold", "0.1"]) == 0
        assert (out / "drawings" / "photo.jpg").is_file()
        (image,) = json.loads((out / "detections.json").read_text())["images"]
        found.append(image["detections"])
    assert found[0] == found[1] and len(found[0]) > 10
    assert {one["category"] for one in found[0]} == {"face"}
    drawn = tmp_path / "drawn.jpg"
    assert demo([*flags, "--im_path", str(photo), "--out", str(drawn)]) == 0
    assert drawn.is_file()
    with zipfile.ZipFile(archive) as files:
        assert json.loads(files.read("meta.json"))["classes"] == ["__background__", "face"]


@pytest.mark.instruction_sets
def test_int8_finds_about_what_fp32_finds(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(int8_module, "has_int8_instructions", lambda: True)
    data, archive = set_of_faces(tmp_path), tmp_path / "int8.zip"
    flags = ["--cfg", run.recipe, "--weights", run.weights, "--out", archive]
    flags += ["--calib", 4, "--eval", 2, "--set", "dataset.dataset_path", data]
    assert quantize(list(map(str, flags))) == 0
    assert "network ms" in capsys.readouterr().out
    (int8,) = Predictor(archive, mode="single")(picture())
    (fp32,) = Predictor(run.recipe, mode="single")(picture())
    assert int8.class_names == fp32.class_names == ("__background__", "face")
    assert not np.array_equal(int8.scores, fp32.scores)
    assert abs(int8.scores[:5].mean() - fp32.scores[:5].mean()) < 0.1


def test_what_does_not_fit_is_refused_in_a_sentence(run, tmp_path, capsys):
    with pytest.raises(ConfigError, match="not trained to find FocusPixels"):
        Predictor(run.recipe, mode="focus")
    pictures = tmp_path / "pictures"
    for name in ("cup", "key"):
        (pictures / name).mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(str(pictures / name / f"{number}.png"), picture(seed=number))
    flags = ["--cfg", str(run.recipe), "--weights", str(run.weights), str(pictures)]
    assert fit_classes([*flags, "--out", str(tmp_path / "classes.npz")]) == 2
    assert "features of RoIs, which this network does not have" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="ssh has no mask head"):
        masks = load_config(run.recipe, ["TRAIN.WITH_MASK", "True"])
        Predictor(masks, run.weights)


def test_autofocus_works_where_it_was_trained(tmp_path):
    """The branch of FocusPixels reads the map of stride 16."""
    focus = ["TRAIN.AUTO_FOCUS", "True", "TEST.AUTO_FOCUS", "True"]
    focus += ["TEST.DO_PRUNING", "[False, True, True]", "TRAIN.AUTO_FOCUS_DC_LOW", "5"]
    focus += ["TRAIN.AUTO_FOCUS_SMALL_THRESH", "64", "TRAIN.AUTO_FOCUS_DC_HIGH", "90"]
    run = random_ssh(tmp_path, focus)
    (prediction,) = Predictor(run.recipe, mode="focus")(picture())
    assert len(prediction) > 10
    assert (prediction.boxes >= 0).all() and (prediction.boxes[:, 2] <= WIDTH).all()

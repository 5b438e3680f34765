"""Faces from the generator to the demo: data tools, training, test, evaluation, detection, demo."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from sniper.tools.analyze import main as analyze
from sniper.tools.check_data import main as check_data
from sniper.tools.chip_stats import main as chip_stats
from sniper.tools.demo import main as demo
from sniper.tools.detect import main as detect
from sniper.tools.evaluate import main as evaluate
from sniper.tools.show_chips import main as show_chips
from sniper.tools.suggest_scales import main as suggest_scales
from sniper.tools.test import main as run_test
from sniper.tools.toy.face_scene import FaceSceneSettings
from sniper.tools.toy.face_set import FaceSetSettings, make_face_set
from sniper.tools.train import main as train_main
from sniper.training.zero_watch import PATIENCE

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo" / "faces.jpg"
RECIPE = """
_BASE_: ssh_vgg16_wider
symbol: mobilenetv2_ssh
gpus: cpu
output_path: {root}/output
network: {{pretrained: '', FIXED_PARAMS: [upsampling], WIDTH: 0.25, ACTIVATION: relu,
  INIT: scratch, RPN_CHANNELS: 16}}
dataset: {{root_path: {root}, dataset_path: {root}/faces}}
TRAIN:
  CHIP_SIZE: 128
  SCALES: [1.5, 128.0]
  VALID_RANGES: [[-1, 60], [40, -1]]
  LEGACY_BOXES: false
  NUM_PROCESS: 0
  lr: 0.02
  lr_step: '1.5'
  REFERENCE_REPLICAS: 1
  BATCH_IMAGES: 4
  ACCUMULATION_STEPS: 1
  MAX_UPDATES: 0
  end_epoch: 1
TEST:
  SCALES: [[240, 320], [128, 128]]
  VALID_RANGES: [[-1, -1], [-1, -1]]
  BATCH_IMAGES: [2, 2]
  DO_PRUNING: [false, false]
  CHIP_HYPERPARAMS: [[-1, -1, -1], [-1, -1, -1]]
  USE_CACHE: [false, false]
  SKIP_STRIDES: [[], []]
  TEST_EPOCH: 1
"""
# A test network that has seen a few chips is sure of nothing.
THRESHOLD = "0.05"


class Faces:
    """The set and its recipe, and where the results of a test are."""

    def __init__(self, root: Path) -> None:
        self.root = root
        settings = FaceSetSettings(
            train=4, val=3, test=1, scene=FaceSceneSettings(long_side_px=240)
        )
        make_face_set(root / "faces", settings, workers=1, progress=lambda _: None)
        recipe = root / "faces.yml"
        recipe.write_text(RECIPE.format(root=root))
        self.cfg = ["--cfg", str(recipe)]
        self.model = root / "output" / "faces" / "train"
        self.results = root / "output" / "results"
        self.invalid = sum(
            line.split()[7] == "1"
            for line in (root / "faces/wider_face_split/wider_face_train_bbx_gt.txt")
            .read_text()
            .splitlines()
            if len(line.split()) == 10 and line.split()[2] != "0"
        )


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Faces:
    return Faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def trained(faces) -> Faces:
    assert train_main([*faces.cfg, "--display", "4"]) == 0
    return faces


@pytest.fixture(scope="module")
def tested(trained) -> Faces:
    assert run_test(trained.cfg) == 0
    return trained


def test_the_tools_for_data_know_faces(faces, tmp_path, capsys):
    assert check_data(faces.cfg) == 0
    shown = capsys.readouterr().out
    assert "objects of 1 classes" in shown and "0 errors" in shown
    assert f"{faces.invalid} crowd regions or difficult objects" in shown

    assert chip_stats([*faces.cfg, "--json", str(tmp_path / "stats.json")]) == 0
    assert "boxes trained" in capsys.readouterr().out

    # The suggestion is a recipe: two anchors for each of the three modules.
    suggested = faces.root / "suggested.yml"
    assert suggest_scales([*faces.cfg, "--out", str(suggested)]) == 0
    shown = capsys.readouterr()
    assert "2 for each of the strides 8, 16, 32" in " ".join(shown.out.replace("#", "").split())
    assert "training:" in shown.err and "not estimated" not in shown.err
    json_file = tmp_path / "suggested.json"
    assert suggest_scales([*faces.cfg, "--json", str(json_file), "--no-estimate"]) == 0
    content = json.loads(json_file.read_text())
    scales = content["suggestion"]["network.ANCHOR_SCALES"]
    assert len(set(scales)) == 6 and scales == sorted(scales)
    assert content["suggested"]["anchors"] >= content["now"]["anchors"] > 0.5
    assert check_data(["--cfg", str(suggested)]) == 0

    capsys.readouterr()
    assert show_chips([*faces.cfg, "--out", str(tmp_path / "chips"), "--images", "2"]) == 0
    for kind in ("levels", "tensors"):
        pictures = list((tmp_path / "chips").glob(f"*_{kind}.png"))
        assert len(pictures) == 2 and all(cv2.imread(str(path)) is not None for path in pictures)


def test_training_tells_of_the_module_that_starves(trained):
    (log,) = trained.model.glob("*.log")
    text = log.read_text()
    assert "MPos1=" in text and "MPos3=" in text
    # Chips of 128 px hold no face for the last module: said before the first update, and after
    # the first epoch, which is shorter than the patience of the progress lines.
    assert text.count("fits the anchors of stride 32 (256 to 512 px wide)") == 1
    assert text.count("MPos3 was 0 in a whole epoch") == 1
    assert "MPos1 was 0" not in text and PATIENCE > 20


def test_the_test_writes_result_files_and_numbers(tested):
    stem = tested.results / "detections_val"
    report = json.loads(Path(f"{stem}_report.json").read_text())
    assert report["lists"] and report["decides"] == "hard"
    assert all(0 <= report[level] <= 1 for level in ("easy", "medium", "hard"))
    assert report["settings"]["scales"] == ["240x320", "128x128"]
    assert report["settings"]["NMS"] == "IoU 0.3"
    names = {
        str(path.relative_to(tested.root / "faces/WIDER_val/images").with_suffix(".txt"))
        for path in (tested.root / "faces/WIDER_val/images").rglob("*.jpg")
    }
    results = Path(f"{stem}_results")
    assert {str(path.relative_to(results)) for path in results.rglob("*.txt")} == names
    assert cv2.imread(f"{stem}_precision_recall.png") is not None


def test_result_files_are_evaluated_to_the_same_numbers(tested, tmp_path, capsys):
    out = tmp_path / "report.json"
    names = ["--protocol", "wider", "--truth", str(tested.root / "faces"), "--image_set", "val"]
    names += ["--results", str(tested.results / "detections_val_results"), "--out", str(out)]
    assert evaluate(names) == 0
    # The settings stand beside the numbers.
    shown = capsys.readouterr().out
    assert "detector: mode pyramid; scales 240x320, 128x128; NMS IoU 0.3" in shown
    ours = json.loads((tested.results / "detections_val_report.json").read_text())
    theirs = json.loads(out.read_text())
    for key in ("easy", "medium", "hard", "levels", "settings"):
        assert theirs[key] == ours[key], key
    assert cv2.imread(str(tmp_path / "report_precision_recall.png")) is not None


def test_errors_are_analysed(tested, tmp_path, capsys):
    assert analyze([*tested.cfg, "--out", str(tmp_path / "analysis")]) == 0
    assert "missed" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "analysis").iterdir()} >= {
        *("summary.txt", "errors.png", "confusion.png", "analysis.json", "worst"),
    }


def test_the_model_detects_in_folders_and_in_the_demo_picture(trained, tmp_path):
    folder = trained.root / "faces" / "WIDER_test"
    more = ["--threshold", THRESHOLD]
    arguments = ["--out", str(tmp_path / "found"), "--recursive", *more, str(folder)]
    assert detect([*arguments, *trained.cfg]) == 0
    content = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert content["classes"] == ["__background__", "face"] and len(content["images"]) == 1
    for image in content["images"]:
        for found in image["detections"]:
            x, y, width, height = found["bbox"]
            assert x >= 0 and y >= 0 and width > 0 and height > 0
            assert x + width <= image["width"] and y + height <= image["height"]
    assert len(list((tmp_path / "found" / "drawings").rglob("*.jpg"))) == 1

    drawing = tmp_path / "drawing.jpg"
    assert demo([*trained.cfg, "--im_path", str(DEMO), "--out", str(drawing), *more]) == 0
    assert cv2.imread(str(drawing)).shape == cv2.imread(str(DEMO)).shape
    assert drawing.with_suffix(".json").exists()

"""`sniper quantize` and what takes its archives: main_test.py, demo.py, Predictor, bench."""

from __future__ import annotations

import json
import logging
import shutil

import mxnet as mx
import numpy as np
import pytest

from sniper import Predictor
from sniper.config import load_config
from sniper.errors import ConfigError, DataError
from sniper.inference.mxnet_executor import MxnetExecutor
from sniper.models.archive import read_archive, write_archive
from sniper.models.onnx.archive import read_onnx_archive
from sniper.runs import compare_models
from sniper.runs import int8 as quantize_module
from sniper.runs import load_model as models
from sniper.runs import plan as plan_module
from sniper.runs.devices import Device
from sniper.runs.plan import test_plan
from sniper.tools.bench import main as bench
from sniper.tools.demo import main as demo
from sniper.tools.export import main as export
from sniper.tools.quantize import main as quantize
from sniper.tools.test import main as run_test


class Made:
    """Archives of the tiny network, and the command lines that use them."""

    def __init__(self, tiny, trained, root):
        self.tiny, self.root = tiny, root
        self.weights = trained / "SNIPER-0002.params"
        self.fp32, self.int8 = root / "fp32.zip", root / "int8.zip"

    def arguments(self, *flags, overrides=()):
        output = ("output_path", str(self.root / "output"))
        return ["--cfg", str(self.tiny.cfg), *map(str, flags), "--set", *output, *overrides]

    def quantize(self, *flags, out=None, weights=None, overrides=()):
        files = ("--out", out or self.root / "other.zip", "--weights", weights or self.weights)
        return quantize(self.arguments(*files, *flags, overrides=overrides))

    def config(self, *overrides):
        return load_config(self.tiny.cfg, ["output_path", str(self.root / "output"), *overrides])


@pytest.fixture(scope="module")
def made(tiny, trained, tmp_path_factory):
    # The machine that runs the tests may have other instructions.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize_module, "has_int8_instructions", lambda: True)
        made = Made(tiny, trained, tmp_path_factory.mktemp("int8"))
        weights = ("--weights", made.weights)
        assert export(made.arguments(*weights, "--out", made.fp32)) == 0
        assert made.quantize("--calib", 4, out=made.int8, weights=made.fp32) == 0
        yield made


def test_the_archive_says_what_it_is(made):
    archive = read_archive(made.int8)
    assert archive.is_int8 and not read_archive(made.fp32).is_int8
    assert archive.meta["calibration"] == {"method": "naive", "images": 4}
    assert archive.meta["classes"] == read_archive(made.fp32).meta["classes"]
    assert "quantized_dtype" not in read_archive(made.fp32).detector.symbol.tojson()
    # The same weights and images give the same file, whatever the process did before.
    again = made.root / "again.zip"
    assert made.quantize("--calib", 4, out=again) == 0
    assert again.read_bytes() == made.int8.read_bytes()


def test_it_detects_about_what_fp32_weights_detect(made):
    image = next((made.tiny.root / "toy" / "images" / "val").glob("*.jpg"))
    fp32, int8 = (Predictor(path)(image)[0] for path in (made.fp32, made.int8))
    assert fp32.class_names == int8.class_names
    assert not np.array_equal(fp32.scores, int8.scores)
    assert abs(fp32.scores[:5].mean() - int8.scores[:5].mean()) < 0.05
    reference = Predictor(made.config(), made.weights)(image)[0]
    np.testing.assert_array_equal(fp32.scores, reference.scores)
    np.testing.assert_array_equal(fp32.boxes, reference.boxes)


def test_main_test_and_demo_take_it(made):
    assert run_test(made.arguments("--weights", made.int8)) == 0
    report = json.loads((made.root / "output/results/detections_val_report.json").read_text())
    assert report["num_images"] == 3
    image = next((made.tiny.root / "toy" / "images" / "val").glob("*.jpg"))
    flags = ("--weights", made.int8, "--im_path", image, "--out", made.root / "drawn.jpg")
    assert demo(made.arguments(*flags)) == 0
    # Without --cfg the archive's own configuration counts.
    assert demo(list(map(str, flags))) == 0


def test_evaluation_compares_both(made, capsys):
    assert made.quantize("--calib", 2, "--eval", 3) == 0
    printed = capsys.readouterr().out
    assert "3 images      fp32      INT8" in printed
    assert "ap50" in printed and "network ms" in printed


def test_a_part_of_a_set_is_evenly_spread():
    assert compare_models.spread(list(range(10)), 4) == [0, 2, 5, 7]
    assert compare_models.spread(list(range(3)), 9) == [0, 1, 2]


@pytest.mark.parametrize(
    "flags, overrides, code, words",
    [
        (("--calib", 7), (), 3, "--calib 6"),
        (("--calib", 0), (), 2, "argument --calib: expected"),
        (("--calib", 2, "--eval", -1), (), 2, "argument --eval: expected"),
        (("--calib", 2, "--calibration", "best"), (), 2, "naive or entropy"),
        (("--calib", 2, "--fp32", "conv77"), (), 2, "first-3x3-conv-conv2d"),
        (("--calib", 2), ("dataset.NUM_CLASSES", "6"), 3, "class names"),
        (("--calib", 2), ("network.ROI_CHANNELS", "32"), 3, "do not fit"),
    ],
)
def test_wrong_settings_are_said(made, capsys, flags, overrides, code, words):
    assert made.quantize(*flags, overrides=overrides) == code
    assert words in capsys.readouterr().err


def test_int8_weights_are_not_quantised_again(made, capsys):
    assert made.quantize("--calib", 2, weights=made.int8) == 2
    assert "in INT8 already" in capsys.readouterr().err
    assert export(made.arguments("--weights", made.int8, "--out", made.root / "x.zip")) == 2


def test_processors_without_instructions(made, capsys, monkeypatch, caplog):
    monkeypatch.setattr(quantize_module, "has_int8_instructions", lambda: False)
    monkeypatch.setattr(models, "has_int8_instructions", lambda: False)
    assert made.quantize("--calib", 2) == 2
    assert "AVX-512 VNNI" in capsys.readouterr().err
    assert made.quantize("--calib", 4, "--any-cpu") == 0
    assert "no AVX-512 VNNI: INT8 networks are less exact" in capsys.readouterr().err
    # For other machines: what it holds does not depend on the one that made it.
    assert (made.root / "other.zip").read_bytes() == made.int8.read_bytes()
    logging.getLogger("sniper").propagate = True
    with caplog.at_level(logging.WARNING, "sniper"):
        models.load_archive_model(made.int8)
    assert f"{made.int8}: this processor has no AVX-512 VNNI" in caplog.text


def test_gpus_are_refused(made, monkeypatch):
    model = models.load_model(test_plan(made.config()).detector, made.int8)
    with pytest.raises(ConfigError, match="CPU only"):
        MxnetExecutor(model, [mx.gpu(0)])
    monkeypatch.setattr(plan_module, "devices_of", lambda gpus: [Device("gpu")])
    settings = quantize_module.QuantizeSettings(2)
    with pytest.raises(ConfigError, match="--set gpus cpu"):
        quantize_module.quantize_model(made.config(), made.weights, made.root / "x", settings)


@pytest.mark.parametrize(
    "key, value",
    [
        ("network.ANCHOR_SCALES", (2.0, 4.0)),
        ("TEST.PROPOSAL_OP.post_nms_top_n", 7),
        ("TEST.AUTO_FOCUS", True),
    ],
)
def test_another_network_than_the_archives_is_refused(made, key, value):
    cfg = made.config()
    *sections, name = key.split(".")
    section = cfg
    for part in sections:
        section = section[part]
    section[name] = value
    with pytest.raises(ConfigError, match="another one than the configuration names"):
        models.load_model(test_plan(cfg).detector, made.int8)


def test_there_are_no_proposals_alone(made):
    _, model = models.load_archive_model(made.int8)
    with pytest.raises(ConfigError, match="fp32 weights"):
        MxnetExecutor(model, [mx.cpu()], rpn_only=True)


@pytest.mark.parametrize("missing", ["config", "classes"])
def test_archives_without_description_are_refused(made, tmp_path, missing):
    archive = read_archive(made.int8)
    meta = {name: value for name, value in archive.meta.items() if name != missing}
    path = tmp_path / "model.zip"
    write_archive(path, type(archive)(archive.detector, None, meta))
    with pytest.raises(DataError, match="configuration|list of strings"):
        models.load_archive_model(path)


def test_damaged_archives_are_refused(made, tmp_path):
    path = tmp_path / "model.zip"
    shutil.copy(made.int8, path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"damage")
    with pytest.raises(DataError, match="damaged"):
        models.load_archive_model(path)
    with pytest.raises(DataError, match="cannot be read"):
        models.load_archive_model(tmp_path / "missing.zip")


def test_bench_names_all_stages(made, capsys, tmp_path):
    figures = tmp_path / "speed.json"
    flags = ("--weights", made.int8, "--images", 2, "--json", figures)
    assert bench(made.arguments(*flags)) == 0
    printed = capsys.readouterr().out
    result = json.loads(figures.read_text())
    stages = result["ms_per_image"]
    assert list(stages) == [
        *("read", "resize", "forward", "level 1, 240x320", "level 2, 128x128", "merge", "total")
    ]
    levels = stages["level 1, 240x320"] + stages["level 2, 128x128"]
    assert levels == pytest.approx(stages["forward"], rel=0.05)
    assert 0 < stages["forward"] < stages["total"]
    assert result["images"] == 2 and result["weights"] == str(made.int8)
    assert all(name in printed for name in stages)
    assert result["images_per_s"] == pytest.approx(1000 / stages["total"])


def test_bench_takes_generated_images_and_random_weights(made, capsys):
    flags = ("--generated", "90x70", "--images", 2, "--mode", "single")
    assert bench(made.arguments(*flags)) == 0
    captured = capsys.readouterr()
    assert "2 images, single" in captured.out and "weights: random" in captured.out
    assert "no trained weights" in captured.err
    assert bench(made.arguments(*flags, "--json", "-")) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2, "a JSON alone"
    assert bench(made.arguments("--images", 0)) == 2
    assert bench(made.arguments("--generated", "90by70")) == 2
    assert "WIDTHxHEIGHT" in capsys.readouterr().err


@pytest.fixture(scope="module")
def graphs(made):
    """Archives of ONNX graphs in fp32 and INT8, and what the comparison printed."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    fp32, int8 = made.root / "fp32.onnx.zip", made.root / "int8.onnx.zip"
    weights = ("--weights", made.weights, "--format", "onnx")
    assert export(made.arguments(*weights, "--out", fp32)) == 0
    assert made.quantize("--calib", 2, "--format", "onnx", out=int8) == 0
    return fp32, int8


def test_graphs_of_integers_are_smaller_and_find_nearly_the_same(graphs, made):
    fp32, int8 = graphs
    assert int8.stat().st_size < 0.5 * fp32.stat().st_size
    archive = read_onnx_archive(int8)
    assert archive.is_int8 and archive.meta["calibration"] == {"method": "naive", "images": 2}
    image = next((made.tiny.root / "toy" / "images" / "val").glob("*.jpg"))
    before, after = (Predictor(path)(image) for path in graphs)
    scores = [np.sort(found[0].scores)[::-1][:10] for found in (before, after)]
    assert len(scores[0]) == len(scores[1])
    np.testing.assert_allclose(*scores, atol=0.1)
    assert not np.array_equal(*scores)


def test_layers_of_graphs_stay_in_fp32_by_name(graphs, made, capsys):
    kept = made.root / "kept.onnx.zip"
    flags = ("--calib", 1, "--format", "onnx", "--fp32", "rpn_conv_3x3")
    assert made.quantize(*flags, out=kept) == 0
    assert kept.stat().st_size > graphs[1].stat().st_size
    assert made.quantize("--calib", 1, "--format", "onnx", "--fp32", "nonsense") == 2
    assert "nonsense" in capsys.readouterr().err
    assert made.quantize("--calib", 1, "--format", "onnx", "--calibration", "guess") == 2


def test_graphs_need_no_instructions(graphs, made, monkeypatch):
    monkeypatch.setattr(quantize_module, "has_int8_instructions", lambda: False)
    assert made.quantize("--calib", 1, "--format", "onnx", "--eval", 2) == 0

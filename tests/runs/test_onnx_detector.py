"""Detectors of ONNX graphs: the findings of MXNet's, without MXNet; what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper import Predictor
from sniper.errors import ConfigError, DataError
from sniper.inference import onnx_engines
from sniper.inference.onnx_engines import ENGINES, installed_engines
from sniper.models.archive import read_archive
from sniper.models.archive_file import META, write_members
from sniper.models.onnx.archive import read_onnx_archive, write_onnx_archive
from sniper.runs import export as export_module
from sniper.runs.load_model import load_model, make_detector
from sniper.runs.plan import test_plan
from sniper.tools.export import main as export
from tests.runs.random_run import MASKS, random_run, random_ssh

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

PX, SCORE = 0.02, 1e-4
MANY = ["__background__", *(f"sign {number}" for number in range(120))]
NETWORKS = {
    "masks": partial(random_run, overrides=MASKS),
    "resnet": partial(random_run, recipe="sniper_res18_toy"),
    "rfcn3k": partial(random_run, recipe="mobilenetv2_3k_toy", names=MANY),
    "faces": random_ssh,
}


def made(root, kind):
    return exported(NETWORKS[kind](root))


def exported(run):
    """The same with its `archive` of ONNX graphs."""
    run.archive = run.recipe.with_name("model.onnx.zip")
    argv = ["--cfg", str(run.recipe), "--out", str(run.archive), "--weights", str(run.weights)]
    assert export([*argv, "--format", "onnx"]) == 0
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("masks"), "masks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number, size in enumerate([(190, 70), (70, 90), (164, 164)]):
        image = cv2.resize(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8), size)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def match(one, other):
    """Which detections of a prediction another one has: (n,) bool."""
    same = one.classes[:, None] == other.classes[None]
    same &= np.abs(one.boxes[:, None] - other.boxes[None]).max(axis=2) <= PX
    same &= np.abs(one.scores[:, None] - other.scores[None]) <= SCORE
    return same.any(axis=1)


def check(predictions, expected):
    """Nearly all are there: which of two that overlap is kept may turn on the last bit."""
    assert sum(len(one.scores) for one in expected) > 20
    for one, other in ((predictions, expected), (expected, predictions)):
        matched = np.concatenate([match(*pair) for pair in zip(one, other)])
        assert matched.mean() >= 0.97


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_same_findings_as_mxnets(kind, folder, tmp_path):
    run = made(tmp_path, kind)
    expected = Predictor(run.recipe, devices="cpu")(folder)
    for engine in installed_engines():
        check(Predictor(run.archive, engine=engine)(folder), expected)


def test_masks_are_the_same(run, folder):
    ours, theirs = Predictor(run.archive)(folder), Predictor(run.recipe, devices="cpu")(folder)
    assert Predictor(run.archive).has_masks
    equal = [
        mask == other
        for one, two in zip(ours, theirs)
        if len(one.scores) == len(two.scores)
        for mask, other in zip(one.masks, two.masks)
    ]
    # A pixel at a probability of one half may fall either way.
    assert len(equal) > 10 and np.mean(equal) > 0.8


def test_focus_chips_are_found_without_mxnet(folder, tmp_path):
    run = exported(
        random_run(tmp_path, ["TEST.MODE", "focus"], recipe="sniper_res18_toy_autofocus")
    )
    check(Predictor(run.archive)(folder), Predictor(run.recipe, devices="cpu")(folder))


WITHOUT_MXNET = """
import sys
sys.modules["mxnet"] = None
from sniper.tools.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_mxnet(*argv, code=0):
    command = [sys.executable, "-c", WITHOUT_MXNET, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_commands_work_without_mxnet(run, folder, tmp_path):
    without_mxnet("detect", folder, "--out", tmp_path / "found", "--model", run.archive,
                  "--threshold", "0", "--format", "none")  # fmt: skip
    (report,) = (tmp_path / "found").glob("*.json")
    told = json.loads(report.read_text())
    expected = Predictor(run.archive)(folder)
    assert [len(image["detections"]) for image in told["images"]] == [
        len(p.scores) for p in expected
    ]
    bench = without_mxnet(
        *("bench", "--cfg", run.recipe, "--weights", run.archive, "--generated", "96x64"),
        *("--images", "2", "--set", "gpus", "cpu"),
    )
    assert "images/s" in bench


def test_weights_of_mxnet_say_that_they_need_it(run, folder, tmp_path):
    told = without_mxnet(
        *("detect", folder, "--out", tmp_path / "found", "--cfg", run.recipe),
        *("--weights", run.weights, "--gpus", "cpu"),
        code=2,
    )
    assert "this needs MXNet, which is not installed" in told and "--format onnx" in told


def test_commands_that_need_mxnet_say_so(run, folder, tmp_path):
    told = without_mxnet("train", "--cfg", run.recipe, code=2)
    assert "this needs MXNet, which is not installed" in told and "NumPy below 2" in told


def test_gpus_without_mxnet_are_told_with_a_way_out(run, folder, tmp_path):
    told = without_mxnet(
        *("detect", folder, "--out", tmp_path / "found", "--model", run.archive, "--gpus", "0"),
        code=2,
    )
    assert "without MXNet run on the CPU" in told and "--gpus cpu" in told and "CUDA" not in told


def test_a_set_is_tested_with_it(run, tmp_path):
    plan = test_plan(run.cfg, devices="cpu")
    model = load_model(plan.detector, run.archive)
    assert make_detector(plan, model).executor.identity()["onnxruntime"]


@pytest.mark.parametrize(
    ("options", "word"),
    [({"engine": "mxnet"}, "does not compute"), ({"engine": "tensorrt"}, "no such engine")],
)
def test_other_engines_are_refused(run, options, word):
    with pytest.raises(ConfigError, match=word):
        Predictor(run.archive, **options)


def test_engines_do_not_read_weights_of_mxnet(run):
    with pytest.raises(ConfigError, match="--format onnx"):
        Predictor(run.recipe, devices="cpu", engine="onnxruntime")


def test_an_engine_that_is_not_installed_is_told(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"sniper-mxnet\[onnx\]"):
        Predictor(run.archive, engine="onnxruntime")
    monkeypatch.setattr(onnx_engines, "installed_engines", list)
    with pytest.raises(ConfigError, match=r"sniper-mxnet\[onnx\]"):
        Predictor(run.archive)


def test_export_without_the_package_is_told(run, monkeypatch, tmp_path, capsys):
    for name in [name for name in sys.modules if name.startswith("sniper.models.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    argv = ["--cfg", str(run.recipe), "--out", str(tmp_path / "x.zip"), "--format", "onnx"]
    assert export([*argv, "--weights", str(run.weights)]) == 2
    assert "sniper-mxnet[export]" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()


def test_what_it_cannot_do_is_refused(run):
    plan = test_plan(run.cfg, devices="cpu", rpn_only=True)
    model = load_model(plan.detector, run.archive)
    with pytest.raises(ConfigError, match="proposals alone"):
        make_detector(plan, model)
    with pytest.raises(DataError, match="ONNX graphs"):
        export_module.exported(plan, run.archive)
    with pytest.raises(DataError, match="ONNX graphs"):
        read_archive(run.archive)
    run.cfg.network.ANCHOR_SCALES = (2.0, 4.0)
    with pytest.raises(ConfigError, match="another one than the configuration names"):
        load_model(test_plan(run.cfg, devices="cpu").detector, run.archive)


def test_the_archive_comes_back_and_is_the_same_each_time(run, tmp_path):
    archive = read_onnx_archive(run.archive)
    write_onnx_archive(tmp_path / "again.zip", archive)
    again = read_onnx_archive(tmp_path / "again.zip")
    assert (again.detector, again.mask_head) == (archive.detector, archive.mask_head)
    argv = ["--cfg", str(run.recipe), "--out", str(tmp_path / "new.zip"), "--format", "onnx"]
    assert export([*argv, "--weights", str(run.weights)]) == 0
    assert (tmp_path / "new.zip").read_bytes() == run.archive.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda programs: programs.pop("model"),
        lambda programs: programs["model"]["steps"].pop(0),
        lambda programs: programs["model"]["steps"][0].update(graph="model-9.onnx"),
        lambda programs: programs["model"]["steps"][1].update(operator="Evil"),
        lambda programs: programs["model"].update(outputs=7),
        lambda programs: programs["model"].update(outputs=[]),
        lambda programs: programs["model"]["outputs"].reverse(),
        lambda programs: programs["model"]["steps"].reverse(),
        lambda programs: programs["model"]["inputs"].append("depth"),
        lambda programs: programs["mask"]["inputs"].append("data"),
    ],
)
def test_spoilt_programs_are_refused(run, tmp_path, change):
    meta, contents = members(run.archive)
    change(meta["programs"])
    write_members(tmp_path / "spoilt.zip", meta, contents)
    with pytest.raises(DataError, match="follow one another"):
        read_onnx_archive(tmp_path / "spoilt.zip")


def members(archive):
    with zipfile.ZipFile(archive) as files:
        meta = json.loads(files.read(META))
        return meta, {name: files.read(name) for name in meta["members"]}


def test_graphs_in_each_others_places_are_told(run, tmp_path):
    meta, contents = members(run.archive)
    first, second = contents["model-0.onnx"], contents["model-1.onnx"]
    swapped = {**contents, "model-0.onnx": second, "model-1.onnx": first}
    write_members(tmp_path / "bad.zip", meta, swapped)
    for engine in installed_engines():
        with pytest.raises(DataError, match="another one than the archive says"):
            Predictor(tmp_path / "bad.zip", engine=engine)


def test_graphs_of_another_network_are_told(run, folder, tmp_path):
    """Tensors have the same names, but not the same shapes."""
    meta, contents = members(run.archive)
    wide = exported(random_run(tmp_path, [*MASKS, "network.ROI_CHANNELS", "24"]))
    _, others = members(wide.archive)
    write_members(tmp_path / "bad.zip", meta, {**contents, "model-1.onnx": others["model-1.onnx"]})
    with pytest.raises(DataError, match="cannot compute a graph"):
        Predictor(tmp_path / "bad.zip", engine="onnxruntime")(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda step: step["attributes"].pop("feature_stride"),
        lambda step: step["attributes"].update(depth="3"),
        lambda step: step["inputs"].pop(),
        lambda step: step["inputs"].append("data"),
    ],
)
def test_operators_that_cannot_be_run_are_told(run, folder, tmp_path, change):
    meta, contents = members(run.archive)
    change(next(step for step in meta["programs"]["model"]["steps"] if "operator" in step))
    write_members(tmp_path / "bad.zip", meta, contents)
    with pytest.raises(DataError, match="cannot be run"):
        Predictor(tmp_path / "bad.zip")(folder)


def test_fewer_classes_than_the_graph_has_are_told(run, folder, tmp_path):
    """They would be left out of the findings."""
    meta, contents = members(run.archive)
    meta["classes"].pop()
    meta.pop("category_ids", None)
    meta["config"]["dataset"]["NUM_CLASSES"] -= 1
    write_members(tmp_path / "bad.zip", meta, contents)
    with pytest.raises(DataError, match="other classes than the archive names"):
        Predictor(tmp_path / "bad.zip")(folder)


def test_a_graph_that_the_engine_refuses_is_told(run, tmp_path):
    meta, contents = members(run.archive)
    write_members(tmp_path / "bad.zip", meta, {**contents, "model-0.onnx": b"nonsense"})
    for engine in installed_engines():
        with pytest.raises(DataError, match=f"{engine} .* refuses"):
            Predictor(tmp_path / "bad.zip", engine=engine)


def test_every_engine_is_a_package_of_its_name():
    assert list(ENGINES) == [engine.name for engine in ENGINES.values()]
    assert Path(onnx_engines.__file__).is_file()

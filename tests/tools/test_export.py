"""The exported archive: what it holds, who can run it, and which files are refused."""

import hashlib
import json
import subprocess
import sys
import zipfile

import mxnet as mx
import numpy as np
import pytest
import yaml

from sniper import boxes as box_ops
from sniper.config import dump_config, load_config
from sniper.errors import DataError
from sniper.inference.decode import decode_batch
from sniper.inference.mxnet_executor import MxnetExecutor
from sniper.loader.windows import TestBatch
from sniper.models.archive import read_archive
from sniper.models.archive_file import META
from sniper.models.assembly import build_detector, inference_input_shapes, train_input_shapes
from sniper.models.weights import initialise, with_test_params, write_params
from sniper.runs.load_model import load_model
from sniper.runs.plan import test_plan
from sniper.runs.resolve import detector_spec
from sniper.tools.export import main

SMALL = ("network.WIDTH", "0.25", "network.FC_CHANNELS", "16", "network.ROI_CHANNELS", "16")
MASKS = ("symbol", "mobilenetv2_e2e_mask", "TRAIN.WITH_MASK", "True")
NAMES = ["__background__", *(f"thing {index}" for index in range(1, 11))]
HEIGHT, WIDTH = 96, 160

# All that a user of the archive needs; nothing of the package but the operator library.
READER = """
import io, sys, zipfile
import numpy as np
from sniper.ops import load_library
import mxnet as mx
load_library()
files, inputs = zipfile.ZipFile(sys.argv[1]), np.load(sys.argv[2])
symbol = mx.sym.load_json(files.read("model-symbol.json").decode())
params = mx.nd.load_frombuffer(files.read("model-0000.params"))
arg, aux = ({n[4:]: v for n, v in params.items() if n[:3] == kind} for kind in ("arg", "aux"))
names = ["data", "im_info", "im_ids", "chip_ids"]
module = mx.mod.Module(symbol, names, label_names=None, context=mx.cpu())
module.bind([(name, inputs[name].shape) for name in names], for_training=False)
module.set_params(arg, aux)
module.forward(mx.io.DataBatch([mx.nd.array(inputs[name]) for name in names]), is_train=False)
outputs = dict(zip(symbol.list_outputs(), (out.asnumpy() for out in module.get_outputs())))
np.savez(sys.argv[3], **outputs)
forbidden = [m for m in sys.modules if m.startswith("sniper.") and m.split(".")[1] not in
             ("ops", "native", "errors", "process")]
sys.exit(f"imported: {forbidden}" if forbidden else 0)
"""


class Run:
    """A run folder with random weights, as training leaves it."""

    def __init__(self, root, overrides=(), seed=3):
        self.overrides = [*SMALL, "output_path", str(root / "output"), *overrides]
        self.cfg = load_config("sniper_mobilenetv2_toy", self.overrides)
        spec = detector_spec(self.cfg, train=True, batch_images=1, fp16=False)
        arg, aux, _ = initialise(
            build_detector(spec, train=True), train_input_shapes(spec, 64), None, seed
        )
        rng = np.random.default_rng(seed)
        for name, value in arg.items():
            # Random heads give boxes and classes that differ from each other.
            if name.startswith(("rpn_", "cls_", "bbox_", "mask_out")):
                value[:] = rng.normal(0, 0.1, value.shape)
        folder = root / "output" / self.cfg.name / "train"
        self.weights = folder / "SNIPER-0002.params"
        write_params(self.weights, with_test_params(arg), aux)
        (folder / "classes.json").write_text(json.dumps(NAMES))

    def export(self, out, *more):
        argv = ["--cfg", "sniper_mobilenetv2_toy", "--out", str(out), *more]
        return main([*argv, "--set", *self.overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def archive(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "model.zip"
    assert run.export(path, "--weights", str(run.weights)) == 0
    return path


def inputs(images=2):
    data = np.random.default_rng(0).normal(0, 60, (images, 3, HEIGHT, WIDTH)).astype(np.float32)
    info = np.array([[HEIGHT, WIDTH, 1.5], [HEIGHT - 20, WIDTH - 9, 1.0]], np.float32)[:images]
    ids = np.arange(images, dtype=np.float32)
    return {"data": data, "im_info": info, "im_ids": ids, "chip_ids": ids}


def test_another_process_gets_the_numbers_of_the_engine(run, archive, tmp_path):
    given = inputs()
    np.savez(tmp_path / "in.npz", **given)
    files = [str(archive), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", READER, *files], check=True, timeout=120)
    theirs = np.load(tmp_path / "out.npz")

    model = load_model(test_plan(run.cfg).detector, run.weights)
    outputs = MxnetExecutor(model, [mx.cpu()]).run(given["data"], given["im_info"])
    index = np.arange(2)
    batch = TestBatch(given["data"], given["im_info"], index, index, np.zeros(2, bool))
    rois = theirs["rois_output"].reshape(2, -1, 5)
    for row, found in enumerate(decode_batch(outputs, batch, legacy=True)):
        filled = np.any(rois[row, :, 1:] != 0, axis=1)
        scores = theirs["cls_prob_reshape_output"][row][filled]
        assert scores.std() > 1e-3
        np.testing.assert_array_equal(found.scores, scores)
        info, deltas = given["im_info"][row], theirs["bbox_pred_reshape_output"][row]
        boxes = box_ops.clip(box_ops.decode(rois[row, :, 1:], deltas), info[0], info[1])
        np.testing.assert_allclose(found.boxes, boxes[filled] / info[2], rtol=1e-6)


def test_meta_describes_the_model(run, archive):
    with zipfile.ZipFile(archive) as files:
        meta = json.loads(files.read(META))
        assert files.namelist() == ["model-symbol.json", "model-0000.params", META]
        for name, facts in meta["members"].items():
            data = files.read(name)
            assert facts == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert meta["classes"] == NAMES and meta["network"] == "mobilenetv2_e2e"
    assert meta["pixel_means_bgr"] == [103.939, 116.779, 123.68]
    assert meta["outputs"][0] == "rois_output"


def in_int8(members):
    members[META] = members[META].replace(b'"classes"', b'"precision": "int8", "classes"', 1)


def test_the_card_tells_what_a_model_is(run, archive, tmp_path, capsys):
    digest = hashlib.sha256(run.weights.read_bytes()).hexdigest()

    def shown(path):
        capsys.readouterr()
        assert main(["--show", str(path)]) == 0
        return capsys.readouterr().out

    told = shown(archive)
    for part in ("mobilenetv2_e2e, fp32, MXNet", "10: thing 1, thing 2", "sniper_mobilenetv2_toy",
                 "format coco; sets train", f"{run.weights.name}, SHA-256 {digest}",
                 "model-0000.params", "no test of these weights was found"):  # fmt: skip
        assert part in told
    report = test_plan(run.cfg).results_dir / "detections_val_report.json"
    report.parent.mkdir(parents=True)
    content = {"ap": 0.25, "dataset": "val", "settings": {"mode": "pyramid"}}
    try:
        report.write_text(json.dumps({**content, "weights_sha256": digest}))
        assert run.export(tmp_path / "tested.zip", "--weights", str(run.weights)) == 0
        assert "val: ap 0.2500 (mode pyramid)" in shown(tmp_path / "tested.zip")
        # An archive of an archive is the same model.
        again = tmp_path / "again.zip"
        assert run.export(again, "--weights", str(tmp_path / "tested.zip")) == 0
        assert "val: ap 0.2500" in shown(again)
        # ... but it may look in another way.
        argv = ["--cfg", "sniper_mobilenetv2_toy", "--weights", str(tmp_path / "tested.zip")]
        keys = ["TEST.MODE", "single", "TEST.SINGLE_SCALE", "[64, 96]"]
        assert main([*argv, "--out", str(again), "--set", *run.overrides, *keys]) == 0
        assert "mode single; scales 64x96" in shown(again)
        # Figures of fp32 are not those of INT8.
        int8 = rewrite(again, tmp_path / "int8.zip", in_int8)
        assert "in fp32" in shown(int8) and "tested " not in shown(int8)
        report.write_text(json.dumps({**content, "weights_sha256": "of others"}))
        assert run.export(tmp_path / "others.zip", "--weights", str(run.weights)) == 0
        assert "no test of these weights was found" in shown(tmp_path / "others.zip")
    finally:
        report.unlink()


def test_either_a_file_to_write_or_one_to_show(archive, tmp_path, capsys):
    for flags in ([], ["--show", str(archive), "--out", str(tmp_path / "x.zip")]):
        assert main(flags) == 2
        assert "either --out" in capsys.readouterr().err
    assert main(["--show", str(tmp_path / "none.zip")]) == 3


def test_the_configuration_comes_back_whole(run, archive, tmp_path):
    path = tmp_path / "again.yml"
    path.write_text(yaml.safe_dump(dict(read_archive(archive).meta["config"])))
    assert dump_config(load_config(path)) == dump_config(run.cfg)


def test_same_input_same_bytes_and_test_tensors_in_place(run, archive, tmp_path):
    mx.sym.Variable("x") + 1  # an unnamed node moves MXNet's counters
    assert run.export(tmp_path / "again.zip", "--epoch", "2") == 0
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    model = read_archive(archive)
    stored = mx.nd.load(str(run.weights))
    np.testing.assert_array_equal(
        model.detector.arg["bbox_pred_weight"].asnumpy(),
        stored["arg:bbox_pred_weight_test"].asnumpy(),
    )
    assert not [name for name in model.detector.arg if name.endswith("_test")]
    assert model.mask_head is None


def test_half_precision_weights_become_float32(run, tmp_path):
    halves = {n: v.astype("float16") for n, v in mx.nd.load(str(run.weights)).items()}
    mx.nd.save(str(tmp_path / "half.params"), halves)
    path = tmp_path / "half.zip"
    more = ["dataset.NUM_CLASSES", "11"]
    argv = ["--cfg", "sniper_mobilenetv2_toy", "--out", str(path)]
    argv += ["--weights", str(tmp_path / "half.params"), "--set", *run.overrides, *more]
    assert main(argv) == 0
    model = read_archive(path)
    assert {value.dtype for value in model.detector.arg.values()} == {np.float32}
    assert model.meta["classes"][3] == "class 3"


def test_mask_networks_bring_their_mask_head(tmp_path):
    run = Run(tmp_path, MASKS)
    assert run.export(tmp_path / "mask.zip", "--weights", str(run.weights)) == 0
    model = read_archive(tmp_path / "mask.zip")
    assert model.detector.symbol.list_outputs()[-1] == "conv_new_1_relu_output"
    spec = detector_spec(run.cfg, train=False, batch_images=1, fp16=False)
    given = {name: mx.nd.array(value) for name, value in inputs().items()}
    shapes = inference_input_shapes(spec, 2, HEIGHT, WIDTH)
    executor = model.detector.symbol.simple_bind(mx.cpu(), grad_req="null", **shapes)
    executor.copy_params_from(model.detector.arg, model.detector.aux)
    roi_map = executor.forward(is_train=False, **given)[-1]
    rois = mx.nd.array([[0, 10, 10, 60, 70], [1, 0, 0, 90, 50], [1, 30, 20, 40, 90]])
    classes = mx.nd.array([1, 10, 4])
    head = model.mask_head.symbol
    mask_inputs = {"roi_map": roi_map, "mask_rois": rois, "mask_classes": classes}
    executor = head.simple_bind(
        mx.cpu(), grad_req="null", **{name: value.shape for name, value in mask_inputs.items()}
    )
    executor.copy_params_from(model.mask_head.arg, model.mask_head.aux)
    (masks,) = executor.forward(is_train=False, **mask_inputs)
    assert masks.shape == (3, 28, 28)
    assert 0 < masks.asnumpy().min() < masks.asnumpy().max() < 1


def test_unfit_and_missing_weights_are_named(run, tmp_path, capsys):
    arrays = mx.nd.load(str(run.weights))
    del arrays["arg:fc_new_2_bias"]
    arrays["arg:cls_score_weight"] = mx.nd.zeros((7, 16))
    mx.nd.save(str(tmp_path / "bad.params"), arrays)
    assert run.export(tmp_path / "m.zip", "--weights", str(tmp_path / "bad.params")) == 3
    message = capsys.readouterr().err
    assert "fc_new_2_bias is missing" in message and "cls_score_weight (7, 16)" in message
    assert run.export(tmp_path / "m.zip", "--epoch", "77") == 3
    assert not (tmp_path / "m.zip").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(classes=None),
        lambda meta: meta.update(classes=[1, 2, 3]),
        lambda meta: meta.update(card=[1]),
        lambda meta: meta["card"].update(weights="one"),
        lambda meta: meta["card"].update(tested=[{"set": "val"}]),
        lambda meta: meta["card"].update(training=[3]),
    ],
)
def test_cards_that_are_none_are_told(archive, tmp_path, capsys, change):
    def spoil(members):
        meta = json.loads(members["meta.json"])
        change(meta)
        members["meta.json"] = json.dumps(meta).encode()

    path = rewrite(archive, tmp_path / "spoilt.zip", spoil)
    assert main(["--show", str(path)]) == 3
    assert "no model card" in capsys.readouterr().err


def rewrite(source, target, change):
    """A copy of an archive whose members `change` may replace, add or drop."""
    with zipfile.ZipFile(source) as files:
        members = {name: files.read(name) for name in files.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as files:
        for name, data in members.items():
            files.writestr(name, data)
    return target


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m.update({"../../evil.params": b"x"}), "evil"),
        (lambda m: m.update({"/etc/evil": b"x"}), "evil"),
        (lambda m: m.update({"meta.json": m["meta.json"].replace(b'"sniper-model"', b'"x"')}), "x"),
        (lambda m: m.update({"meta.json": b"[1"}), "broken"),
        (lambda m: m.update({"meta.json": b"[1]"}), "no model archive"),
        (lambda m: m.pop("meta.json"), "no model archive"),
        (lambda m: m.pop("model-0000.params"), "another one"),
        (lambda m: m.update({"mask-symbol.json": b"{}"}), "another one"),
        (lambda m: m.update({"model-0000.params": m["model-0000.params"][:-1]}), "damaged"),
        (lambda m: m.update({"model-symbol.json": b"{}"}), "damaged"),
        (lambda m: m.update({"meta.json": m["meta.json"].replace(b'version": 1', b'version": 9')}),
         "another version"),
    ],
)  # fmt: skip
def test_spoilt_archives_are_refused(archive, tmp_path, change, word):
    path = rewrite(archive, tmp_path / "spoilt.zip", change)
    with pytest.raises(DataError, match=word):
        read_archive(path)


def test_truncated_compressed_and_foreign_files_are_refused(archive, tmp_path):
    path = tmp_path / "bad.zip"
    path.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"bad\.zip"):
        read_archive(path)
    with pytest.raises(DataError, match=r"none\.zip"):
        read_archive(tmp_path / "none.zip")
    with zipfile.ZipFile(archive) as files, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in files.namelist():
            new.writestr(name, files.read(name))
    with pytest.raises(DataError, match="not compressed"):
        read_archive(path)
    flipped = bytearray(archive.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(DataError, match=r"bad\.zip"):
        read_archive(path)

"""The benchmark of face detectors: same pixels for all, boxes of CenterFace's maps, judgement."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from bench import face_detectors
from bench.case import BenchError, OutputsDifferError, PeerMissingError
from bench.face_detectors import CASE, Judge, fitted, job_of, table, timed_photos
from bench.harness import JobResult, PeerResult
from bench.peers import faces
from sniper.data import load_dataset

VGA = (640, 480)


@pytest.fixture
def dataset(tmp_path):
    """Three photos of 4:3 and an upright one, with an easy face of 40x50 px each; one has none."""
    split = tmp_path / "wider_face_split"
    split.mkdir()
    lines, generator = [], np.random.default_rng(0)
    for index, (width, height) in enumerate([(320, 240), (320, 240), (160, 120), (120, 200)]):
        name = f"0--Parade/{index}.jpg"
        path = tmp_path / "WIDER_val" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        cv2.imencode(".jpg", cv2.resize(pixels, (width, height)))[1].tofile(path)
        face = "0\n0 0 0 0 0 0 0 0 0 0" if index == 1 else f"1\n{10 + index} 20 40 50 0 0 0 0 0 0"
        lines.append(f"{name}\n{face}\n")
    (split / "wider_face_val_bbx_gt.txt").write_text("".join(lines))
    return load_dataset("wider", str(tmp_path), "val")


def arrays_of(dataset, shift=0.0, engine="none"):
    """A detector's outputs that has every face, moved to the right."""
    boxes = dataset.truth.boxes + [shift, 0, 0, 0]
    rows = np.column_stack([boxes, np.linspace(0.9, 0.5, len(boxes))])
    return {"offsets": dataset.truth.offsets, "rows": rows, "engine": np.array(engine)}


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        (VGA, VGA),
        ((500, 375), VGA),
        ((375, 500), (480, 640)),
        ((640, 320), (640, 320)),
        ((300, 300), (480, 480)),
        ((2000, 2), (640, 1)),
    ],
)
def test_photos_fit_into_the_size_lying_or_upright(photo, expected):
    assert fitted(*photo, VGA) == expected


def test_timed_photos_fill_the_size_and_have_faces(dataset):
    assert timed_photos(dataset, VGA).tolist() == [0, 2]
    with pytest.raises(BenchError, match="shape of 640x100"):
        timed_photos(dataset, (640, 100))


def test_a_side_sees_fitted_photos_and_its_boxes_are_px_of_the_files(dataset):
    seen = []

    def detect(photo):
        seen.append(photo.shape)
        return np.array([[8, 16, 32, 64, 0.2], [0, 0, 4, 4, 0.9]], np.float32)

    inputs = job_of(dataset, VGA, np.array([0, 2]), {}).inputs(np.random.default_rng(0))
    side = faces.prepared(inputs, detect, "engine 1")
    side.run()
    assert seen == [(480, 640, 3)] * 2
    outputs = side.outputs(None)
    assert seen[2:] == [(480, 640, 3)] * 3 + [(640, 384, 3)]
    assert outputs["offsets"].tolist() == [0, 2, 4, 6, 8]
    # The best first; 320 px of the file are 640 that the detector saw, 160 px as well.
    np.testing.assert_allclose(outputs["rows"][1], [4, 8, 16, 32, 0.2], rtol=1e-6)
    np.testing.assert_allclose(outputs["rows"][5], [2, 4, 8, 16, 0.2], rtol=1e-6)
    np.testing.assert_allclose(outputs["rows"][7], [2.5, 5, 10, 20, 0.2], rtol=1e-6)
    unjudged = faces.prepared(inputs, detect, "engine 1", judged=False).outputs(None)
    assert unjudged["offsets"].tolist() == [0] and unjudged["rows"].shape == (0, 5)
    assert len(seen) == 6


def test_rows_of_centerface_are_those_of_a_loop_over_its_cells():
    generator = np.random.default_rng(1)
    heat = generator.uniform(0, 1, (6, 9)).astype(np.float32)
    scale = generator.normal(1, 1, (2, 6, 9)).astype(np.float32)
    offset = generator.normal(0, 0.3, (2, 6, 9)).astype(np.float32)
    expected = []
    for y in range(6):
        for x in range(9):
            if heat[y, x] <= 0.6:
                continue
            height, width = (4 * math.exp(scale[axis, y, x]) for axis in (0, 1))
            top = 4 * (y + offset[0, y, x] + 0.5) - height / 2
            left = 4 * (x + offset[1, y, x] + 0.5) - width / 2
            x1, y1 = min(max(left, 0), 36), min(max(top, 0), 24)
            x2, y2 = min(max(left + width, 0), 36), min(max(top + height, 0), 24)
            expected.append([x1, y1, x2 - x1, y2 - y1, heat[y, x]])
    rows = faces.centerface_rows(heat, scale, offset, 0.6)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)
    assert faces.centerface_rows(heat, scale, offset, 1.0).shape == (0, 5)


def test_centerface_gives_its_network_whole_cells_in_rgb_and_merges_what_overlaps():
    blobs = []

    def forward(blob):
        blobs.append(blob)
        heat = np.zeros((1, 1, 8, 16), np.float32)
        heat[0, 0, 2, 3:5] = 0.9, 0.8
        scale = np.full((1, 2, 8, 16), math.log(4), np.float32)  # 16 px
        return [heat, scale, np.zeros((1, 2, 8, 16), np.float32)]

    photo = np.zeros((32, 60, 3), np.uint8)
    photo[..., 2] = 200  # red
    rows = faces.centerface(forward, 0.05)(photo)
    assert blobs[0].shape == (1, 3, 32, 64)
    assert blobs[0][0].mean(axis=(1, 2)).tolist() == [200, 0, 0]
    # x: (3.5 cells x 4 - 8) px of 64, which are 60 of the photo.
    np.testing.assert_allclose(rows, [[6 * 60 / 64, 2, 15, 16, 0.9]], rtol=1e-5)


def test_what_finds_all_faces_is_perfect_and_what_finds_none_is_refused(dataset):
    judge = Judge(dataset, np.array([0, 2]), trained=True)
    job = job_of(dataset, VGA, np.array([0, 2]), {})
    good = arrays_of(dataset)
    assert judge.compare(good, good, job, "yunet").startswith("100% of the easy faces")
    assert judge.numbers["640x480", "ours"]["ap"] == {"all": pytest.approx(1, abs=1e-3)}
    assert judge.failures() == []
    with pytest.raises(OutputsDifferError, match="0% of the easy faces"):
        judge.compare(good, arrays_of(dataset, shift=39.0), job, "centerface")
    broken = arrays_of(dataset)
    broken["rows"][0, 2] = np.nan
    with pytest.raises(OutputsDifferError, match="not finite"):
        judge.compare(good, broken, job, "centerface-opencv")
    bad = Judge(dataset, np.array([0, 2]), trained=True)
    bad.compare(arrays_of(dataset, shift=39.0), good, job, "yunet")
    assert bad.failures() == ["ours at 640x480 finds 0% of the easy faces"]


def test_random_weights_are_timed_but_not_judged(dataset):
    judge = Judge(dataset, np.array([0, 2]), trained=False)
    job = job_of(dataset, VGA, np.array([0, 2]), {})
    judge.compare(arrays_of(dataset, shift=99.0, engine="A 1"), arrays_of(dataset), job, "yunet")
    result = JobResult(CASE, job, 1, {"yunet": PeerResult("", [0.4, 0.4], [0.1, 0.2])})
    lines = table(judge, [result], ["640x480"], 2).splitlines()
    assert lines[0].startswith("| detector | engine | images/s at 640x480 | times ours (min-max) |")
    assert lines[2] == "| ours | A 1 | 5.0 | 1 | - |"
    assert lines[3] == "| yunet | none | 13.3 | 3.00x (2.00-4.00) | 100.0 |"
    assert judge.failures() == []


def test_models_of_packages_that_are_not_installed_are_missed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PeerMissingError, match="some.onnx of the package no_such_faces is not"):
        faces.model_file("no_such_faces", "some.onnx")
    (tmp_path / "ships_faces").mkdir()
    (tmp_path / "ships_faces" / "__init__.py").write_text("raise ImportError('never imported')")
    with pytest.raises(PeerMissingError, match="README"):
        faces.model_file("ships_faces", "some.onnx")
    (tmp_path / "ships_faces" / "some.onnx").write_bytes(b"")
    assert faces.model_file("ships_faces", "some.onnx").is_file()


def test_our_side_is_the_predictor_at_this_size_with_weights_that_find_nothing(dataset, tmp_path):
    overrides = ["symbol", "mobilenetv2_ssh", "network.RPN_CHANNELS", "16"]
    weights = tmp_path / "random-0000.params"
    face_detectors.random_weights("ssh_vgg16_wider", overrides, weights)
    params = {"cfg": "ssh_vgg16_wider", "set": overrides, "min_score": 0.05}
    params |= {"weights": str(weights), "trained": True}
    job = job_of(dataset, (160, 120), np.array([0]), params)
    side = CASE.sides["ours"].setup(job.inputs(np.random.default_rng(0)), job.params, 1)
    side.run()
    outputs = side.outputs(None)
    assert str(outputs["engine"]).startswith("MXNet 1.9.1")
    assert outputs["offsets"].tolist() == [0] * 5 and outputs["rows"].shape == (0, 5)


def test_wrong_usage(capsys):
    with pytest.raises(SystemExit):
        face_detectors.main(["--peers", "yolo"])
    assert "no peers yolo; there are yunet, centerface, centerface-op" in capsys.readouterr().err
    for text in ("480x640", "640", "0x0"):
        with pytest.raises(SystemExit):
            face_detectors.main(["--sizes", text])
        assert "invalid size_argument value" in capsys.readouterr().err

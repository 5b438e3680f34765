"""`sniper detect` and demo.py: files, codes, and what a stopped run leaves."""

from __future__ import annotations

import json
import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sniper.data.sources import Skipped
from sniper.errors import TrainingError
from sniper.inference import detect_files as detect_module
from sniper.inference.detect_files import DetectionsJson
from sniper.locks import folder_lock
from sniper.runs.predictor import Predictor
from sniper.tools.cli import main as sniper_main
from sniper.tools.demo import main as demo_main
from sniper.vis import video_writer as video_module
from sniper.vis.mp4_frames import mp4_frames
from tests.runs.random_run import random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return random_run(tmp_path_factory.mktemp("run"))


def write_image(path: Path, seed: int = 0, size=(90, 70)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    cv2.imwrite(str(path), cv2.resize(pixels, size))
    return path


def write_video(path: Path, frames: int = 5, fps: float = 5.0, noise: int = 0) -> Path:
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (96, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no mp4v")
    for level in range(frames):
        flat = np.full((64, 96, 3), 40 * level % 256, np.uint8)
        writer.write(flat + rng.integers(0, noise + 1, flat.shape, np.uint8))
    writer.release()
    return path


@pytest.fixture
def photos(tmp_path):
    """Two images of the same name in different folders, and one more."""
    folder = tmp_path / "photos"
    write_image(folder / "a.png", 1)
    write_image(folder / "sub" / "a.png", 2)
    write_image(folder / "sub" / "b.png", 3, (64, 64))
    return folder


def detect(run, *flags) -> int:
    return sniper_main(
        ["detect", *map(str, flags), "--threshold", "0.05", "--cfg", str(run.recipe)]
    )


def content(out: Path) -> dict:
    return json.loads((out / "detections.json").read_text())


def drawings(out: Path) -> list[str]:
    files = (out / "drawings").rglob("*.*")
    return sorted(path.relative_to(out / "drawings").as_posix() for path in files)


def test_folders_keep_equal_names_apart(run, photos, tmp_path):
    out = tmp_path / "out"
    assert detect(run, photos, "--recursive", "--out", out) == 0
    assert drawings(out) == ["a.jpg", "sub/a.jpg", "sub/b.jpg"]
    found = content(out)
    assert found["complete"] is True and found["skipped"] == []
    assert found["classes"] == run.names and found["model"] == str(run.weights)
    expected = Predictor(run.recipe, threshold=0.05)(photos, recursive=True)
    for image, prediction in zip(found["images"], expected):
        assert Path(image.pop("drawing")).is_file()
        assert image == prediction.as_dict() and image["detections"]
    assert [image["name"] for image in found["images"]] == ["a.png", "sub/a.png", "sub/b.png"]
    drawn = cv2.imread(str(out / "drawings" / "sub" / "a.jpg")).astype(int)
    original = cv2.imread(str(photos / "sub" / "a.png")).astype(int)
    assert (np.abs(drawn - original).max(axis=2) > 60).any()  # boxes


@pytest.mark.parametrize("ending", ["png", "pdf", "none"])
def test_formats(run, photos, tmp_path, ending):
    out = tmp_path / "out"
    assert detect(run, photos / "a.png", "--out", out, "--format", ending) == 0
    assert drawings(out) == ([] if ending == "none" else [f"a.{ending}"])
    assert len(content(out)["images"]) == 1


def test_files_that_differ_in_the_ending_only_have_their_own_drawings(run, tmp_path):
    files = [write_image(tmp_path / name, seed) for seed, name in enumerate(("a.png", "a.bmp"))]
    assert detect(run, *files, "--out", tmp_path / "out") == 0
    assert drawings(tmp_path / "out") == ["a.bmp.jpg", "a.jpg"]


def test_an_image_is_never_replaced_by_its_drawing(run, tmp_path, capsys):
    path = write_image(tmp_path / "drawings" / "a.png")
    before = path.read_bytes()
    assert detect(run, path, "--out", tmp_path, "--format", "png") == 2
    assert "replace its own image" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_broken_files_are_left_out_listed_and_told(run, photos, tmp_path, capsys):
    (photos / "b.png").write_bytes((photos / "a.png").read_bytes()[:100])
    out = tmp_path / "out"
    files = [photos / "a.png", photos / "b.png", tmp_path / "gone.jpg", photos / "sub"]
    assert detect(run, *files, "--out", out) == 3
    found = content(out)
    assert [image["name"] for image in found["images"]] == ["a.png", "sub/a.png", "sub/b.png"]
    assert [Path(one["name"]).name for one in found["skipped"]] == ["gone.jpg", "b.png"]
    assert found["complete"] is True
    error = capsys.readouterr().err
    assert "left out: b.png" in error and "could not be read: 2" in error


def test_strict_runs_end_at_the_first_broken_file(run, photos, tmp_path, capsys):
    (photos / "b.png").write_text("no image")
    out = tmp_path / "out"
    assert detect(run, photos, "--out", out, "--stop_on_error") == 3
    assert "cannot be decoded" in capsys.readouterr().err
    assert content(out)["complete"] is False


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_what_it_has_done(run, photos, tmp_path, monkeypatch, number):
    done = []

    class Stopping(DetectionsJson):
        def add(self, image):
            super().add(image)
            done.append(image["name"])
            if len(done) == 2:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(detect_module, "DetectionsJson", Stopping)
    before = signal.getsignal(number)
    out = tmp_path / "out"
    assert detect(run, photos, "--recursive", "--out", out) == 130
    found = content(out)
    assert found["complete"] is False and len(done) == 2
    assert [image["name"] for image in found["images"]] == ["a.png", "sub/a.png"]
    assert signal.getsignal(number) == before


def test_a_video_gives_a_video_and_a_line_for_each_frame(run, tmp_path):
    out = tmp_path / "out"
    films = [write_video(tmp_path / "x.mp4"), write_image(tmp_path / "a.png")]
    films.append(write_video(tmp_path / "y.mp4", frames=3))
    assert detect(run, *films, "--out", out, "--every", 2) == 0
    images = content(out)["images"]
    assert [image.get("frame") for image in images] == [0, 2, 4, None, 0, 2]
    np.testing.assert_allclose([i["time_s"] for i in images[:3]], [0, 0.4, 0.8], atol=0.01)
    assert drawings(out) == ["a.jpg", "x.mp4", "y.mp4"]
    for name, count in (("x.mp4", 3), ("y.mp4", 2)):
        capture = cv2.VideoCapture(str(out / "drawings" / name))
        assert capture.get(cv2.CAP_PROP_FPS) == 2.5
        frames = [pixels for good, pixels in iter(capture.read, (False, None)) if good]
        capture.release()
        assert len(frames) == count and frames[0].shape == (64, 96, 3)


def test_without_an_encoder_frames_become_pictures(run, tmp_path, monkeypatch, capsys):
    film = write_video(tmp_path / "x.mp4", frames=2)

    class NoCodec:
        fourcc = staticmethod(cv2.VideoWriter.fourcc)

        def __init__(self, *args):
            pass

        def isOpened(self):
            return False

    monkeypatch.setattr(video_module.cv2, "VideoWriter", NoCodec)
    out = tmp_path / "out"
    assert detect(run, film, "--out", out) == 0
    assert drawings(out) == ["x/000000.jpg", "x/000001.jpg"]
    assert "no encoder for mp4v" in capsys.readouterr().err


def test_a_broken_video_is_left_out(run, photos, tmp_path):
    (photos / "bad.mp4").write_bytes(b"nothing" * 50)
    out = tmp_path / "out"
    assert detect(run, photos / "bad.mp4", photos / "a.png", "--out", out) == 3
    found = content(out)
    assert [one["name"] for one in found["skipped"]] == ["bad.mp4"]
    assert len(found["images"]) == 1


def test_an_archive_needs_nothing_else(run, photos, tmp_path, capsys):
    from sniper.runs.export import export_model
    from sniper.runs.plan import test_plan

    archive = tmp_path / "model.zip"
    export_model(test_plan(run.cfg), run.weights, archive)
    flags = ["detect", str(photos), "--format", "none", "--threshold", "0.05"]
    assert sniper_main([*flags, "--model", str(archive), "--out", str(tmp_path / "one")]) == 0
    assert detect(run, photos, "--format", "none", "--out", tmp_path / "two") == 0
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert one["images"] == two["images"] and one["classes"] == run.names
    assert one["model"] == str(archive)
    refused = [*flags, "--model", str(archive), "--out", str(tmp_path), "--set", "gpus", "cpu"]
    assert sniper_main(refused) == 2
    assert "--set as well" in capsys.readouterr().err


def test_wrong_usage_is_two(run, photos, tmp_path):
    assert sniper_main(["detect", str(photos)]) == 2
    assert detect(run, photos, "--out", tmp_path, "--every", 0) == 2
    assert detect(run, photos, "--out", tmp_path, "--mode", "nonsense") == 2


def test_the_json_is_valid_after_every_image(tmp_path):
    path = tmp_path / "new" / "d.json"
    file = DetectionsJson(path, {"classes": ["b", "ä"]})
    for number in range(4):
        value = json.loads(path.read_text())
        assert value == {
            "classes": ["b", "ä"],
            "images": [{"n": n, "text": "é" * n} for n in range(number)],
            "skipped": [],
            "complete": False,
        }
        file.add({"n": number, "text": "é" * number})
    file.close([Skipped("x", "why")], complete=True)
    file.close()
    value = json.loads(path.read_text())
    assert value["complete"] and value["skipped"] == [{"name": "x", "reason": "why"}]
    assert len(value["images"]) == 4


def test_an_interrupted_write_is_mended(tmp_path):
    path = tmp_path / "d.json"
    with DetectionsJson(path, {}) as file:
        file.add({"n": 0})
        write, file._write = file._write, lambda *args, **kwargs: interrupt(file)
        with pytest.raises(KeyboardInterrupt):
            file.add({"n": 1, "text": "x" * 1000})
        file._write = write
    assert json.loads(path.read_text())["images"] == [{"n": 0}]


def interrupt(file):
    file._file.seek(file._end)
    file._file.write(b',\n{"n": 1, "tex')
    raise KeyboardInterrupt


def demo(run, *flags) -> int:
    return demo_main([*map(str, flags), "--cfg", str(run.recipe)])


def test_demo_of_a_picture(run, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert demo(run, "--im_path", photos / "a.png") == 0
    assert not (tmp_path / "data").exists()
    folder = Path(run.cfg.output_path) / "demo"
    assert sorted(path.name for path in folder.iterdir()) == [
        "a_detections.json",
        "a_detections.png",
    ]
    found = json.loads((folder / "a_detections.json").read_text())
    assert found["complete"] and found["images"][0]["name"] == "a.png"
    assert "objects with score >= 0.5" in capsys.readouterr().err
    assert demo(run, "--im_path", photos / "a.png", "--out", tmp_path / "x.pdf") == 0
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "x.json").is_file()


def test_demo_draws_at_the_best_score_when_it_is_known(run, photos, tmp_path, capsys):
    out = tmp_path / "x.jpg"
    flags = ["--im_path", photos / "a.png", "--out", out, "--threshold"]
    assert demo(run, *flags, "best") == 3
    assert "sniper analyze" in capsys.readouterr().err
    analysis = Path(run.cfg.output_path) / "results" / "analysis_val" / "analysis.json"
    analysis.parent.mkdir(parents=True)
    analysis.write_text(json.dumps({"best_f1": {"score": 0.05, "f1": 0.5}}))
    assert demo(run, *flags, "best") == 0
    assert "score 0.050 and more: the best F1 (0.50)" in capsys.readouterr().err
    assert json.loads(out.with_suffix(".json").read_text())["threshold"] == 0.05
    assert demo(run, *flags, "2") == 2


def test_demo_of_a_folder_and_of_a_video(run, photos, tmp_path):
    assert demo(run, "--im_path", photos / "sub", "--out", tmp_path / "found") == 0
    names = sorted(path.name for path in (tmp_path / "found").iterdir())
    assert names == ["a.jpg", "b.jpg", "detections.json"]
    film = write_video(tmp_path / "x.mp4", frames=3)
    assert demo(run, "--im_path", film, "--out", tmp_path / "y.mp4") == 0
    assert len(json.loads((tmp_path / "y.json").read_text())["images"]) == 3
    assert (tmp_path / "y.mp4").stat().st_size > 500


def test_demo_with_weights_of_another_place_and_without_any(run, photos, tmp_path, capsys):
    moved = tmp_path / "moved.params"
    moved.write_bytes(run.weights.read_bytes())
    argv = ["--im_path", str(photos / "a.png"), "--out", str(tmp_path / "a.jpg")]
    elsewhere = ["--cfg", str(run.recipe), "--set", "output_path", str(tmp_path / "nothing")]
    assert demo_main([*argv, "--weights", str(moved), *elsewhere]) == 0
    assert (tmp_path / "a.jpg").is_file()
    assert demo_main([*argv, *elsewhere]) == 3
    assert "the weights are missing" in capsys.readouterr().err
    assert demo_main(["--im_path", str(tmp_path / "gone.jpg"), "--cfg", str(run.recipe)]) == 3


def test_a_folder_of_results_belongs_to_one_run_at_a_time(run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert detect(run, photos / "a.png", "--out", out) == 0
    before = (out / "detections.json").read_bytes()
    with folder_lock(out, fix=""):
        assert detect(run, photos / "sub", "--out", out) == 1
    error = capsys.readouterr().err
    assert f"process {os.getpid()}" in error and "--out" in error
    assert (out / "detections.json").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["detections.json", "drawings"]


@contextmanager
def files_up_to(num_bytes):
    """As on a full disk: no file grows beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_video_that_does_not_fit_on_the_disk_is_no_success(run, tmp_path, capsys):
    video = write_video(tmp_path / "in.mp4", frames=4, noise=99)
    picture = write_image(tmp_path / "a.png")
    for files in ([video], [video, picture]):
        out = tmp_path / f"out{len(files)}"
        flags = ["--cfg", run.recipe, "--threshold", 1, "--out", out]
        with files_up_to(4000):
            assert sniper_main(["detect", *map(str, [*files, *flags])]) == 1
        error = capsys.readouterr().err
        assert "could not be written to its end" in error and "in.mp4" in error
        found = content(out)
        assert found["complete"] is False
        assert len(found["images"]) == 4


def test_a_full_disk_is_noticed_while_a_video_is_written(run, tmp_path, monkeypatch, capsys):
    video = write_video(tmp_path / "in.mp4", frames=4)
    full = SimpleNamespace(f_bavail=3, f_frsize=4096)
    monkeypatch.setattr(video_module.os, "statvfs", lambda _: full)
    assert detect(run, video, "--out", tmp_path / "out") == 1
    assert "the disk is full" in capsys.readouterr().err
    assert content(tmp_path / "out") | {"images": []} == content(tmp_path / "out")


def test_videos_are_counted_by_their_index(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=7)
    assert mp4_frames(path) == 7
    whole = path.read_bytes()
    for size in (0, 7, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert mp4_frames(path) is None
    assert mp4_frames(tmp_path / "gone.mp4") is None


def test_the_json_stays_valid_on_a_full_disk(tmp_path):
    path = tmp_path / "detections.json"
    with pytest.raises(TrainingError, match="No space|too large"), DetectionsJson(path, {}) as file:
        with files_up_to(5000):
            for number in range(1000):
                file.add({"name": str(number)})
    found = json.loads(path.read_text())
    assert found["complete"] is False and len(found["images"]) > 100
    assert found["images"] == [{"name": str(n)} for n in range(len(found["images"]))]

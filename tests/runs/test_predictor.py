"""`Predictor`: what it takes, what it gives, and that neither calls nor threads change it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

import sniper
from bench import predictor as bench
from sniper import Predictor
from sniper.data.image import read_image
from sniper.data.record import Record
from sniper.data.sources import open_source
from sniper.errors import ConfigError, DataError
from sniper.runs import predictor as predictor_module
from sniper.runs.load_model import load_model, make_detector
from sniper.runs.plan import test_plan
from tests.runs.random_run import MASKS, random_run

HERE = Path(__file__).resolve()
SIZES = [(90, 70), (70, 90), (90, 70), (64, 64), (90, 70), (120, 40)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return random_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor(run.recipe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        image = cv2.resize(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8), size)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


@pytest.fixture(scope="module")
def found(predictor, folder):
    return predictor(folder)


def same(one, other) -> bool:
    return one.masks == other.masks and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("boxes", "scores", "classes")
    )


def test_predictions_are_those_of_the_detector_best_first(run, folder, found):
    plan = test_plan(run.cfg, devices="cpu")
    model = load_model(plan.detector, run.weights)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    records = [
        Record(str(folder / f"{number}.png"), number, *size, False, *nothing)
        for number, size in enumerate(SIZES)
    ]
    table = make_detector(plan, model).detect(records)
    assert [prediction.name for prediction in found] == [f"{n}.png" for n in range(len(SIZES))]
    for own, prediction, size in zip(table, found, SIZES):
        assert len(prediction) == len(own) > 5
        assert (prediction.width, prediction.height) == size
        assert (np.diff(prediction.scores) <= 0).all()
        assert prediction.class_names == tuple(run.names) and prediction.masks is None
        rows = {(*row.tolist(), klass) for row, klass in zip(own.rows, own.classes.tolist())}
        assert rows == {
            (*box.tolist(), score, klass)
            for box, score, klass in zip(
                prediction.boxes, prediction.scores.tolist(), prediction.classes.tolist()
            )
        }
        assert prediction.boxes.dtype == prediction.scores.dtype == np.float32
        assert prediction.classes.dtype == np.int32


def test_arrays_lists_and_files_give_the_same(predictor, folder, found):
    paths = sorted(folder.iterdir())
    images = [read_image(path) for path in paths]
    before = [image.copy() for image in images]
    for source in (paths, images, [images[0], *paths[1:]], f"{folder}/*.png"):
        assert all(map(same, predictor(source), found))
    np.testing.assert_array_equal(
        np.concatenate([i.ravel() for i in images]), np.concatenate([i.ravel() for i in before])
    )
    (single,) = predictor(images[3])
    assert same(single, found[3]) and single.name == "image_000000" and single.path is None
    assert predictor([]) == []


def test_neither_blocks_nor_order_change_anything(run, predictor, folder, found, monkeypatch):
    paths = sorted(folder.iterdir())
    assert all(map(same, predictor(paths[::-1]), found[::-1]))
    for batch in (1, 4):
        assert all(map(same, Predictor(run.recipe, batch_images=batch)(folder), found))
    monkeypatch.setattr(predictor_module, "BLOCK_BYTES", 1)
    assert all(map(same, predictor(folder), found))


def test_threads_share_a_predictor(predictor, folder, found):
    paths = sorted(folder.iterdir())
    results, errors = {}, []

    def work(number):
        try:
            order = np.random.default_rng(number).permutation(len(paths))
            results[number] = [
                (index, predictor(paths[index])[0]) for _ in range(3) for index in order
            ]
        except Exception as error:  # noqa: BLE001 (shown by the test)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors and len(results) == 4
    for own in results.values():
        assert len(own) == 3 * len(paths)
        assert all(same(prediction, found[index]) for index, prediction in own)


def test_a_stream_reads_no_further_than_a_few_blocks(predictor):
    read = []

    class Images(list):
        """Looks like the parts of a source, and notes what is taken."""

        def __iter__(self):
            for number, part in enumerate(super().__iter__()):
                read.append(number)
                yield part

    source = open_source([np.zeros((40, 50, 3), np.uint8)] * 200)
    source.parts = Images(source.parts)
    stream = predictor.stream(source)
    assert not read
    assert next(stream).name == "image_000000"
    block = predictor._block_images
    assert 200 > 3 * block >= len(read)
    stream.close()
    assert len(read) <= 3 * block


def test_the_memory_of_masks_bounds_the_parts(tmp_path, folder, monkeypatch):
    run = random_run(tmp_path, MASKS)
    predictor = Predictor(run.recipe)
    assert predictor.has_masks
    together = predictor(folder)
    monkeypatch.setattr("sniper.inference.detector.MAP_MEMORY_BYTES", 1)
    assert all(map(same, predictor(folder), together))
    best = together[0]
    assert len(best.masks) == len(best) > 3
    kept = best.filter(best.scores[2])
    assert kept.masks == best.masks[: len(kept)] and 3 <= len(kept) < len(best)
    entry = json.loads(json.dumps(best.as_dict()))["detections"][1]
    mask = coco_mask.decode(entry["segmentation"])
    assert mask.shape == (best.height, best.width)
    np.testing.assert_array_equal(
        mask, coco_mask.decode({"size": [best.height, best.width], "counts": best.masks[1]})
    )
    assert (best.draw(np.zeros((70, 90, 3), np.uint8), threshold=0) > 0).any()


def test_json_and_thresholds(predictor, run, folder, found):
    path = folder / "0.png"
    threshold = float(found[0].scores[4])
    (few,) = Predictor(run.recipe, threshold=threshold)(path)
    assert 5 <= len(few) < len(found[0]) and few.scores[-1] >= threshold
    assert same(few, found[0].filter(threshold))
    entry = json.loads(json.dumps(few.as_dict()))
    assert entry["name"] == "0.png" and entry["path"] == str(path)
    assert (entry["width"], entry["height"]) == SIZES[0]
    first = entry["detections"][0]
    x1, y1, x2, y2 = few.boxes[0].astype(float)
    np.testing.assert_allclose(first["bbox"], [x1, y1, x2 - x1 + 1, y2 - y1 + 1], atol=0.006)
    assert first["category"] == run.names[first["category_id"]]
    assert first["category_id"] == few.classes[0]
    assert abs(first["score"] - few.scores[0]) < 1e-6
    assert len(few.filter(1.0)) == 0 and few.filter(1.0).as_dict()["detections"] == []


def test_a_prediction_prints_as_one_line(found):
    text = repr(found[0])
    assert "\n" not in text and len(text) < 200
    assert text.startswith(f"<Prediction '0.png' 90x70, {len(found[0])} objects: ")
    best = found[0].class_names[found[0].classes[0]]
    assert f"{best} {found[0].scores[0]:.2f}, " in text and text.endswith(", ...>")
    assert repr(found[0].filter(1)) == "<Prediction '0.png' 90x70, 0 objects>"


def test_frames_of_videos_know_their_place(predictor, tmp_path):
    path = str(tmp_path / "clip.mp4")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 5.0, (96, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no mp4v")
    for level in range(5):
        writer.write(np.full((64, 96, 3), 40 * level, np.uint8))
    writer.release()
    predictions = list(predictor.stream(path, every=2))
    assert [prediction.frame.index for prediction in predictions] == [0, 2, 4]
    entry = predictions[1].as_dict()
    assert entry["frame"] == 2 and entry["time_s"] == pytest.approx(0.4, abs=0.01)
    assert entry["name"] == "clip.mp4#000002" and entry["path"] == path


def test_broken_images_end_the_call_or_are_left_out(predictor, folder, found, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"cut off[\s\S]*1\.png"):
        predictor(tmp_path)
    source = open_source(tmp_path, on_error="skip")
    assert all(map(same, predictor(source), [found[0], *found[2:]]))
    assert [one.name for one in source.skipped] == ["1.png"]
    assert len(predictor(tmp_path, on_error="skip")) == len(SIZES) - 1


def test_modes_and_what_the_caller_keeps(run, folder, found):
    before = run.cfg.TEST.BATCH_IMAGES
    single = Predictor(run.cfg, run.weights, mode="single", batch_images=2, devices="cpu")
    assert run.cfg.TEST.BATCH_IMAGES == before
    assert not any(map(same, single(folder), found))
    stats = single.take_stats()
    assert stats.images == len(SIZES) and stats.pixel_share < 1
    assert single.take_stats().images == 0


def test_wrong_arguments_are_explained(run, tmp_path):
    with pytest.raises(ConfigError, match="batch must hold an image"):
        Predictor(run.recipe, batch_images=0)
    with pytest.raises(ConfigError, match="no such mode"):
        Predictor(run.recipe, mode="nonsense")
    with pytest.raises(ConfigError, match="no such config file"):
        Predictor("sniper_nothing")
    with pytest.raises(DataError, match="weights"):
        Predictor(run.recipe, tmp_path / "missing.params")
    with pytest.raises(ConfigError, match="weights of its own"):
        Predictor(tmp_path / "model.zip", run.weights)


def test_an_archive_brings_everything(run, folder, found, tmp_path):
    from sniper.runs.export import export_model

    export_model(test_plan(run.cfg), run.weights, tmp_path / "model.zip")
    predictor = Predictor(tmp_path / "model.zip")
    assert predictor.class_names == tuple(run.names)
    assert all(map(same, predictor(folder), found))


def test_the_package_loads_it_when_asked():
    text = (
        "import sys, sniper\n"
        "assert 'mxnet' not in sys.modules\n"
        "from sniper import Predictor\n"
        "assert Predictor.__name__ == 'Predictor'\n"
        # It is imported with the first weights that need it.
        "assert 'mxnet' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="nonsense"):
        sniper.nonsense  # noqa: B018


def test_calls_do_not_add_memory_threads_or_files(predictor, folder):
    rows = bench.measure(predictor, str(folder / "0.png"), 60)
    result = bench.judge(rows, block=15, largest_growth=0.04)
    assert result["passed"], bench.lines(result, block=15)


def test_the_measurement_sees_leaks(predictor, folder):
    kept = []
    # A share of what the process holds, which depends on the tests before this one.
    leak_bytes = max(4 << 20, bench.process_figures()["rss"] // 400)

    def leaks_memory(image):
        kept.append(np.ones(leak_bytes, np.uint8))

    def leaks_files(image):
        kept.append(open(folder / "0.png"))  # noqa: SIM115

    for leak in (leaks_memory, leaks_files):
        rows = bench.measure(leak, None, 60)
        assert not bench.judge(rows, block=15, largest_growth=0.04)["passed"]
    for file in kept[60:]:
        file.close()


def test_class_agnostic_predictions_have_one_class_and_its_id(run, folder, found):
    agnostic = Predictor(run.recipe, class_agnostic=True)
    assert agnostic.class_names == ("__background__", "object")
    (first, *_) = agnostic(folder)
    assert set(first.classes) == {1}
    assert first.as_dict()["detections"][0]["category"] == "object"
    assert first.as_dict()["detections"][0]["category_id"] == 1
    assert first.scores[0] >= found[0].scores[0], "any class is likelier than one of them"

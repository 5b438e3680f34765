"""`sniper export-chips`: pictures and boxes are those of training; interrupted runs go on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple

import cv2
import numpy as np
import pytest

from sniper.chips.sampler import make_epoch
from sniper.data import load_dataset
from sniper.loader.images import ImageCache
from sniper.loader.train import TrainLoader
from sniper.runs.resolve import batch_settings, chip_settings
from sniper.tools.chip_sets import pictures
from sniper.tools.explain.training_set import load_training_set
from sniper.tools.export_chips import main

Usage = namedtuple("Usage", "total used free")


def export(tiny_set, kind, *flags, overrides=()):
    out = tiny_set.root / "chips"
    command = ["--cfg", str(tiny_set.recipe), "--out", str(out), "--format", kind, "--threads", "2"]
    code = main([*command, *flags, *(["--set", *overrides] if overrides else [])])
    return code, out


def coco(out):
    content = json.loads((out / "annotations" / "instances_chips.json").read_text())
    boxes = {image["id"]: ([], []) for image in content["images"]}
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        row = (x, y, x + w - 1, y + h - 1, one["category_id"])
        boxes[one["image_id"]][one["iscrowd"]].append(row)
    return content, boxes


def picture(out, name):
    return cv2.imread(str(out / "images" / "chips" / name))


def loader_arrays(data, epoch):
    """(record, chip) -> picture (h, w, 3) BGR and gt_boxes of the batches of training."""
    settings = batch_settings(data.cfg)
    found = {}
    with TrainLoader(
        data.records, chip_settings(data.cfg), settings, batch_size=1, num_workers=0,
        seed=data.cfg.seed,
    ) as loader:  # fmt: skip
        loader.start_epoch(epoch)
        samples = loader.epoch.samples.tolist()
        for sample, batch in zip(samples, loader):
            tensor = batch.data["data"][0].astype(np.float64)
            means = np.array(settings.pixel_means[::-1]).reshape(3, 1, 1)
            pixels = np.rint(tensor + means).transpose(1, 2, 0)[:, :, ::-1]
            found[tuple(sample)] = pixels, batch.label["gt_boxes"][0].copy()
    return found


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("TRAIN.LEGACY_BOXES", "True", "TRAIN.REDUCED_DECODING", "True"),
        ("TRAIN.BACKGROUND_CHIPS", "1.0", "TRAIN.FLIP", "False"),
    ],
)
@pytest.mark.parametrize("epoch", [0, 3])
def test_pixels_and_boxes_are_those_of_training(tiny_set, overrides, epoch):
    # `gt_boxes` then has all boxes of a chip, also those that the box head takes for background.
    overrides = ("TRAIN.MIN_VISIBLE", "0.0", *overrides)
    code, out = export(tiny_set, "coco", "--epoch", str(epoch), overrides=overrides)
    assert code == 0
    data = load_training_set(str(tiny_set.recipe), overrides)
    seen = loader_arrays(data, epoch)
    content, boxes = coco(out)
    assert len(content["images"]) == len(seen)
    ids = [0, *(entry["id"] for entry in content["categories"])]
    assert ids == list(data.category_ids)
    for image, (key, (pixels, gt_boxes)) in zip(content["images"], sorted(seen.items())):
        exported = picture(out, image["file_name"])
        height, width = exported.shape[:2]
        assert (image["height"], image["width"]) == (height, width)
        np.testing.assert_array_equal(exported, pixels[:height, :width], str(key))
        # Behind the picture is nothing but padding.
        means = np.rint(data.cfg.network.PIXEL_MEANS)
        assert (pixels[height:] == means).all() and (pixels[:, width:] == means).all()
        rows = gt_boxes[gt_boxes[:, 4] > 0]
        expected = np.minimum(rows[:, :4], [width - 1, height - 1, width - 1, height - 1])
        wanted = sorted((*b, ids[int(c)]) for b, c in zip(expected.tolist(), rows[:, 4]))
        trained, ignored = boxes[image["id"]]
        assert sorted([*trained, *ignored]) == wanted


def test_boxes_of_other_levels_are_crowd_regions(tiny_set):
    entry = tiny_set.add(9, [150, 150, 60, 40])
    entry["iscrowd"] = 1
    entry["segmentation"] = {"counts": [0, 10], "size": [240, 320]}
    tiny_set.write()
    _, out = export(tiny_set, "coco", overrides=("TRAIN.FLIP", "False"))
    content, boxes = coco(out)
    table = json.loads((out / "chips.json").read_text())
    data = load_training_set(str(tiny_set.recipe), ["TRAIN.FLIP", "False"])
    epoch = make_epoch(
        data.records, chip_settings(data.cfg), seed=data.cfg.seed, epoch=0, batch_size=1
    )
    chips = [(record, chip) for record, of in zip(data.records, epoch.chips) for chip in of]
    assert len(chips) == len(table["chips"])
    for (record, chip), entry in zip(chips, table["chips"]):
        trained, _ = boxes[entry["id"]]
        assert len(trained) == len([row for row in chip.rows if record.is_gt[row]])
        assert entry["rect"] == list(chip.rect)
        assert (entry["factor"], entry["level"]) == (chip.factor, chip.level)
        assert table["images"][entry["image"]]["id"] == record.original_id
    reasons = [one.get("why_crowd") for one in content["annotations"]]
    assert {"size", "crowd", None} == set(reasons)
    assert all((one["iscrowd"] == 1) == ("why_crowd" in one) for one in content["annotations"])


def test_our_own_reader_takes_both_formats(tiny_set, capsys):
    _, out = export(tiny_set, "coco")
    content, boxes = coco(out)
    read = load_dataset("coco", out, "chips")
    trained = sum(len(kept) for kept, _ in boxes.values())
    assert (len(read.records), read.num_objects) == (len(content["images"]), trained)
    _, out = export(tiny_set, "yolo", "--force")
    assert not (out / "annotations").exists()
    text = capsys.readouterr().out
    left_out = sum(len(ignored) for _, ignored in boxes.values())
    assert f"{left_out} boxes of other levels or cut off, which are not trained: left out" in text
    read = load_dataset("yolo", out, "train")
    assert (len(read.records), read.num_objects) == (len(content["images"]), trained)
    assert read.class_names[1:] == ("kite", "ant", "bee")
    by_name = {record.image_path[-12:-4]: record for record in read.records}
    for number, (kept, _) in boxes.items():
        record = by_name[f"{number:08d}"]
        expected = np.array([row[:4] for row in kept]).reshape(-1, 4)
        order, other = np.lexsort(record.boxes.T), np.lexsort(expected.T)
        np.testing.assert_allclose(record.boxes[order], expected[other], atol=0.02)


def test_masks_spare_trained_objects(tiny_set):
    _, plain = export(tiny_set, "coco")
    _, boxes = coco(plain)
    names = [image["file_name"] for image in coco(plain)[0]["images"]]
    before = [picture(plain, name) for name in names]
    _, out = export(tiny_set, "yolo", "--mask", "--force")
    means = np.rint(load_training_set(str(tiny_set.recipe), []).cfg.network.PIXEL_MEANS)
    painted = 0
    for number, (name, pixels) in enumerate(zip(names, before), start=1):
        trained, ignored = boxes[number]
        expected = pixels.copy()
        for rows, colour in ((ignored, means), (trained, None)):
            for x1, y1, x2, y2, _ in rows:
                window = np.s_[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1]
                expected[window] = pixels[window] if colour is None else colour
        painted += len(ignored)
        np.testing.assert_array_equal(picture(out, name), expected)
    assert painted


def test_interrupted_runs_go_on(tiny_set, monkeypatch):
    _, out = export(tiny_set, "coco")
    files = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    parts = [path for path in files if path.suffix == ".png"]
    parts[0].unlink()
    parts[1].write_bytes(files[parts[1]][:100])  # a crash of the machine
    (out / "chips.json").unlink()
    made = []
    original = pictures.PictureFiles.encoded
    monkeypatch.setattr(
        pictures.PictureFiles, "encoded", lambda self, place, images: (
            made.append((self.path(place), images)), original(self, place, images))[1]
    )  # fmt: skip
    assert export(tiny_set, "coco")[0] == 0
    assert {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()} == files
    # The estimate makes some too, with a cache that keeps nothing.
    estimated = [path for path, images in made if images is made[0][1]]
    assert len(estimated) == min(len(parts), 32)
    assert sorted(path for path, images in made if images is not made[0][1]) == parts[:2]


def test_a_broken_image_stops_it_and_it_goes_on(tiny_set, capsys):
    kept = tiny_set.image(8).read_bytes()
    data = load_training_set(str(tiny_set.recipe), [])  # sizes come from the annotations
    assert len(data.records) == 6
    tiny_set.image(8).write_bytes(b"no image")
    assert export(tiny_set, "coco")[0] == 3
    assert "bild 8.jpg" in capsys.readouterr().err
    tiny_set.image(8).write_bytes(kept)
    code, out = export(tiny_set, "coco")
    assert code == 0 and (out / "chips.json").is_file()


def test_other_folders_are_refused(tiny_set, capsys):
    out = tiny_set.root / "chips"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (out / "images").mkdir()
    (out / "images" / "mine.png").write_text("mine")
    assert export(tiny_set, "coco")[0] == 2
    assert "--out holds other things" in capsys.readouterr().err
    assert export(tiny_set, "coco", "--force")[0] == 0
    assert (out / "images" / "mine.png").read_text() == "mine"
    (out / "images" / "mine.png").unlink()
    assert export(tiny_set, "coco", "--epoch", "1")[0] == 2
    assert "other chips" in capsys.readouterr().err
    assert export(tiny_set, "coco", "--epoch", "1", "--force")[0] == 0
    assert (out / "mine.txt").read_text() == "mine"


def test_the_size_is_told_before_and_a_full_disk_refused(tiny_set, monkeypatch, capsys):
    code, out = export(tiny_set, "coco", "--check")
    text = capsys.readouterr().out
    assert code == 0 and not out.exists()
    data = load_training_set(str(tiny_set.recipe), [])
    files = pictures.PictureFiles(_chip_set(data), out)
    size = sum(len(files.encoded(p, ImageCache(0))[0]) for p in files.chips.all_places())
    estimate = files.estimated_bytes()
    assert abs(estimate - size) <= max(0.3 * size, 1000)
    assert f"about {pictures.format_bytes(estimate)}" in text
    usage = Usage(1, 1, estimate)
    monkeypatch.setattr(pictures.shutil, "disk_usage", lambda _: usage)
    assert export(tiny_set, "coco")[0] == 1
    assert "do not fit on this disk" in capsys.readouterr().err
    assert not out.exists()


def _chip_set(data):
    from sniper.tools.export_chips import chip_set

    return chip_set(data, 0)


def test_repeated_chips_are_written_once(tiny_set):
    data = load_training_set(str(tiny_set.recipe), ["dataset.CLASS_BALANCED", "0.9"])
    times = _chip_set(data).times
    assert times.min() >= 1 and times.max() > 1
    _, out = export(tiny_set, "coco", overrides=("dataset.CLASS_BALANCED", "0.9"))
    table = json.loads((out / "chips.json").read_text())
    assert [chip["times"] for chip in table["chips"]] == times.tolist()


def test_jpeg(tiny_set):
    _, out = export(tiny_set, "coco", "--jpeg", "90")
    assert {p.suffix for p in (out / "images").rglob("*") if p.is_file()} == {".jpg"}
    assert len(load_dataset("coco", out, "chips").records)


def test_mxnet_is_not_needed(tiny_set):
    program = (
        "import sys; sys.modules['mxnet'] = None\n"
        "from sniper.tools.export_chips import main\n"
        f"sys.exit(main(['--cfg', {str(tiny_set.recipe)!r}, '--out', "
        f"{str(tiny_set.root / 'chips')!r}, '--format', 'coco']))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

"""One rule of orientation for all formats: Pillow says what viewers show."""

from __future__ import annotations

import logging
import re
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from sniper.data import load_dataset
from sniper.data.image import check_size, read_image
from sniper.data.image_header import image_size
from sniper.data.orientation import ImageFrame, orientation_of, read_exif
from sniper.data.problems import AMBIGUOUS_TURN, TURNED
from sniper.data.record import image_record
from sniper.data.turned import count_turns, turn_of
from sniper.runs.start_up_report import _turn_line

ENDINGS = [".png", ".tif", ".webp", ".jpg"]
WIDTH, HEIGHT = 37, 21


def write(path, orientation, width=WIDTH, height=HEIGHT):
    """Smooth colours, which JPEG keeps; returns the stored and the shown picture, BGR."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 5, y * 9, (x + y) * 3], axis=2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}
    Image.fromarray(rgb).save(path, exif=exif, **options.get(path.suffix, {}))
    with Image.open(path) as image:  # Pillow turns TIFFs when it reads them
        shown = ImageOps.exif_transpose(image)
    return rgb[:, :, ::-1], np.asarray(shown.convert("RGB"))[:, :, ::-1]


def same(a, b):
    assert a.shape == b.shape
    assert np.abs(a.astype(int) - b.astype(int)).max() <= 6  # JPEG


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_frame_of_the_boxes_decides(tmp_path, ending, orientation):
    path = tmp_path / f"a{ending}"
    stored, shown = write(path, orientation)
    assert orientation_of(path) == orientation
    same(read_image(path), shown)
    assert image_size(path) == (shown.shape[1], shown.shape[0])
    for rule, size, expected in (
        ("ignore", (WIDTH, HEIGHT), stored),
        ("apply", (WIDTH, HEIGHT), shown),
        ("auto", (WIDTH, HEIGHT), stored if orientation > 4 or ending == ".tif" else shown),
        ("auto", (HEIGHT, WIDTH), shown if orientation > 4 else None),
    ):
        if expected is not None:
            frame = ImageFrame(*size, rule)
            same(read_image(path, frame=frame), expected)
            same(read_image(path, True, frame=frame), expected[:, ::-1])
            assert image_size(path, frame) == (expected.shape[1], expected.shape[0])


@pytest.mark.parametrize("rule", ["auto", "apply", "ignore"])
@pytest.mark.parametrize("kind", ["folder", "yolo", "voc"])
def test_sizes_that_come_from_files_are_those_of_the_frame(tmp_path, kind, rule, voc_set):
    root, image_set = tmp_path, "train"
    if kind == "voc":
        root, image_set = voc_set.root, "2007_trainval"
        voc_set.add("000012", (HEIGHT, WIDTH), [("dog", (5, 6, 9, 9), "0")])
        folder = voc_set.root / "VOC2007"
        xml = voc_set.xml("000012")
        xml.write_text(re.sub("<size>.*</size>", "", xml.read_text()))
        photo = folder / "JPEGImages" / "000012.jpg"
    else:
        photo = tmp_path / "images" / "train" / "000012.jpg"
        photo.parent.mkdir(parents=True)
        (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nnames: [ant]\n")
        (tmp_path / "labels" / "train").mkdir(parents=True)
        (tmp_path / "labels" / "train" / "000012.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    write(photo, 6)
    for cache in (None, tmp_path / "cache"):
        dataset = load_dataset(kind, root, image_set, exif=rule, cache_dir=cache)
        record = next(one for one in dataset.records if one.image_path.endswith("000012.jpg"))
        size = (WIDTH, HEIGHT) if rule == "ignore" else (HEIGHT, WIDTH)
        assert (record.width, record.height) == size and record.exif == rule
        check_size(read_image(photo, frame=record.frame), record)
    other = "apply" if rule == "ignore" else "ignore"
    again = load_dataset(kind, root, image_set, exif=other, cache_dir=tmp_path / "cache")
    sizes = [(one.width, one.height) for one in again.records]
    assert size[::-1] in sizes and size not in sizes


@pytest.mark.parametrize("order", ["II", "MM"])
def test_big_tiffs_are_turned_like_small_ones(tmp_path, order):
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    path.write_bytes(big_tiff(pixels, 6, "<" if order == "II" else ">"))
    assert orientation_of(path) == 6 and read_exif(path.read_bytes()).is_tiff
    same(read_image(path), cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)[:, :, ::-1])
    same(read_image(path, frame=ImageFrame(WIDTH, HEIGHT)), pixels[:, :, ::-1])
    assert image_size(path) == (HEIGHT, WIDTH)


def big_tiff(rgb, orientation, order):
    """A BigTIFF with one strip: header, pixels, 64 bit directory."""
    height, width = rgb.shape[:2]
    start, short, long = 16, 3, 16
    bits = struct.pack(order + "3Hxx", 8, 8, 8)
    values = {
        256: (short, width), 257: (short, height), 259: (short, 1), 262: (short, 2),
        273: (long, start), 274: (short, orientation), 277: (short, 3), 278: (short, height),
        279: (long, rgb.nbytes),
    }  # fmt: skip
    entries = {
        tag: struct.pack(order + "HHQ" + ("Q" if kind == long else "H6x"), tag, kind, 1, value)
        for tag, (kind, value) in values.items()
    }
    entries[258] = struct.pack(order + "HHQ", 258, short, 3) + bits
    magic = b"II" if order == "<" else b"MM"
    head = magic + struct.pack(order + "HHHQ", 43, 8, 0, start + rgb.nbytes)
    listed = b"".join(entries[tag] for tag in sorted(entries))
    return head + rgb.tobytes() + struct.pack(order + "Q", len(entries)) + listed + bytes(8)


def test_reduced_photos_are_turned_alike(tmp_path):
    write(tmp_path / "a.jpg", 6, 160, 80)
    small = read_image(tmp_path / "a.jpg", reduction=2, frame=ImageFrame(80, 160))
    assert small.shape == (80, 40, 3)
    assert read_image(tmp_path / "a.jpg", reduction=2, frame=ImageFrame(160, 80)).shape[0] == 40


@pytest.mark.parametrize(
    ("orientation", "size", "kind"),
    [
        (1, (WIDTH, HEIGHT), None),
        (6, (WIDTH, HEIGHT), None),  # annotated as it is stored
        (6, (HEIGHT, WIDTH), TURNED),
        (3, (WIDTH, HEIGHT), AMBIGUOUS_TURN),
    ],
)
def test_turns_are_told(tmp_path, orientation, size, kind):
    write(tmp_path / "a.jpg", orientation)
    record = image_record(tmp_path / "a.jpg", 1, *size)
    assert turn_of(record) is kind
    assert sum(count_turns([record] * 3).values()) == (0 if kind is None else 3)


def test_the_start_up_counts_turned_and_ambiguous_images(tmp_path):
    records = []
    for number, (orientation, size) in enumerate(
        [(6, (HEIGHT, WIDTH)), (8, (HEIGHT, WIDTH)), (3, (WIDTH, HEIGHT)), (1, (WIDTH, HEIGHT))]
    ):
        write(tmp_path / f"{number}.jpg", orientation)
        records.append(image_record(tmp_path / f"{number}.jpg", number, *size))
    assert "2 images are turned" in _turn_line(records)
    assert "the size of 1 fits both ways" in _turn_line(records)
    assert "fits both" not in _turn_line(records[:2]) and _turn_line(records[3:]) == ""


@pytest.mark.parametrize("content", [b"", b"II*\0", b"\xff\xd8\xff\xe1\0\x08Exif\0\0II", b"RIFF"])
def test_broken_headers_say_nothing(content):
    assert read_exif(content).orientation == 1


def test_twelve_bits_in_sixteen_are_scaled_and_told(tmp_path, caplog):
    grey = np.linspace(0, 255, 60 * 40).reshape(40, 60).astype(np.uint8)
    for ending, factor in ((".png", 16), (".tiff", 16), (".png", 257)):
        path = tmp_path / f"{factor}{ending}"
        cv2.imwrite(str(path), grey.astype(np.uint16) * factor)
        with caplog.at_level(logging.WARNING):
            image = read_image(path)
        assert image.dtype == np.uint8 and image.shape == (40, 60, 3)
        assert np.abs(image[:, :, 1].astype(int) - grey).max() <= 1
    assert "grey levels" in caplog.text


def test_floats_are_scaled(tmp_path):
    values = np.linspace(0, 1, 60 * 40, dtype=np.float32).reshape(40, 60)
    for name, high in (("unit", 1.0), ("more", 900.0)):
        path = tmp_path / f"{name}.tiff"
        cv2.imwrite(str(path), values * high)
        assert np.abs(read_image(path)[:, :, 0] / 255 - values).max() < 0.01


def test_alpha_is_dropped_and_told(tmp_path, caplog):
    image = np.full((20, 30, 4), 200, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    with caplog.at_level(logging.WARNING):
        read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read, image[:, :, :3])
    assert "a.png is transparent in parts" in caplog.text


@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits_stay_as_they_are(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, channels)).astype(np.uint8)
    for ending in (".png", ".tif", ".bmp"):
        cv2.imwrite(str(tmp_path / f"a{ending}"), image)
        read = read_image(tmp_path / f"a{ending}")
        np.testing.assert_array_equal(read, np.broadcast_to(image, (30, 40, 3)))


@pytest.mark.parametrize("size", [(320, 319), (319, 320)])
def test_a_reduced_photo_lies_as_the_whole_one(tmp_path, size):
    """At 1/8 both sides have 40 px: the stored size must decide, not the reduced one."""
    pixels = np.zeros((319, 320, 3), np.uint8)
    pixels[:100, :100] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    whole = read_image(tmp_path / "a.jpg", frame=ImageFrame(*size))
    reduced = read_image(tmp_path / "a.jpg", reduction=8, frame=ImageFrame(*size))
    corners = [(5, 5), (5, -5), (-5, 5), (-5, -5)]
    bright = [whole[corner].mean() > 128 for corner in corners]
    assert [reduced[corner].mean() > 128 for corner in corners] == bright
    assert sum(bright) == 1

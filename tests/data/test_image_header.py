from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from sniper.data.image import read_image
from sniper.data.image_header import image_size
from sniper.errors import DataError


def write_image(path, width=37, height=21, seed=3):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, cv2.GaussianBlur(pixels, (5, 5), 0))[1].tofile(path)
    return path


def app1(payload):
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def turn(path, orientation=6):
    """Adds an EXIF block that says how viewers should turn the image."""
    tiff = b"MM\x00\x2a\x00\x00\x00\x08" + struct.pack(
        ">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0
    )
    content = path.read_bytes()
    path.write_bytes(content[:2] + app1(b"Exif\x00\x00" + tiff) + content[2:])


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tiff", "a.ppm"])
def test_sizes_are_those_of_the_decoded_pixels(tmp_path, name):
    path = write_image(tmp_path / name)
    assert image_size(path) == (37, 21)
    assert read_image(path).shape == (21, 37, 3)


def test_progressive_and_padded_jpegs(tmp_path):
    path = tmp_path / "p.jpg"
    pixels = np.zeros((40, 30, 3), np.uint8)
    cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tofile(path)
    assert image_size(path) == (30, 40)
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"\xff\xff" + content[2:].replace(b"\xff", b"\xff", 1)[1:])
    assert image_size(path) == (30, 40)
    path.write_bytes(content + b"\x00" * 500)
    assert image_size(path) == (30, 40)


def test_the_thumbnail_of_a_cut_off_image_does_not_pass(tmp_path):
    path = write_image(tmp_path / "a.jpg")
    content = path.read_bytes()
    thumbnail = write_image(tmp_path / "t.jpg", 8, 8).read_bytes()
    whole = content[:2] + app1(b"Exif\x00\x00" + thumbnail) + content[2:]
    path.write_bytes(whole)
    assert image_size(path) == (37, 21)
    path.write_bytes(whole[:-40])
    with pytest.raises(DataError, match="cut off"):
        image_size(path)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 100, b"\xff\xd8", b"\xff\xd8\xff\xda\xff\xd9", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        image_size(path)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        image_size(tmp_path / "a.jpg")


def test_real_images(coco_mini):
    paths = sorted((coco_mini / "images" / "val2017").glob("*.jpg"))[:20]
    for path in paths:
        height, width = read_image(path).shape[:2]
        assert image_size(path) == (width, height)

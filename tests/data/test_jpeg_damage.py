"""Damage in the middle of a JPEG is found by its bytes, or by what the decoder says."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from sniper.data.image import read_image
from sniper.data.image_header import image_size
from sniper.data.jpeg_damage import decoder_messages, jpeg_damage
from sniper.errors import DataError


def picture(*options):
    pixels = np.random.default_rng(3).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.resize(pixels, (320, 240)), [*options])[1].tobytes()


KINDS = {
    "baseline": picture(),
    "progressive": picture(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "with restarts": picture(cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "with a second picture behind its end": picture() + picture()[:999],
}


@pytest.mark.parametrize("content", KINDS.values(), ids=KINDS)
def test_sound_pictures_are_sound(content):
    assert jpeg_damage(content) is None
    assert jpeg_damage(b"\x89PNG" + content) is None


@pytest.mark.parametrize("content", KINDS.values(), ids=KINDS)
def test_blocks_that_were_never_written_are_found(content):
    middle = content.find(b"\xff\xda") + 400
    damaged = content[:middle] + bytes(300) + content[middle + 300 :]
    assert "zeros from byte" in jpeg_damage(damaged)


def test_markers_that_no_scan_has_are_found():
    content = KINDS["baseline"]
    middle = len(content) // 2
    damaged = content[:middle] + b"\xff\x55" + content[middle + 2 :]
    assert jpeg_damage(damaged) == f"the picture is damaged at byte {middle} of {len(content)}"


def test_the_decoder_is_heard(tmp_path, capfd):
    content = KINDS["baseline"]
    middle = len(content) // 2
    path = tmp_path / "hole.jpg"
    path.write_bytes(content[:middle] + content[middle + 900 :])
    assert jpeg_damage(path.read_bytes()) is None  # bytes do not show it
    with decoder_messages() as messages:
        read_image(path)
        assert "Corrupt JPEG data" in messages()
        assert messages() == ""
        os.write(2, b"again")
        assert messages() == "again"
    os.write(2, b"as before")
    assert capfd.readouterr().err == "as before"


def test_pixels_beyond_the_limit_name_the_cure(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((30, 40, 3), np.uint8))[1].tobytes())
    assert image_size(path) == (40, 30)
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1199")
    with pytest.raises(DataError, match="40x30 px, which are 1200") as error:
        image_size(path)
    assert "at most 1199" in str(error.value) and "cut the image into tiles" in str(error.value)


def test_what_opencv_refuses_names_the_cure(tmp_path):
    path = tmp_path / "large.bmp"
    content = bytearray(cv2.imencode(".bmp", np.zeros((30, 40, 3), np.uint8))[1].tobytes())
    content[18:26] = (50_000).to_bytes(4, "little") * 2
    path.write_bytes(content)
    with pytest.raises(DataError, match="OPENCV_IO_MAX_IMAGE_PIXELS"):
        read_image(path)

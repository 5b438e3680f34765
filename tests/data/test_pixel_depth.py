"""Pictures with more than 8 bits a channel, and with alpha."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from sniper.data.image import read_image
from sniper.data.image_header import image_size
from sniper.data.sources import open_source
from sniper.errors import DataError
from sniper.loader.images import ImageCache


def grey_levels():
    """(32, 48, 3) uint8: all of 0 to 255 in a smooth run."""
    run = np.linspace(0, 255, 48).round().astype(np.uint8)
    return np.repeat(np.repeat(run[None, :, None], 32, 0), 3, 2)


@pytest.mark.parametrize("ending", [".png", ".tiff", ".ppm", ".jp2"])
@pytest.mark.parametrize("most", [4095, 65535])
def test_12_and_16_bits_become_the_whole_range(tmp_path, ending, most):
    pixels = grey_levels()
    path = tmp_path / f"a{ending}"
    cv2.imencode(ending, (pixels / 255.0 * most).round().astype(np.uint16))[1].tofile(path)
    assert np.abs(read_image(path).astype(int) - pixels).max() <= 2


@pytest.mark.parametrize("most", [4095, 65535, 2**31 - 1])
def test_32_bits_that_hold_fewer_become_the_whole_range(tmp_path, most):
    pixels = grey_levels()
    path = tmp_path / "a.tiff"
    cv2.imencode(".tiff", (pixels / 255.0 * most).round().astype(np.int32))[1].tofile(path)
    assert np.abs(read_image(path).astype(int) - pixels).max() <= 2


@pytest.mark.parametrize(("ending", "most", "error"), [("pfm", 1.0, 1), ("hdr", 300.0, 2)])
def test_floats_of_pfm_and_radiance_become_the_whole_range(tmp_path, ending, most, error):
    pixels = grey_levels()
    path = tmp_path / f"a.{ending}"
    cv2.imencode(f".{ending}", (pixels / 255.0 * most).astype(np.float32))[1].tofile(path)
    assert np.abs(read_image(path).astype(int) - pixels).max() <= error


@pytest.mark.parametrize("most", [1.0, 1.02, 255.0])
def test_floats_become_the_whole_range(tmp_path, most):
    pixels = grey_levels()
    path = tmp_path / "a.tiff"
    # float64, since OpenCV stores float32 with losses
    cv2.imencode(".tiff", pixels / 255.0 * most)[1].tofile(path)
    assert np.abs(read_image(path).astype(int) - pixels).max() <= 6


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colours_of_every_mode(tmp_path, mode, ending):
    if (mode, ending) == ("CMYK", "png"):
        pytest.skip("PNG has no CMYK")
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 9, 3), np.uint8))
    picture = picture.convert(mode)
    path = tmp_path / f"a.{ending}"
    picture.save(path)
    wanted = np.asarray(picture.convert("RGB"))[:, :, ::-1].astype(int)
    assert np.abs(read_image(path) - wanted).max() <= 1


def test_many_files_are_told_once_and_counted(tmp_path, caplog):
    for number in range(12):
        pixels = np.full((4, 5), 60_000, np.uint16)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
    for _ in range(2):  # nothing is remembered from the first one
        caplog.clear()
        images = ImageCache(0)
        for path in sorted(tmp_path.iterdir()) * 2:
            images.read(str(path))
            image_size(path)
        first, counted = [record.message for record in caplog.records]
        assert "0.png holds 16 bit values" in first and counted.startswith("10 files so far")
    caplog.clear()
    for image in open_source(str(tmp_path)):
        image.read()
    assert len(caplog.records) == 2


def test_damage_in_the_middle_of_a_photo_names_the_file(tmp_path, caplog):
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    path.write_bytes(content)
    images = ImageCache()
    images.read(str(path))
    assert not caplog.records
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    assert ImageCache().read(str(path)).shape == (64, 64, 3)
    assert len(caplog.records) == 1 and f"{path} is shown with junk" in caplog.text


def test_a_png_without_a_header_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nIEND")
    with pytest.raises(DataError, match="decoded"):
        read_image(path)

"""Pictures with more than 8 bits a channel, and with alpha."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from sniper.data.image import read_image
from sniper.errors import DataError


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


def test_a_png_without_a_header_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nIEND")
    with pytest.raises(DataError, match="decoded"):
        read_image(path)

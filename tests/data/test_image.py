from __future__ import annotations

import os
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.data.coco import load_coco
from sniper.data.cut import chip_image, content_size
from sniper.data.image import check_size, read_image
from sniper.data.image_header import image_size
from sniper.errors import DataError

MEANS = (103.939, 116.779, 123.68)


@pytest.fixture(scope="module")
def golden_images(golden):
    return np.load(golden / "image_tensor.npz", allow_pickle=False)


@pytest.mark.parametrize("case", range(4))
def test_chips_equal_the_2018_tensors(golden_images, case):
    image = golden_images["image_bgr"]
    if golden_images["flipped"][case]:
        image = np.ascontiguousarray(image[:, ::-1])
    rect, factor = golden_images["chips"][case], float(golden_images["scales"][case])
    tensor = chip_image(image, rect, factor, (512, 512), golden_images["pixel_means_bgr"])
    height, width = content_size(image.shape[:2], rect, factor)
    assert (min(height, 512), min(width, 512)) == tuple(golden_images["content_hw"][case])
    assert tensor.dtype == np.float32 and tensor.shape == (3, 512, 512)
    np.testing.assert_array_equal(tensor[:, :48, :48], golden_images["corner"][case])
    np.testing.assert_array_equal(tensor[:, 200:264, 200:264], golden_images["middle"][case])
    np.testing.assert_allclose(
        tensor.reshape(3, -1).mean(axis=1), golden_images["channel_means"][case], rtol=1e-5
    )
    assert not tensor[:, height:].any() and not tensor[:, :, width:].any()


def slow_tensor(image, rect, factor, size_hw, means):
    x1, y1, x2, y2 = (int(v) for v in rect)
    resized = cv2.resize(image[y1:y2, x1:x2], None, fx=factor, fy=factor)
    tensor = np.zeros((3, *size_hw), np.float32)
    for c in range(3):
        for y in range(min(size_hw[0], resized.shape[0])):
            for x in range(min(size_hw[1], resized.shape[1])):
                tensor[c, y, x] = float(resized[y, x, 2 - c]) - means[2 - c]
    return tensor


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(21.5, 30), st.floats(21.5, 40)),
    st.sampled_from([0.8, 1.0, 1.667, 3.0, 0.4123]),
)
def test_chips_against_a_slow_reference(seed, rect, factor):
    image = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    ours = chip_image(image, rect, factor, (24, 16), MEANS)
    np.testing.assert_array_equal(ours, slow_tensor(image, rect, factor, (24, 16), MEANS))


def test_sizes_round_half_to_even():
    assert content_size((500, 500), (0, 0, 375, 501), 0.5) == (250, 188)
    assert content_size((501, 501), (0, 0, 501, 167), 1.5) == (250, 752)
    assert content_size((480, 640), (0, 0, 638.75, 478.75), 0.8) == (382, 510)


def test_levels_take_the_whole_image_and_clamp_the_window():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    whole = chip_image(image, (0, 0, 30, 20), 1.0, (32, 32), MEANS)
    np.testing.assert_array_equal(
        whole[:, :20, :30], slow_tensor(image, (0, 0, 30, 20), 1.0, (20, 30), MEANS)
    )
    assert not whole[:, 20:].any() and not whole[:, :, 30:].any()
    beyond = chip_image(image, (-7, -3, 99, 50), 1.0, (32, 32), MEANS)
    np.testing.assert_array_equal(beyond, whole)


@pytest.mark.parametrize("rect", [(30, 0, 40, 10), (-9, 0, -1, 10), (3, 3, 3.9, 9), (9, 9, 2, 2)])
def test_windows_without_pixels_are_refused(rect):
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(DataError, match="holds no pixel"):
        chip_image(image, rect, 1.0, (8, 8), MEANS)


def test_a_scale_that_leaves_no_pixel_is_refused():
    with pytest.raises(DataError, match="holds no pixel"):
        chip_image(np.zeros((20, 30, 3), np.uint8), (0, 0, 30, 20), 0.01, (8, 8), MEANS)


@pytest.fixture
def photo(tmp_path):
    """A JPEG file whose pixels cannot be guessed."""
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path = tmp_path / "ünder the sea.jpg"
    cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (9, 9), 0))[1].tofile(path)
    return path


def _insert(path, segment):
    content = path.read_bytes()
    path.write_bytes(content[:2] + segment + content[2:])


def _app1(payload):
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def test_read_and_flip(photo):
    image = read_image(photo)
    assert image.shape == (60, 80, 3) and image.dtype == np.uint8
    flipped = read_image(photo, flipped=True)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    assert flipped.flags.c_contiguous


@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_cut_off_jpeg_is_refused_though_opencv_reads_it(photo, share):
    content = photo.read_bytes()
    photo.write_bytes(content[: int(len(content) * share)])
    assert cv2.imread(str(photo)).shape == (60, 80, 3)
    with pytest.raises(DataError, match="cut off") as error:
        read_image(photo)
    assert str(photo) in str(error.value)


def test_the_end_of_a_thumbnail_does_not_count(photo):
    _insert(photo, _app1(b"Exif\x00\x00" + b"\xff\xd8\xff\xd9" * 3))
    assert read_image(photo).shape == (60, 80, 3)
    content = photo.read_bytes()
    photo.write_bytes(content[:-200])
    with pytest.raises(DataError, match="cut off"):
        read_image(photo)


def test_bytes_behind_the_end_are_allowed(photo):
    image = read_image(photo)
    photo.write_bytes(photo.read_bytes() + b"\x00" * 999)
    np.testing.assert_array_equal(read_image(photo), image)


def test_cut_off_png_is_refused(photo):
    path = photo.with_suffix(".png")
    cv2.imencode(".png", read_image(photo))[1].tofile(path)
    np.testing.assert_array_equal(read_image(path), read_image(photo))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="cut off"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"hello", b"\xff\xd8\xff\xda\xff\xd9"])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_image(path)
    assert str(path) in str(error.value)


def test_a_broken_jpeg_2000_does_not_end_the_process(tmp_path):
    path = tmp_path / "a.jp2"
    content = cv2.imencode(".jp2", np.zeros((64, 96, 3), np.uint8))[1].tobytes()
    path.write_bytes(content[:150] + content[-2:])  # a header with a hole
    text = f"from sniper.data.image import read_image\nread_image({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "cannot be decoded" in done.stderr
    for length in (30, 150, len(content) - 1):  # OpenCV may end the process here
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="cut off"):
            read_image(path)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_pipes_are_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="no file\n.*\n.*a pipe"):
        read(tmp_path / "a.png")


def test_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jpg"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_size_is_compared_with_the_annotations(small_set):
    record = load_coco(small_set.root, small_set.image_set).records[0]
    image = read_image(record.image_path)
    check_size(image, record)
    with pytest.raises(DataError, match="40x60") as error:
        check_size(np.rot90(image), record)
    assert "60x40" in str(error.value) and record.image_path in str(error.value)


def test_real_images_are_read(coco_mini):
    for record in load_coco(coco_mini, "val2017").records:
        check_size(read_image(record.image_path), record)

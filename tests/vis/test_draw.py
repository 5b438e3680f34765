from __future__ import annotations

import builtins
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.data.detections import ImageDetections
from sniper.errors import ConfigError, DataError
from sniper.vis.draw import class_colour, draw_detections, save_image

NAMES = ("__background__", "cat", "dog")


@pytest.fixture()
def grey() -> np.ndarray:
    return np.full((240, 320, 3), 90, dtype=np.uint8)


def detections(cat: list = (), dog: list = (), background: list = ()) -> ImageDetections:
    lists = (background, cat, dog)
    rows = np.concatenate([np.array(own, dtype=np.float32).reshape(-1, 5) for own in lists])
    return ImageDetections(rows, np.repeat(np.int32([0, 1, 2]), [len(own) for own in lists]))


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


def test_the_image_itself_is_not_changed(grey: np.ndarray) -> None:
    drawn = draw_detections(grey, detections(cat=[[50, 60, 150, 160, 0.9]]), NAMES)
    assert (grey == 90).all() and changed(grey, drawn).any()
    assert drawn.shape == grey.shape and drawn.dtype == np.uint8


def test_a_box_is_drawn_where_it_is(grey: np.ndarray) -> None:
    drawn = draw_detections(grey, detections(cat=[[50, 60, 150, 160, 0.9]]), NAMES)
    colour = class_colour(1)
    for x, y in ((50, 100), (150, 100), (100, 160)):
        assert tuple(drawn[y, x]) == colour
    assert not changed(grey, drawn)[65:155, 55:145].any()  # nothing inside
    mask = changed(grey, drawn)
    assert mask[40:59, 50:100].mean() > 0.6  # the label stands above


def test_near_the_top_the_label_is_inside(grey: np.ndarray) -> None:
    drawn = draw_detections(grey, detections(cat=[[50, 10, 250, 160, 0.9]]), NAMES)
    mask = changed(grey, drawn)
    assert not mask[:9].any()
    assert mask[13:20, 52:80].all()


def test_a_label_at_the_right_edge_stays_in_the_image(grey: np.ndarray) -> None:
    drawn = draw_detections(grey, detections(cat=[[310, 100, 318, 200, 0.9]]), NAMES)
    columns = np.flatnonzero(changed(grey, drawn)[80:98].any(axis=0))
    assert columns[0] < 280 and columns[-1] == 319


def test_threshold_counts_from_the_score_itself(grey: np.ndarray) -> None:
    low = detections(cat=[[50, 60, 150, 160, 0.49]], dog=[[50, 60, 150, 160, 0.3]])
    np.testing.assert_array_equal(draw_detections(grey, low, NAMES), grey)
    assert changed(grey, draw_detections(grey, low, NAMES, threshold=0.4)).any()
    equal = detections(cat=[[50, 60, 150, 160, 0.5]])
    assert changed(grey, draw_detections(grey, equal, NAMES, threshold=0.5)).any()


def test_higher_scores_lie_on_top_whatever_the_class(grey: np.ndarray) -> None:
    box = [50, 60, 150, 160]
    drawn = draw_detections(grey, detections(cat=[[*box, 0.9]], dog=[[*box, 0.6]]), NAMES)
    assert tuple(drawn[120, 50]) == class_colour(1)
    drawn = draw_detections(grey, detections(cat=[[*box, 0.6]], dog=[[*box, 0.9]]), NAMES)
    assert tuple(drawn[120, 50]) == class_colour(2)


def test_background_and_empty_detections_draw_nothing(grey: np.ndarray) -> None:
    full = detections(background=[[50, 60, 150, 160, 0.99]])
    np.testing.assert_array_equal(draw_detections(grey, full, NAMES), grey)
    np.testing.assert_array_equal(draw_detections(grey, detections(), NAMES), grey)


@pytest.mark.parametrize(
    "box",
    [
        [400, 10, 500, 90, 0.9],
        [-90, 10, -5, 90, 0.9],
        [10, 300, 60, 400, 0.9],
        [np.nan, 10, 60, 90, 0.9],
        [10, 10, np.inf, 90, 0.9],
        [90, 10, 60, 90, 0.9],
    ],
)
def test_boxes_that_cannot_be_seen_are_left_out(grey: np.ndarray, box: list) -> None:
    np.testing.assert_array_equal(draw_detections(grey, detections(cat=[box]), NAMES), grey)


def test_boxes_crossing_the_border_are_cut(grey: np.ndarray) -> None:
    drawn = draw_detections(grey, detections(cat=[[-50, -60, 1000, 100, 0.9]]), NAMES)
    assert tuple(drawn[100, 160]) == class_colour(1)
    assert tuple(drawn[50, 0]) == class_colour(1) and tuple(drawn[50, 319]) == class_colour(1)


@given(st.lists(st.tuples(*[st.floats(-1e9, 1e9)] * 4, st.floats(0, 1)), max_size=6))
@settings(max_examples=40, deadline=None)
def test_any_numbers_are_drawn_without_failure(rows: list) -> None:
    image = np.zeros((37, 53, 3), dtype=np.uint8)
    boxes = np.array(rows).reshape(-1, 5)
    found = ImageDetections(boxes, np.ones(len(boxes), np.int32))
    drawn = draw_detections(image, found, NAMES)
    assert drawn.shape == image.shape


def test_tiny_images_are_drawn() -> None:
    image = np.zeros((1, 1, 3), dtype=np.uint8)
    drawn = draw_detections(image, detections(cat=[[0, 0, 0, 0, 1]]), NAMES)
    assert drawn.shape == (1, 1, 3)


def test_lines_grow_with_the_image() -> None:
    widths = []
    for size in (300, 1300):
        image = np.zeros((size, size, 3), dtype=np.uint8)
        drawn = draw_detections(image, detections(cat=[[100, 100, 250, 250, 0.9]]), NAMES)
        widths.append(int(changed(image, drawn)[175, 60:140].sum()))
    assert widths[0] == 1 and widths[1] >= 3


def test_names_that_are_not_ascii(grey: np.ndarray) -> None:
    boxes = ImageDetections(np.array([[50, 60, 250, 160, 0.9]]), np.zeros(1, np.int32))
    accent = draw_detections(grey, boxes, ["Äpfel"])
    np.testing.assert_array_equal(accent, draw_detections(grey, boxes, ["Apfel"]))
    foreign = draw_detections(grey, boxes, ["自転車"])
    np.testing.assert_array_equal(foreign, draw_detections(grey, boxes, ["class 0"]))
    half = draw_detections(grey, boxes, ["straße\n"])
    np.testing.assert_array_equal(half, draw_detections(grey, boxes, ["stra?e?"]))


def test_colours_are_stable_and_distinct() -> None:
    colours = [class_colour(i) for i in range(1, 81)]
    assert colours == [class_colour(i) for i in range(1, 81)]
    assert len(set(colours)) == 80
    near = np.array(colours[:10], dtype=float)
    distance = np.linalg.norm(near[:, None] - near[None], axis=2) + 1e3 * np.eye(10)
    assert distance.min() > 40
    assert all(0 <= c <= 255 and isinstance(c, int) for colour in colours for c in colour)


def test_wrong_input_is_explained(grey: np.ndarray) -> None:
    with pytest.raises(DataError, match="class without a name"):
        draw_detections(grey, detections(dog=[[1, 2, 3, 4, 0.9]]), NAMES[:2])
    with pytest.raises(DataError, match="wrong shape"):
        draw_detections(grey, ImageDetections(np.zeros((2, 4)), np.ones(2, np.int32)), NAMES)
    with pytest.raises(DataError, match="differ in number"):
        draw_detections(grey, ImageDetections(np.zeros((2, 5)), np.ones(1, np.int32)), NAMES)
    for image in (grey.astype(np.float32), grey[:, :, 0], None, grey[:0]):
        with pytest.raises(DataError, match="not a colour image"):
            draw_detections(image, detections(), NAMES)


def test_every_ending_gives_its_format(tmp_path: Path, grey: np.ndarray) -> None:
    starts = {"a.jpg": b"\xff\xd8", "b.JPEG": b"\xff\xd8", "c.png": b"\x89PNG", "d.pdf": b"%PDF"}
    for name, start in starts.items():
        path = tmp_path / "new" / name
        save_image(path, grey)
        assert path.read_bytes().startswith(start)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "c.png")), grey)


@pytest.mark.parametrize("name", ["a.gif", "a", "a.txt"])
def test_an_unknown_ending_is_refused(tmp_path: Path, grey: np.ndarray, name: str) -> None:
    with pytest.raises(ConfigError, match="format"):
        save_image(tmp_path / name, grey)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".png", ".pdf"])
def test_a_file_that_cannot_be_written_is_an_error(
    tmp_path: Path, grey: np.ndarray, ending: str
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        save_image(tmp_path / "file" / f"a{ending}", grey)
    (tmp_path / f"folder{ending}").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        save_image(tmp_path / f"folder{ending}", grey)


def test_a_failing_encoder_is_an_error(
    tmp_path: Path, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    with pytest.raises(DataError, match="could not encode"):
        save_image(tmp_path / "a.jpg", grey)


def test_pdf_without_matplotlib_is_explained(
    tmp_path: Path, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def no_matplotlib(name: str, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        save_image(tmp_path / "a.pdf", grey)

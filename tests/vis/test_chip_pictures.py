"""Pictures of chips, read back pixel by pixel where that is possible."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from sniper.errors import DataError
from sniper.vis.chip_pictures import (
    IGNORED,
    NEVER,
    VALID,
    ChipOutline,
    LevelPanel,
    TensorPanel,
    denormalise,
    draw_levels,
    draw_tensors,
)
from sniper.vis.figures import png_bytes

MEANS = (103.939, 116.779, 123.68)


def picture(figure):
    return (matplotlib.image.imread(io.BytesIO(png_bytes(figure)))[:, :, :3] * 255).round()


def level_panel(**changes):
    values = {
        "title": "level 0\n1 chip",
        "chips": [ChipOutline(1, (40, 40, 139, 139))],
        "boxes": np.array([[60, 60, 90, 90], [100, 60, 120, 80], [2, 2, 20, 20]], np.float32),
        "states": [VALID, IGNORED, NEVER],
    }
    return LevelPanel(**(values | changes))


def tensor_panel(size=128, stride=16, **changes):
    cells = size // stride
    label = np.full((2, cells, cells), -1, np.float32)
    label[0, 1, 2] = 1
    label[1, 5, 6] = 0
    values = {
        "title": "chip 1",
        "data": np.zeros((3, size, size), np.float32),
        "size_hw": (size, size),
        "boxes": np.array([[20, 20, 60, 60]], np.float32),
        "states": [VALID],
        "labels": ["kite"],
        "anchors": [(label, stride)],
    }
    return TensorPanel(**(values | changes))


def has(image, colour, tolerance=12):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(image - wanted).max(axis=2) <= tolerance).any())


def test_denormalise_gives_back_the_pixels():
    rng = np.random.default_rng(0)
    bgr = rng.integers(0, 256, (6, 5, 3))
    tensor = (bgr - np.array(MEANS)).astype(np.float32)[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(denormalise(tensor, MEANS), bgr[:, :, ::-1])
    np.testing.assert_array_equal(
        denormalise(np.zeros((3, 1, 1), np.float32), MEANS)[0, 0], [124, 117, 104]
    )
    assert denormalise(np.full((3, 1, 1), 900, np.float32), MEANS).max() == 255


def test_outside_of_chips_is_dimmed():
    image = np.full((200, 300, 3), 200, np.uint8)
    drawn = picture(draw_levels(image, "heading", [level_panel(boxes=np.zeros((0, 4)), states=[])]))
    bright, dark = (drawn == 200).all(axis=2).sum(), (drawn == 70).all(axis=2).sum()
    # The panel is 3 times as large as the image; the outline hides a little.
    assert bright == pytest.approx(9 * 100 * 100, rel=0.1)
    assert dark == pytest.approx(9 * (200 * 300 - 100 * 100), rel=0.05)


def test_states_have_their_colours():
    image = np.full((200, 300, 3), 128, np.uint8)
    drawn = picture(draw_levels(image, "h", [level_panel()]))
    assert has(drawn, "#1fbf4a") and has(drawn, "#ff9f1c") and has(drawn, "#e6194b")
    drawn = picture(draw_levels(image, "h", [level_panel(states=[VALID] * 3)]))
    assert has(drawn, "#1fbf4a") and not has(drawn, "#e6194b")


def test_negative_chips_and_false_alarms_are_magenta():
    image = np.full((200, 300, 3), 128, np.uint8)
    assert not has(picture(draw_levels(image, "h", [level_panel()])), "#f032e6")
    negative = level_panel(
        chips=[ChipOutline(1, (10, 10, 90, 90), negative=True)],
        alarms=np.array([[30, 30, 50, 50]], np.float32),
    )
    assert has(picture(draw_levels(image, "h", [negative])), "#f032e6")


CYAN = "#00e5ff"


def test_group_and_crowd_regions_are_hatched_in_a_colour_of_their_own():
    image = np.full((200, 300, 3), 128, np.uint8)
    region = np.array([[180, 50, 279, 149]], np.float32)
    without = draw_levels(image, "h", [level_panel()])
    figure = draw_levels(image, "h", [level_panel(crowd=region)])
    plain, drawn = picture(without), picture(figure)
    assert has(drawn, CYAN) and not has(plain, CYAN)
    rows, columns = np.nonzero((drawn != plain).any(axis=2)[:-64])  # the legend changes too
    # The panel is 3 times as large as the image: what changed is the region with its outline.
    assert rows.max() - rows.min() + 1 == pytest.approx(3 * 100, abs=6)
    assert columns.max() - columns.min() + 1 == pytest.approx(3 * 100, abs=6)
    inside = (drawn != plain).any(axis=2)[rows.min() + 9 : rows.max() - 9]
    inside = inside[:, columns.min() + 9 : columns.max() - 9]
    assert 0.02 < inside.mean() < 0.5  # hatched: it hides little
    assert inside.any(axis=0).all() and inside.any(axis=1).all()

    def named(sheet):
        return [
            text.get_text() for text in sheet.legends[0].get_texts() if "crowd" in text.get_text()
        ]

    assert (named(without), named(figure)) == ([], ["group or crowd region: no object"])


def test_boxes_are_drawn_over_crowd_regions():
    image = np.full((200, 300, 3), 128, np.uint8)
    only = {"boxes": np.array([[60, 60, 90, 90]], np.float32), "states": [VALID]}
    same = level_panel(crowd=np.array([[60, 60, 90, 90]], np.float32), **only)
    drawn = picture(draw_levels(image, "h", [same]))[:-64]
    assert has(drawn, "#1fbf4a") and not has(drawn, CYAN)


def test_tensors_show_crowd_regions_in_chip_px():
    nothing = {"boxes": np.zeros((0, 4)), "states": [], "labels": []}
    panels = [
        tensor_panel(crowd=crowd, **nothing)
        for crowd in (np.zeros((0, 4)), np.array([[30, 40, 99, 119]]))
    ]
    plain, drawn = (picture(draw_tensors("h", [panel], MEANS)) for panel in panels)
    assert has(drawn, CYAN) and not has(plain, CYAN)
    rows, columns = np.nonzero((drawn != plain).any(axis=2)[:-64])
    assert rows.max() - rows.min() + 1 == pytest.approx(3 * 80, abs=6)
    assert columns.max() - columns.min() + 1 == pytest.approx(3 * 70, abs=6)


def test_chips_beyond_the_image_are_drawn_at_its_border():
    image = np.full((100, 300, 3), 128, np.uint8)
    panel = level_panel(chips=[ChipOutline(1, (-0.5, -1, 299.75, 120))])
    assert (picture(draw_levels(image, "h", [panel])) == 128).all(axis=2).any()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_sheets_have_rows_of_three(count):
    image = np.full((480, 640, 3), 128, np.uint8)
    height, width, _ = picture(draw_levels(image, "h", [level_panel()] * count)).shape
    assert width <= 1900
    assert height < 1300
    sheet = picture(draw_tensors("h", [tensor_panel()] * count, MEANS))
    assert sheet.shape[1] >= min(count, 3) * 384


def test_tensors_are_shown_pixel_by_pixel():
    data = np.zeros((3, 128, 128), np.float32)
    data[0, 100:110, 3:13] = 255 - MEANS[2]
    data[1, 100:110, 3:13] = -MEANS[1]
    data[2, 100:110, 3:13] = -MEANS[0]
    panel = tensor_panel(data=data, boxes=np.zeros((0, 4)), states=[], labels=[])
    drawn = picture(draw_tensors("h", [panel], MEANS))
    red = (drawn == [255, 0, 0]).all(axis=2)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert (len(rows), len(columns)) == (30, 30)  # 10 px, three times as large
    assert red.sum() == 900


def test_anchors_boxes_and_focus():
    drawn = picture(draw_tensors("h", [tensor_panel()], MEANS))
    assert has(drawn, "#ffe119") and has(drawn, "#4aa3ff") and has(drawn, "#1fbf4a")
    none = np.full((2, 8, 8), -1, np.float32)
    plain = tensor_panel(anchors=[(none, 16)], boxes=np.zeros((0, 4)), states=[], labels=[])
    before = picture(draw_tensors("h", [plain], MEANS))
    focus = np.zeros((8, 8), np.float32)
    focus[2, 3] = 1
    focused = tensor_panel(
        anchors=[(none, 16)], boxes=np.zeros((0, 4)), states=[], labels=[], focus=(focus, 16)
    )
    after = picture(draw_tensors("h", [focused], MEANS))
    changed = (before != after).any(axis=2)[:-70]  # the legend changes too
    assert changed.sum() == pytest.approx((16 * 3) ** 2, rel=0.05)


def test_small_chips_of_a_large_image_get_room():
    chips = [ChipOutline(n, (40 * n, 50, 40 * n + 39, 89)) for n in range(1, 40)]
    panel = LevelPanel("level 0", chips, np.zeros((0, 4)), [])
    image = np.full((1000, 1800, 3), 128, np.uint8)
    alone = picture(draw_levels(image, "h", [panel]))
    # 40 px of the image would be 20 on a panel of the usual width: too few for a number.
    assert 1900 <= alone.shape[1] <= 2100
    three = picture(draw_levels(image, "h", [panel] * 3))
    # One below the other.
    assert three.shape[1] == alone.shape[1] and three.shape[0] > 2.8 * alone.shape[0] - 300
    large = LevelPanel("level 0", [ChipOutline(1, (0, 0, 511, 511))], np.zeros((0, 4)), [])
    assert picture(draw_levels(image, "h", [large])).shape[1] < 1000


def test_long_headings_are_wrapped():
    heading = "a_file_with_a_name.jpg (mirrored), id 123456789, 640x480 px: " + "words and " * 9
    figure = draw_tensors(heading, [tensor_panel()], MEANS)
    (text,) = [text for text in figure.texts if text.get_text().startswith("a_file")]
    assert text.get_text().count("\n") == 1


def test_smaller_content_and_negative_chips_are_marked():
    small = picture(draw_tensors("h", [tensor_panel(size_hw=(90, 128))], MEANS))
    full = picture(draw_tensors("h", [tensor_panel()], MEANS))
    assert (small != full).any()
    assert has(picture(draw_tensors("h", [tensor_panel(negative=True)], MEANS)), "#f032e6")


def test_the_same_sheet_has_the_same_bytes():
    image = np.full((200, 300, 3), 128, np.uint8)
    assert png_bytes(draw_levels(image, "h", [level_panel()])) == png_bytes(
        draw_levels(image, "h", [level_panel()])
    )


def test_nothing_to_draw():
    with pytest.raises(DataError, match="nothing to draw"):
        draw_levels(np.zeros((5, 5, 3), np.uint8), "h", [])
    with pytest.raises(DataError, match="nothing to draw"):
        draw_tensors("h", [], MEANS)

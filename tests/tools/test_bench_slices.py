"""The benchmark of slices: windows as its peers cut them, and detections drawn by pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench.cases import slices as case
from bench.inputs import iou

WIDTH, HEIGHT = 1000, 700


def definition(image):
    """Boxes of all windows, in px of the image, less those that a better one of a class covers."""
    rows, classes = [], []
    for y, x in itertools.product((0, HEIGHT - case.WINDOW_PX), (0, WIDTH - case.WINDOW_PX)):
        window = image[y : y + case.WINDOW_PX, x : x + case.WINDOW_PX, ::-1]
        boxes, numbers, scores = network(case.blob(np.ascontiguousarray(window)))
        rows.append(np.column_stack([boxes + np.float32([x, y, x, y]), scores]))
        classes.append(numbers)
    rows, classes = np.concatenate(rows), np.concatenate(classes)
    kept = []
    for index in np.argsort(-rows[:, 4]):
        own = [other for other in kept if classes[other] == classes[index]]
        if all(iou(rows[other], rows[index]) <= case.THRESHOLD for other in own):
            kept.append(index)
    return {"rows": rows[kept], "classes": classes[kept]}


network = case.Network(runs=False)


@pytest.fixture(scope="module")
def arrays():
    return case.picture(np.random.default_rng(0), WIDTH, HEIGHT)


def test_ours_are_the_detections_of_all_windows(arrays):
    side = case.ours(arrays, {"network": False}, 1)
    found = side.outputs(side.run())
    expected = definition(arrays["image"])
    assert len(expected["rows"]) < 4 * case.OBJECTS * case.BOXES
    sentence = case.compare(found, expected, None, "sahi")
    count = len(expected["rows"])
    assert sentence == f"{count} of {count} and {count} detections equal"
    with pytest.raises(Exception, match="expected all"):
        case.compare(found, {key: value[:-1] for key, value in expected.items()}, None, "sahi")


@pytest.mark.parametrize("name", ["sahi", "supervision"])
def test_peers_cut_the_same_windows(arrays, name):
    pytest.importorskip(name)
    side = case.CASE.sides[name].setup(arrays, {"network": False}, 1)
    case.compare(side.outputs(side.run()), definition(arrays["image"]), None, name)


def test_other_pixels_are_other_detections(arrays):
    data = case.blob(np.ascontiguousarray(arrays["image"][: case.WINDOW_PX, : case.WINDOW_PX]))
    boxes, classes, scores = network(data)
    assert boxes.min() >= 0 and boxes.max() <= case.WINDOW_PX - 1
    assert len(np.unique(classes)) > 1 and scores.min() > 0.25
    others = [network(data + shift)[0] for shift in (1, 2, 3)]
    assert all(not np.array_equal(boxes, other) for other in others)

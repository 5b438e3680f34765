"""Polygons that are made when somebody asks are those of tuples that were made at once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sniper.data.polygon_table import MirroredPolygons, PolygonTable

# Four objects: two polygons, none, one, one.
RINGS = [np.arange(6.0), np.arange(8.0) + 10, np.arange(6.0) + 20, np.arange(10.0) + 30]
OBJECTS = ((0, 1), (), (2,), (3,))
WIDTH = 50


@pytest.fixture
def images():
    """The polygons of images with two, no, one and one objects, and what they should be."""
    rings = [ring.astype(np.float32) for ring in RINGS]
    table = PolygonTable(
        np.cumsum([0, *map(len, OBJECTS)]),
        np.cumsum([0, *map(len, rings)]),
        np.concatenate(rings),
    )
    objects = [tuple(rings[i] for i in of_object) for of_object in OBJECTS]
    offsets = [0, 2, 2, 3, 4]
    expected = [tuple(objects[a:b]) for a, b in zip(offsets, offsets[1:])]
    return table.of_images(offsets), expected


@pytest.fixture(params=["as they are", "mirrored"])
def polygons(images, request):
    """Those of the images, or of their mirror images."""
    if request.param == "as they are":
        return images
    found, expected = images
    mirrored = [
        tuple(tuple(mirror(ring) for ring in of_object) for of_object in of_image)
        for of_image in expected
    ]
    return [MirroredPolygons(of_image, WIDTH) for of_image in found], mirrored


def mirror(ring):
    points = ring.reshape(-1, 2)
    return np.column_stack([WIDTH - points[:, 0], points[:, 1]]).reshape(-1)


def lists(polygons):
    return [[ring.tolist() for ring in of_object] for of_object in polygons]


def test_they_are_tuples_of_tuples(polygons):
    found, expected = polygons
    for ours, theirs in zip(found, expected):
        assert len(ours) == len(theirs) and lists(ours) == lists(theirs)
        assert bool(ours) == bool(theirs) and repr(ours) == repr(theirs)
        for row in range(-len(theirs), len(theirs)):
            assert lists([ours[row]]) == lists([theirs[row]])
            assert lists([ours[np.int64(row)]]) == lists([theirs[row]])
        assert lists(ours[:1]) == lists(theirs[:1])
        for wrong in (len(theirs), -len(theirs) - 1):
            with pytest.raises(IndexError):
                ours[wrong]
    assert found[0][0][0].dtype == np.float32


def test_they_are_views(images):
    assert images[0][0][0][0].base is not None


def test_mirroring_changes_no_other_polygons(images):
    found, expected = images
    before = [lists(of_image) for of_image in expected]
    assert MirroredPolygons(MirroredPolygons(found[0], WIDTH), WIDTH) == found[0]
    assert [lists(of_image) for of_image in found] == before


def test_equal_is_what_has_equal_numbers(polygons):
    found, expected = polygons
    assert all(ours == theirs and ours == ours for ours, theirs in zip(found, expected))
    assert found[0] != found[2] and found[2] != found[3] and found[1] == () and found[0] != 3


def test_another_process_gets_these_polygons_alone(polygons):
    found, expected = polygons
    sent = pickle.dumps(found[2])
    assert lists(pickle.loads(sent)) == lists(expected[2])
    others = [RINGS[3].astype(np.float32), mirror(RINGS[3].astype(np.float32))]
    assert not any(ring.tobytes() in sent for ring in others)

"""Categories that are classes, and headings that are none."""

from __future__ import annotations

import pytest

from sniper.data.coco import load_coco
from sniper.data.problems import ALIKE_CATEGORIES, EMPTY_ROOT
from sniper.errors import DataError


def _categories(small_set, *entries):
    """Loads the set with other categories; its objects are of the ids 900, 4 and 33."""
    keys = ("id", "name", "supercategory")
    small_set.content["categories"] = [dict(zip(keys, entry)) for entry in entries]
    small_set.write()
    told = []
    dataset = load_coco(small_set.root, small_set.image_set, on_problem=told.append)
    for problem in told:
        if problem.error is not None:
            raise problem.error
    return dataset.class_names[1:], [p.count for p in told if p.kind is EMPTY_ROOT]


@pytest.mark.parametrize("name", ["toys", "kite"])
def test_the_heading_of_an_export_is_no_class_and_told(small_set, name):
    others = [(900, "kite", name), (4, "ant", name), (33, "bee", name)]
    assert _categories(small_set, (0, name, "none"), *others) == (("kite", "ant", "bee"), [1])


def test_a_namesake_without_objects_is_left_out(small_set):
    entries = [(900, "kite"), (4, "ant"), (5, "ant"), (33, "bee")]
    assert _categories(small_set, *entries) == (("kite", "ant", "bee"), [1])


@pytest.mark.parametrize(("name", "count"), [("Ant", 1), ("ant ", 1), ("aunt", 0), ("an t", 0)])
def test_names_that_are_nearly_one_are_told(small_set, name, count):
    small_set.content["categories"] = [
        {"id": i, "name": n} for i, n in ((900, "kite"), (4, "ant"), (33, name))
    ]
    small_set.write()
    told = []
    load_coco(small_set.root, small_set.image_set, on_problem=told.append)
    texts = [text for p in told if p.kind is ALIKE_CATEGORIES for text in p.texts]
    assert texts == [" and ".join(map(repr, sorted(("ant", name))))] * count


def test_a_category_with_objects_is_always_a_class(small_set):
    others = [(4, "ant", "kite"), (33, "bee", "kite")]
    assert _categories(small_set, (900, "kite", "none"), *others) == (("kite", "ant", "bee"), [])


def test_classes_without_objects_stay(small_set):
    others = [(900, "kite", "toy"), (4, "ant", "animal"), (33, "bee", "animal")]
    assert _categories(small_set, (7, "toy", ""), *others)[0] == ("toy", "kite", "ant", "bee")
    nested = [(1, "animal", "thing"), *others[1:], (900, "kite", "animal")]
    assert _categories(small_set, *nested)[0] == ("animal", "ant", "bee", "kite")


def test_namesakes_with_objects_are_refused(small_set):
    with pytest.raises(DataError, match="the name 'ant' is used before"):
        _categories(small_set, (900, "kite"), (4, "ant"), (33, "ant"))

"""Tables of super-classes: what they may look like, and whose classes they hold."""

import json

import pytest

from sniper.data.classes import Classes, numbered_class_names
from sniper.data.super_classes import read_super_classes, super_classes_text, super_of
from sniper.errors import ConfigError, DataError

TABLE = {"animal": ["cat", "dog"], "vehicle": ["car"]}
NAMES = ("__background__", "car", "cat", "dog")


def test_a_file_and_its_text_are_one_table(tmp_path):
    path = tmp_path / "supers.json"
    path.write_text(json.dumps(TABLE))
    table = read_super_classes(str(path))
    assert table == {"animal": ("cat", "dog"), "vehicle": ("car",)}
    assert read_super_classes(super_classes_text(table)) == table
    assert list(read_super_classes(super_classes_text(table))) == ["animal", "vehicle"]


def test_names_or_category_ids_decide():
    table = read_super_classes(json.dumps(TABLE))
    assert super_of(table, Classes(NAMES)) == (2, 1, 1)
    by_id = read_super_classes(json.dumps({"0": ["n01", "n02"], "1": ["n03"]}))
    assert super_of(by_id, Classes(NAMES, (0, "n03", "n01", "n02"))) == (2, 1, 1)
    numbers = read_super_classes(json.dumps({"0": [7, 9], "1": [8]}))
    assert super_of(numbers, Classes(NAMES, (0, 7, 8, 9))) == (1, 2, 1)


def test_classes_that_nobody_named_have_the_order_of_the_table():
    """Weights of 2018: the table numbered the classes."""
    table = read_super_classes(json.dumps(TABLE))
    assert super_of(table, Classes(numbered_class_names(4))) == (1, 1, 2)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((*NAMES, "bus"), "no super-class for bus"),
        (NAMES[:-1], "unknown dog"),
        (numbered_class_names(5), "no super-class for class 1, class 2, class 3, class 4; unknown"),
    ],
)
def test_other_classes_are_refused(names, text):
    with pytest.raises(DataError, match=text):
        super_of(read_super_classes(json.dumps(TABLE)), Classes(tuple(names)))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "cannot be read"),
        ("{}", "no table"),
        ('{"a": []}', "no table"),
        ('{"a": "cat"}', "no table"),
        ('{"a": [["cat"]]}', "no table"),
        ('{"a": ["cat"], "b": ["cat"]}', "more than one place for cat"),
    ],
)
def test_what_is_no_table_is_refused(content, text):
    with pytest.raises(ConfigError, match=text):
        read_super_classes(content)


def test_a_missing_file_and_a_list_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_super_classes(str(tmp_path / "nothing.json"))
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match="no table"):
        read_super_classes(str(tmp_path / "list.json"))

"""Configuration files that would take for ever, and files that are no configuration at all."""

from __future__ import annotations

import pytest

from sniper import load_config
from sniper.errors import ConfigError
from sniper.runs.predictor import Predictor
from sniper.safe_yaml import MOST_VALUES, load_yaml
from sniper.tools.cli import main


def bomb(depth, width, form="[{}]"):
    lines = ["k0: &k0 [1, 2]"]
    for level in range(1, depth):
        lines.append(f"k{level}: &k{level} {form.format(', '.join([f'*k{level - 1}'] * width))}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        bomb(40, 9) + "TRAIN: {SCALES: *k39}",
        bomb(60, 2) + "? *k59\n: 1",
        bomb(40, 9, "{{<<: [{}]}}").replace("[1, 2]", "{x: 1}"),
        "a: &a [*a]\n",
        "a: &a {b: [*a]}\n<<: *a\n",
        "- " * 3000,
        "a: " + "x" * 300_000,
    ],
    ids=["lists", "keys", "merges", "itself", "itself in a merge", "deep", "large"],
)  # fmt: skip
def test_bombs_are_refused_with_a_short_message(tmp_path, capsys, text):
    path = tmp_path / "bomb.yml"
    path.write_text(text)
    assert main(["print-config", "--cfg", str(path)]) == 2
    error = capsys.readouterr().err
    assert "bomb.yml" in error and "not valid" in error and len(error) < 1000


def test_aliases_as_people_use_them_work(tmp_path):
    path = tmp_path / "small.yml"
    path.write_text(
        "_BASE_: sniper_mobilenetv2_toy\n"
        "TRAIN: {VALID_RANGES: &ranges [[-1, 50], [36, 130], [100, -1]]}\n"
        "TEST: {VALID_RANGES: *ranges}\n"
    )
    cfg = load_config(path)
    assert cfg.TEST.VALID_RANGES == cfg.TRAIN.VALID_RANGES == ((-1, 50), (36, 130), (100, -1))
    many = ", ".join(["*a"] * 1000)
    assert len(load_yaml(f"[&a [1, 2], {many}]")) == 1001 < MOST_VALUES


@pytest.mark.parametrize("value", ["[&a [*a]]", "[&a [1,1], &b [*a,*a], &c [*b,*b], *c]"])
def test_overrides_are_bounded_too(value):
    with pytest.raises(ConfigError, match=r"TEST\.SCALES") as caught:
        load_config("sniper_mobilenetv2_toy", ["TEST.SCALES", value])
    assert len(str(caught.value)) < 1000


def test_the_list_of_problems_is_bounded(tmp_path):
    path = tmp_path / "keys.yml"
    path.write_text("\n".join(f"key{number}: 1" for number in range(3000)))
    with pytest.raises(ConfigError, match="3000 problems") as caught:
        load_config(path)
    assert "and 2950 more" in str(caught.value)


@pytest.mark.parametrize("name", ["SNIPER-0007.params", "model.zip"])
def test_weights_in_place_of_a_recipe(name, tmp_path, capsys):
    assert main(["print-config", "--cfg", name]) == 2
    assert f"--weights {name}" in capsys.readouterr().err
    if not name.endswith(".zip"):
        with pytest.raises(ConfigError, match="file of weights"):
            Predictor(tmp_path / name)
        flags = ["--out", str(tmp_path / "out"), "--model", name]
        assert main(["detect", "a.jpg", *flags]) == 2
        error = capsys.readouterr().err
        assert "--model wants an archive" in error and f"--weights {name}" in error
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("annotation_file: {set}.json", "{set}.json"),
        ("image_folder: {set}/images  # a word", "{set}/images"),
        ("image_folder: {set}", "{set}"),
    ],
)
def test_braces_without_quotes_are_told_with_the_cure(tmp_path, line, text):
    path = tmp_path / "own.yml"
    path.write_text(f"dataset:\n  {line}\n")
    with pytest.raises(ConfigError, match="quotes") as error:
        load_config(path)
    assert f"'{text}'" in str(error.value)
    path.write_text(path.read_text().replace(text, f"'{text}'"))
    assert text in load_config(path).dataset.values()

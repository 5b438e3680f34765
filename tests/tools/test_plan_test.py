"""`sniper plan-test`: from a budget to a yml, and what is refused."""

from __future__ import annotations

import json

import pytest

from sniper.config import load_config
from sniper.tools import suggest_scales
from sniper.tools.plan_test import as_duration, as_points, main
from tests.runs.photo_set import write_photo_set
from tests.runs.random_run import random_run


class Case:
    """A run with random weights and a set of ten pictures."""

    def __init__(self, root):
        self.root = root
        self.overrides = ["gpus", "cpu", *write_photo_set(root, 10)]
        self.run = random_run(root, self.overrides)

    def plan(self, *flags, more=()):
        modes = [] if "--modes" in flags else ["--modes", "single"]
        cfg = ["--cfg", str(self.run.recipe)]
        return main([*cfg, *modes, *flags, "--set", *self.overrides, *more])


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("plan"))


def test_a_plan_is_shown_drawn_and_written_as_a_recipe(case, capsys):
    yml, plot, numbers = (case.root / name for name in ("fast.yml", "front.png", "plan.json"))
    flags = ["--budget", "500s", "--out", str(yml), "--plot", str(plot), "--json", str(numbers)]
    assert case.plan(*flags, more=["TEST.NMS", "0.41"]) == 0
    out = capsys.readouterr().out
    assert "5 images choose, 5 confirm; OMP_NUM_THREADS" in out
    assert "recall (%)" in out and "on the other 5 images" in out
    content = json.loads(numbers.read_text())
    best = max(content["trials"], key=lambda trial: (trial["accuracy"], -trial["wall_s"]))
    assert content["chosen"] == best["name"] and content["chosen"] in content["front"]
    # All cheaper settings have been tried on the other half as well.
    assert content["chosen"] in {trial["name"] for trial in content["confirmed"]}
    assert plot.stat().st_size > 10_000
    cfg = load_config(yml)
    assert cfg.name == case.run.cfg.name
    # What --set changed is changed in the file, too: it was measured so.
    assert cfg.dataset.dataset_path == case.run.cfg.dataset.dataset_path and cfg.gpus == "cpu"
    assert cfg.TEST.NMS == 0.41
    assert cfg.TEST.MODE == "single" and list(cfg.TEST.SINGLE_SCALE) == best["keys"]["SINGLE_SCALE"]


@pytest.mark.slow
def test_another_wish_takes_what_is_on_disk(case, capsys):
    assert case.plan("--ap-loss", "100", "--json", "-") == 0
    first = json.loads(capsys.readouterr().out)
    cheapest = min(first["trials"], key=lambda trial: trial["wall_s"])
    assert first["chosen"] == cheapest["name"]
    assert case.plan("--ap-loss", "0", "--json", "-") == 0
    second = json.loads(capsys.readouterr().out)
    levels = [[trial["pixels"] for trial in content["trials"]] for content in (first, second)]
    assert levels[0] == levels[1]


@pytest.mark.parametrize(
    ("flags", "more", "message"),
    [
        (["--budget", "0.001ms"], (), "no setting is within the budget"),
        (["--images", "6"], (), "too few images"),
        (["--modes", "focus"], (), "not trained to find FocusPixels"),
        (["--modes", "slice"], (), "no setting is left to try"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(case, flags, more, message, capsys):
    assert case.plan(*flags, more=more) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


def test_the_recipe_is_never_overwritten(case, capsys):
    before = case.run.recipe.read_text()
    above = case.root / "above.yml"
    above.write_text(f"_BASE_: {case.run.recipe}\n")
    for cfg, out in ((case.run.recipe, case.run.recipe), (above, case.run.recipe), (above, above)):
        for tool in (main, suggest_scales.main):
            assert tool(["--cfg", str(cfg), "--out", str(out), "--set", *case.overrides]) == 2
            assert "would replace a recipe" in capsys.readouterr().err
    assert case.run.recipe.read_text() == before


def test_sets_without_annotations_are_refused(case, capsys):
    folder = case.root / "data" / "images" / "val"
    more = ["dataset.dataset", "folder", "dataset.dataset_path", str(folder)]
    more += ["dataset.test_image_set", "."]
    assert case.plan("--budget", "1s", more=more) in (2, 3)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["--budget", "fast"], ["--ap-loss", "-1"], ["--budget", "1s", "--ap-loss", "1"]]
)
def test_wishes_have_a_form(flags, capsys):
    assert main(flags) == 2
    assert capsys.readouterr().err


def test_times_and_points():
    assert as_duration("200ms") == pytest.approx(0.2) and as_duration("1.5s") == 1.5
    assert as_points("1.5") == 1.5

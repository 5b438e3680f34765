"""A real run of a few updates, through the public names, for what is compared with it."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from dataclasses import dataclass
from pathlib import Path

import pytest

import sniper
from sniper.tools.toy.settings import SceneSettings, ToySettings
from sniper.tools.toy.writer import make_toy_data

# The quickstart's recipe with what examples/plain_train.py leaves out, and small images at test.
RECIPE = """
_BASE_: sniper_mobilenetv2_toy
output_path: {root}/output
dataset: {{root_path: {root}, dataset_path: {root}/toy}}
TRAIN: {{lr: 0.02, lr_step: '', warmup: false, MAX_UPDATES: 3}}
TEST: {{SCALES: [[240, 320], [150, 200], [64, 64]]}}
"""


@dataclass(frozen=True)
class RealRun:
    """Where things are, and what the snippet of the package's docstring printed."""

    root: Path
    recipe: Path
    folder: Path
    printed: str


@pytest.fixture(scope="session")
def real_run(tmp_path_factory) -> RealRun:
    """Runs the snippet in the docstring of `sniper`: trains, tests and predicts."""
    root = tmp_path_factory.mktemp("examples")
    scene = SceneSettings(long_side_px=200, max_size_px=120, min_objects=2, max_objects=4)
    settings = ToySettings(train=4, val=2, test=0, test_dev=0, scene=scene)
    make_toy_data(root / "toy", settings, workers=1, progress=lambda _: None)
    recipe = root / "run.yml"
    recipe.write_text(RECIPE.format(root=root))
    block = re.search(r"\n\n((?:    .*\n|\n)+)\n", sniper.__doc__)[1]
    snippet = re.sub("^    ", "", block, flags=re.MULTILINE)
    assert snippet.count("sniper_res18_toy") == 3 and snippet.count('"photos"') == 1
    snippet = snippet.replace("sniper_res18_toy", str(recipe))
    snippet = snippet.replace('"photos"', repr(str(root / "toy" / "images" / "val")))
    path = root / "snippet.py"
    path.write_text(snippet)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        space = runpy.run_path(str(path))
    assert space["report"].ap >= 0
    return RealRun(root, recipe, root / "output" / "run" / "train", printed.getvalue())

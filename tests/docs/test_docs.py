"""What the documents say is so: code runs as printed, files exist, rooms stand in order."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import sniper.chips
from sniper.data import Record
from tests.docs.blocks import blocks_of
from tests.test_house_rules import FLOORS

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "lib"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
LINE = 100
# `runs/plan.py`, `native/relu6/`, `config/schema_*.py`; not `<op>.h`, nor a word or a flag.
PATH = re.compile(r"`([\w.*/-]*(?:/|\.(?:py|md|yml|toml|sh|h|cc|cu|pxi|pyi)))`")

# Files and folders of the reader's that the guides speak of.
READERS = {"my.yml", "pictures/", "VOCMine/", "images/", "labels/"}


def blocks(path):
    """The Python that runs in the default suite; all else is empty lines, as tracebacks need."""
    page = path.relative_to(ROOT).as_posix()
    kept = [""] * len(path.read_text(encoding="utf-8").splitlines())
    for block in blocks_of(page):
        if block.language == "python" and block.run_by == "default":
            lines = block.text.splitlines()
            kept[block.line - 1 : block.line - 1 + len(lines)] = lines
    return "\n".join(kept)


def run_python(code, folder, environment=None):
    """Runs a program in a folder; it must not fail."""
    script = folder / "printed.py"
    script.write_text(code)
    environment = environment or {
        **os.environ, "PYTHONPATH": f"{LIB}{os.pathsep}{ROOT / 'examples'}",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True, timeout=600,
        env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def missing(text):
    """Paths in backticks that are neither at the root nor in the package."""
    names = set(PATH.findall(text))
    places = (ROOT, LIB / "sniper")
    return sorted(n for n in names if not any(list(place.glob(n)) for place in places))


WITH_PYTHON = [path for path in [*DOCS, ROOT / "README.md"] if blocks(path).strip()]


def test_documents_with_python_are_found():
    assert {"architecture", "adding_parts"} <= {path.stem for path in WITH_PYTHON}


@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.stem)
def test_code_runs_as_printed(path, tmp_path):
    run_python(blocks(path), tmp_path)


def test_chips_for_other_trainers_need_no_mxnet(tmp_path):
    code = "import sys; sys.modules['mxnet'] = None\n" + blocks(ROOT / "docs/other_trainers.md")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(LIB)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*DOCS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.stem)
def test_files_exist(path):
    assert set(missing(path.read_text(encoding="utf-8"))) <= READERS


def test_a_file_that_is_not_there_is_found_out():
    text = "`runs/plan.py` `runs/plans.py` `examples/` `native/relu7/` `config/schema_*.py` `--set`"
    assert missing(text) == ["native/relu7/", "runs/plans.py"]


@pytest.mark.parametrize("path", [*DOCS, ROOT / "README.md"], ids=lambda path: path.stem)
def test_lines_are_short(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > LINE]


def test_the_rooms_stand_in_their_order():
    order = [room for floor in FLOORS for room in floor]
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## The house")[2].partition("\n\nAt the root")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", " ".join(rows)) == order


def test_the_snippet_of_the_chips_runs(tmp_path):
    path = tmp_path / "snippet.py"
    path.write_text(
        textwrap.dedent(re.search(r"\n\n((?:    .*\n|\n)+)\n", sniper.chips.__doc__)[1])
    )
    boxes = np.float32([[10, 10, 40, 50], [100, 100, 400, 300]])
    size = {"width": 640, "height": 480, "flipped": False}
    record = Record(
        "a.jpg", 1, **size, boxes=boxes, classes=np.int32([1, 2]), is_gt=np.bool_([1, 1])
    )
    space = runpy.run_path(str(path), init_globals={"records": [record]})
    assert len(space["epoch"].samples) == 16 and space["chip"].level in (0, 1, 2)

"""What is printed as a command is one: its program reads it, and (`-m slow`) it does its work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper.config import load_config
from sniper.data.voc_layout import VOC_CLASSES
from sniper.models.int8_support import has_int8_instructions
from sniper.tools.cli import TOOLS
from tests.docs.printed import ROOT, all_commands, help_commands, help_text, tool_parser

COMMANDS = all_commands()
ENTRY_POINTS = {"main_train.py": "train", "main_test.py": "test", "demo.py": "demo"}
RECIPES = {path.stem for path in (ROOT / "configs").rglob("*.yml")}


def tool_of(words):
    """The tool and its arguments, or (None, ...) where the command is no tool of ours."""
    if words[0].endswith("sniper"):
        return words[1], words[2:]
    if words[1] in ENTRY_POINTS:
        return ENTRY_POINTS[words[1]], words[2:]
    return None, words[1:]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_the_program_reads_it(command, capsys):
    words = command.words
    if "--" in words:  # sniper launch ... -- the command of every process
        middle = words.index("--")
        read(["python", *words[middle + 1 :]], capsys)
        words = words[:middle]
    read(words, capsys)


def read(words, capsys):
    tool, arguments = tool_of(words)
    if tool == "doctor" or words[0].endswith("pip"):
        return
    if tool is None:
        scripts_and_flags_exist(words)
        return
    try:
        args = tool_parser(tool).parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{' '.join(words)}\n{capsys.readouterr().err}")
    recipe = Path(getattr(args, "cfg", None) or "").stem
    if recipe in RECIPES:
        load_config(args.cfg, getattr(args, "overrides", None) or [])


def scripts_and_flags_exist(words):
    script = next((ROOT / word for word in words if word.endswith((".sh", ".py"))), None)
    if script is None:
        return
    assert script.is_file(), script
    family = script.parent.rglob("*.py") if "bench" in script.parts else [script]
    text = "".join(path.read_text(encoding="utf-8") for path in family)
    own = [w for w in words if w.startswith("--") and w not in ("--cfg", "--set")]
    assert [flag for flag in own if flag not in text] == []


def test_the_collection_sees_every_kind():
    places = {command.where for command in COMMANDS}
    assert {"README.md", "sniper detect --help", "examples/plain_train.py"} <= places
    assert "configs/faster/sniper_mobilenetv2_toy.yml" in places
    texts = [command.text for command in COMMANDS]
    assert any(text.startswith("sniper quantize --cfg") for text in texts)  # in backticks
    assert any(
        "\\" not in text and "--results output/results" in text for text in texts
    )  # two lines


# The commands are run where a newcomer stands: in a checkout with a small toy set and `data/mine`.

NOT_RUN = {
    r"quickstart\.sh": "the quickstart is run by itself: its training takes minutes",
    r"scripts/test\.sh": "this suite",
    r"^(\.venv/bin/)?pip |^pytest": "changes the environment; a GPU",
    r"download_|import-weights|compile\.sh": "needs a network, a file of other projects, or nvcc",
    r"scripts/bench/": "benchmarks have tests of their own, and peers that are not installed",
    r"--hosts": "needs two machines (a stand-in for ssh is tested in tests/tools)",
    r"make-toy-data data/toy": "draws the whole set; the small one has its place here",
    r"res101|res50_e2e\.yml|mobilenetv2_e2e|coco_mini": "COCO, GPUs, or an imported backbone",
    r"plain_detect\.py picture\.jpg SNIPER": "weights of the reader's own recipe",
    r"--truth open_images": "the official tables (tests/evaluation runs the same with small ones)",
    r"--truth wider_face": "the official lists (tests/evaluation runs the same with them)",
    r"ILSVRC2014_devkit": "the kit of the challenge (tests/evaluation runs the same with it)",
    r"SUPER_CLASSES super_classes": "needs pictures of every class of the training set",
}
TINY = ["--train", "32", "--val", "6", "--test", "4", "--test-dev", "4", "--workers", "1"]
SETTINGS = {"OMP_NUM_THREADS": "1", "TERM": "dumb"}


class Checkout:
    """A copy of the project with data, pictures and a model, and a shell in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("configs", "scripts", "examples", "lib"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        for path in ROOT.glob("*.*"):
            if path.is_file():
                shutil.copy(path, folder)
        shutil.copytree(ROOT / "data" / "demo", folder / "data" / "demo")
        (folder / "shell").mkdir()
        for name, call in (("python", ""), ("sniper", "-m sniper")):
            program = folder / "shell" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
            program.chmod(0o755)
        (folder / ".venv").symlink_to(sys.prefix)

    def run(self, command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True, check=False,
            timeout=900, env=self.environment(),
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        path = f"{self.folder / 'shell'}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, **SETTINGS, "PATH": path, "PYTHONPATH": str(self.folder / "lib")}

    def must(self, command: str) -> str:
        done = self.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    place = Checkout(tmp_path_factory.mktemp("checkout"))
    place.must(f"sniper make-toy-data data/toy {' '.join(TINY)}")
    place.must(f"sniper make-toy-data data/mine --classes 3 {' '.join(TINY)}")
    (place.folder / "my.yml").write_text(yaml_of_the_readme())
    add_pictures(place.folder)
    place.must("python main_train.py --cfg sniper_mobilenetv2_toy")
    place.must("python main_train.py --cfg my.yml")
    place.must("python main_test.py --cfg sniper_mobilenetv2_toy")
    place.must("python main_test.py --cfg my.yml")
    add_files_of_others(place)
    return place


def yaml_of_the_readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]


def add_pictures(folder: Path) -> None:
    for name in ("picture.jpg", "holiday.jpg", "photos/a.jpg", "photos/b.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "data" / "demo" / "demo.jpg", folder / name)
    (folder / "list.txt").write_text("picture.jpg\nholiday.jpg\n")
    (folder / "films").mkdir()
    for name in ("film.mp4", "films/one.mp4"):
        writer = cv2.VideoWriter(
            str(folder / name), cv2.VideoWriter_fourcc(*"mp4v"), 5.0, (160, 120)
        )
        for value in (40, 120, 200):
            writer.write(np.full((120, 160, 3), value, np.uint8))
        writer.release()


def add_files_of_others(place: Checkout) -> None:
    """What the examples call by names of the reader's: results, logs, an archive, VOC files."""
    results = next((place.folder / "output").rglob("detections_val*_results.json"), None)
    results = results or next((place.folder / "output").rglob("*results*/*.json"))
    truth = place.folder / "data" / "toy" / "annotations" / "instances_val.json"
    (place.folder / "annotations").mkdir()
    for name in ("detections.json", "detections_val2017_results.json"):
        shutil.copy(results, place.folder / name)
    for name in ("instances_val2017.json", "annotations/instances_val2017.json"):
        shutil.copy(truth, place.folder / name)
    mine = next((place.folder / "output" / "mine").rglob("results/*results.json"))
    shutil.copy(mine, place.folder / "other_results.json")
    log = next((place.folder / "output").rglob("sniper_mobilenetv2_toy.jsonl"))
    for name in ("one.jsonl", "other.jsonl"):
        shutil.copy(log, place.folder / name)
    place.must("sniper export --cfg sniper_mobilenetv2_toy --out detector.zip")
    place.must(
        as_this_processor_needs_it(
            "sniper quantize --cfg sniper_mobilenetv2_toy --calib 2 --out toy_int8.zip"
        )
    )
    place.must("python examples/plain_train.py data/toy --updates 2")
    add_classes_of_pictures(place)
    add_voc(place.folder)


def add_classes_of_pictures(place: Checkout) -> None:
    """Folders of pictures that show one class each, and a file of classes learnt from them."""
    place.must(f"sniper make-toy-data data/toy_fine --fine {' '.join(TINY)}")
    kinds = sorted((place.folder / "data" / "toy_fine" / "few_shot").iterdir())
    names = ["pets/rabbit", "pets/cat", "hamster", "parrot"]
    names += [f"pictures/class{number}" for number in range(8)]
    for name, kind in zip(names, kinds):
        shutil.copytree(kind, place.folder / name)
    place.must("sniper fit-classes pets/ --cfg my.yml --out pets.npz")


def add_voc(folder: Path) -> None:
    """One image with a dog, and a detector that found it."""
    root = folder / "data" / "VOCdevkit" / "VOC2007"
    for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / name).mkdir(parents=True)
    (root / "ImageSets" / "Main" / "test.txt").write_text("000001\n")
    shutil.copy(folder / "picture.jpg", root / "JPEGImages" / "000001.jpg")
    (root / "Annotations" / "000001.xml").write_text(
        "<annotation><size><width>640</width><height>480</height><depth>3</depth></size><object>"
        "<name>dog</name><difficult>0</difficult><bndbox><xmin>10</xmin><ymin>10</ymin>"
        "<xmax>90</xmax><ymax>80</ymax></bndbox></object></annotation>"
    )
    found = folder / "output" / "results" / "VOC2007" / "Main"
    found.mkdir(parents=True)
    for name in VOC_CLASSES:
        row = "000001 0.9 10 10 90 80\n" if name == "dog" else ""
        (found / f"comp4_det_test_{name}.txt").write_text(row)


def why_not(text):
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, text)), None)


def test_every_exclusion_excludes_something():
    texts = [command.text for command in COMMANDS]
    assert [p for p in NOT_RUN if not any(re.search(p, text) for text in texts)] == []


def as_this_processor_needs_it(text: str) -> str:
    """Without VNNI `sniper quantize` refuses, and names this flag."""
    without = "sniper quantize" in text and not has_int8_instructions()
    return f"{text} --any-cpu" if without else text


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "where",
    sorted({command.where for command in COMMANDS if not why_not(command.text)}),
)
def test_it_does_its_work(where, checkout):
    """In the order of their document: an archive that one writes may be read by the next."""
    failed = []
    for command in COMMANDS:
        if command.where == where and not why_not(command.text):
            done = checkout.run(as_this_processor_needs_it(command.text))
            if done.returncode:
                failed.append(f"{command}: exit {done.returncode}\n{done.stderr[-1500:]}")
    assert not failed, "\n\n".join(failed)


@pytest.mark.slow
def test_the_lines_that_read_an_archive(checkout):
    """`sniper export --help`: its example, then its lines of Python."""
    for command in help_commands("export"):
        checkout.must(command.text)
    lines = textwrap.dedent(help_text("export").partition("library only:\n\n")[2])
    check = "assert {'data', 'im_info'} <= set(symbol.list_inputs()) and params and len(classes)"
    (checkout.folder / "read.py").write_text(f"{lines}\n{check}\n")
    checkout.must("python read.py")


@pytest.mark.slow
def test_the_python_of_the_readme(checkout):
    code = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (checkout.folder / "readme.py").write_text(code)
    assert "detections" in checkout.must("python readme.py")


def test_every_tool_has_examples():
    without = {tool for tool in TOOLS if not help_commands(tool)}
    assert without == {"doctor"}

"""Where a newcomer stands: a checkout with small data sets, pictures, and two trained models."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from sniper.data.voc_layout import VOC_CLASSES
from sniper.models.int8_support import has_int8_instructions
from tests.docs.blocks import ROOT, blocks_of

TINY = "--train 32 --val 8 --test 4 --test-dev 4 --workers 1"
SETTINGS = {"OMP_NUM_THREADS": "1", "TERM": "dumb"}
# Data sets are drawn with the printed flags, but few images.
SHIM = """#!/bin/sh
few="{tiny}"
case " $* " in *" --faces "*) few=$(echo "$few" | sed "s/--test-dev [0-9]*//");; esac
if [ "$1" = make-toy-data ]; then exec "{python}" -m sniper "$@" $few --force; fi
exec "{python}" -m sniper "$@"
"""


class Checkout:
    """A copy of the project and a shell in it."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def make(cls, folder: Path, tiny: str = TINY) -> Checkout:
        """Copies what the printed commands use; nothing is built."""
        for name in ("configs", "scripts", "examples", "lib"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.cc")
            )
        for path in ROOT.glob("*.*"):
            if path.is_file():
                shutil.copy(path, folder)
        shutil.copytree(ROOT / "data" / "demo", folder / "data" / "demo")
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "my.yml").write_text(yaml_of("docs/your_data.md", "my.yml"))
        place = cls(folder)
        place.make_programs(tiny)
        return place

    def make_programs(self, tiny: str) -> None:
        """`python` and `sniper` of the shell; data sets are drawn with the flags `tiny`."""
        python = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
        sniper = SHIM.format(python=sys.executable, tiny=tiny)
        (self.folder / "shell").mkdir(exist_ok=True)
        for name, text in (("python", python), ("sniper", sniper)):
            program = self.folder / "shell" / name
            program.write_text(text)
            program.chmod(0o755)

    def copy(self, folder: Path) -> Checkout:
        """Another checkout with the same files."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Checkout(folder)

    def shorten_warm_ups(self, updates: int) -> None:
        """So that a cosine has updates left on small data sets and in short trainings."""
        for path in (self.folder / "configs").rglob("*.yml"):
            text = path.read_text(encoding="utf-8")
            text = re.sub(r"^  warmup_step: .*$", f"  warmup_step: {updates}", text, flags=re.M)
            path.write_text(text, encoding="utf-8")

    def stop_trainings_after(self, updates: int) -> None:
        """Bounds every training: the recipes that all others extend get TRAIN.MAX_UPDATES."""
        self.shorten_warm_ups(3)
        for path in (self.folder / "configs").rglob("*.yml"):
            text = path.read_text(encoding="utf-8")
            text = re.sub(r"^  MAX_UPDATES: .*\n", "", text, flags=re.M)
            if not re.search(r"^_BASE_:", text, re.M):
                text = text.replace("\nTRAIN:\n", f"\nTRAIN:\n  MAX_UPDATES: {updates}\n")
            path.write_text(text, encoding="utf-8")

    def run(self, command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command], cwd=self.folder, capture_output=True,
            text=True, check=False, timeout=1800, env=self.environment(),
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        path = f"{self.folder / 'shell'}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, **SETTINGS, "PATH": path, "PYTHONPATH": str(self.folder / "lib")}

    def must(self, command: str) -> str:
        done = self.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout


def yaml_of(page: str, name: str) -> str:
    """The file `name` as a page prints it."""
    return next(block.text for block in blocks_of(page) if block.note == name)


def furnish(place: Checkout) -> Checkout:
    """Data, pictures, trained and tested models, and files of others; takes some minutes."""
    place.shorten_warm_ups(20)
    place.must("sniper make-toy-data data/toy")
    place.must("sniper make-toy-data data/mine --classes 3")
    add_pictures(place.folder)
    for recipe in ("sniper_mobilenetv2_toy", "sniper_res18_toy", "my.yml"):
        place.must(f"python main_train.py --cfg {recipe}")
        place.must(f"python main_test.py --cfg {recipe}")
    add_files_of_others(place)
    add_backbone(place)
    return place


def add_pictures(folder: Path) -> None:
    for name in ("picture.jpg", "holiday.jpg", "photos/a.jpg", "photos/b.jpg", "large/a.jpg"):
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
    found = [{"image_id": 1, "category_id": 1, "bbox": [20, 20, 40, 30], "score": 0.9}]
    (place.folder / "results.json").write_text(json.dumps(found))  # of a trainer, on chips
    mine = next((place.folder / "output" / "mine").rglob("results/*results.json"))
    shutil.copy(mine, place.folder / "other_results.json")
    log = next((place.folder / "output").rglob("sniper_res18_toy.jsonl"))
    for name in ("one.jsonl", "other.jsonl"):
        shutil.copy(log, place.folder / name)
    place.must("sniper export --cfg sniper_res18_toy --out detector.zip")
    place.must(
        as_this_processor_needs_it(
            "sniper quantize --cfg sniper_res18_toy --calib 2 --out toy_int8.zip"
        )
    )
    place.must("python examples/plain_train.py data/toy --updates 2")
    add_classes_of_pictures(place)
    add_voc(place.folder)


def add_classes_of_pictures(place: Checkout) -> None:
    """Folders of pictures that show one class each, and a file of classes learnt from them."""
    place.must("sniper make-toy-data data/toy_fine --fine")
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


def add_backbone(place: Checkout) -> None:
    """The imported MobileNetV2, where its layers are at hand (SNIPER_SHARED)."""
    shared = Path(os.environ.get("SNIPER_SHARED", ROOT.parent / "shared"))
    layers = shared / "weights" / "mbv2_1.0_oidv4_folded_nchw.npz"
    if layers.is_file():
        place.must(f"sniper import-weights mobilenetv2 {layers}")


def as_this_processor_needs_it(text: str) -> str:
    """Without VNNI `sniper quantize` refuses, and names this flag."""
    without = "--format onnx" not in text and not has_int8_instructions()
    return text.replace("sniper quantize", "sniper quantize --any-cpu") if without else text

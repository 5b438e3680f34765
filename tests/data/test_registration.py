"""A format and a protocol of one's own, `examples/own_format.py`: imported, or installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper.config import load_config
from sniper.data import Dataset, format_names, formats, load_dataset, register_format
from sniper.data.registry import Registry
from sniper.errors import ConfigError, DataError
from sniper.evaluation import register_protocol
from sniper.models.networks import register_backbone, register_heads

LIB = Path(__file__).resolve().parents[2] / "lib"

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_format.py"
ROWS = """a.png,80,60,ant,1,2,30,40
a.png,80,60,bee,10,10,50,50
b.png,64,48,,
c.png,64,48,bee,5,5,20,30
"""
CFG = """_BASE_: sniper_mobilenetv2_toy
output_path: {root}/output
dataset: {{dataset: {name}, root_path: {root}, dataset_path: {root}/data, NUM_CLASSES: 3,
  image_set: x, test_image_set: x}}
TRAIN: {{USE_NEG_CHIPS: false, FLIP: false}}
"""


@pytest.fixture
def package(tmp_path):
    """A package with a format and a protocol, as `pip install` leaves it, and a set."""
    site = tmp_path / "site"
    info = site / "own_formats-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-formats\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[sniper.datasets]\nOwn_CSV = own_format:load_csv\nbroken = own_format:nothing\n\n"
        "[sniper.protocols]\nstrict = own_format:Strict\n"
    )
    shutil.copy(EXAMPLE, site)
    data = tmp_path / "data"
    data.mkdir()
    for name, (width, height) in {"a": (80, 60), "b": (64, 48), "c": (64, 48)}.items():
        cv2.imwrite(str(data / f"{name}.png"), np.zeros((height, width, 3), np.uint8))
    (data / "x.csv").write_text(ROWS)
    for name in ("own_csv", "csv"):
        (tmp_path / f"{name}.yml").write_text(CFG.format(root=tmp_path, name=name.upper()))
    return tmp_path


def run(package, text):
    """Python code in a process of its own: what is registered there stays there."""
    return subprocess.run(
        [sys.executable, "-c", text],
        env={"PYTHONPATH": f"{LIB}:{package / 'site'}", "PATH": "", "HOME": str(package)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


TRAINS = """
import json
from sniper.config import load_config
from sniper.runs.datasets import training_records
from sniper.runs.resolve import training_data
records, classes = training_records(training_data(load_config({cfg!r})))
print(json.dumps([classes, [[r.width, r.boxes.tolist(), r.classes.tolist()] for r in records]]))
"""
CHECKS = """
import sys
from sniper.tools.cli import main
sys.exit(main(["check-data", "--cfg", {cfg!r}]))
"""
IMPORT = "import own_format\n"
EXPECTED = [
    ["__background__", "ant", "bee"],
    [[80, [[1, 2, 30, 40], [10, 10, 50, 50]], [1, 2]], [64, [[5, 5, 20, 30]], [2]]],
]


@pytest.mark.parametrize(("name", "before"), [("own_csv", ""), ("csv", IMPORT)])
def test_a_format_of_ones_own_trains_and_is_checked(package, name, before):
    cfg = str(package / f"{name}.yml")
    done = run(package, before + TRAINS.format(cfg=cfg))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == EXPECTED
    done = run(package, before + CHECKS.format(cfg=cfg))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 images (1 without objects), 3 objects of 2 classes" in done.stdout
    # What is broken stops training, and is counted by the checks: both see it.
    (package / "data" / "x.csv").write_text(ROWS + "c.png,64,48,bee,5,5,20\nd\n")
    done = run(package, before + TRAINS.format(cfg=cfg))
    assert done.returncode == 1 and "a line is broken" in done.stderr
    done = run(package, before + CHECKS.format(cfg=cfg))
    assert done.returncode == 3
    assert "broken entries of the annotations: 2" in done.stdout


EVALUATES = """
import json
from sniper.data import load_dataset
from sniper.data.detections import ImageDetections, table_of
from sniper.evaluation import objects_of, protocol_of, protocol_names
import numpy as np
from dataclasses import replace
dataset = load_dataset("own_csv", {root!r}, "x")
images = [
    ImageDetections(np.hstack([r.boxes, np.full((len(r.boxes), 1), 0.5, np.float32)]), r.classes)
    for r in dataset.records
]
strict = replace(dataset, protocol="STRICT")
answers = [
    [protocol_of(own).deciding, protocol_of(own).evaluate(own, table_of(images)).ap,
     objects_of(own).boxes.tolist()]
    for own in (dataset, strict)
]
print(json.dumps([answers, protocol_names()]))
"""


def test_a_protocol_of_ones_own_and_coco_numbers_of_any_format(package):
    done = run(package, EVALUATES.format(root=str(package / "data")))
    assert done.returncode == 0, done.stderr
    answers, names = json.loads(done.stdout)
    boxes = [[1, 2, 30, 39], [10, 10, 41, 41], [5, 5, 16, 26]]
    assert answers == [["ap", pytest.approx(1), boxes], ["ap75", pytest.approx(1), boxes]]
    assert names == ["coco", "ilsvrc", "openimages", "strict", "voc", "wider"]


def test_entry_points_that_do_not_load_and_unknown_names(package):
    text = "from sniper.data import load_dataset\nload_dataset({name!r}, '', 'x')\n"
    done = run(package, text.format(name="broken"))
    assert "the kind of data set 'broken' of an installed package cannot be loaded" in done.stderr
    done = run(package, text.format(name="own_cvs"))
    assert "did you mean 'own_csv'?" in done.stderr
    assert (
        "expected: broken, coco, folder, imagenet, openimages, own_csv, pascalvoc, voc, wider"
        in done.stderr
    )
    done = run(package, CHECKS.format(cfg=str(package / "csv.yml")))
    assert done.returncode == 2 and "no such kind of data set" in done.stderr


def test_names_belong_to_one_part():
    parts = Registry(
        "part", "there", "sniper.tests", {"a": print}, is_part=callable, kind="a function"
    )
    parts.register(" B ", len)
    parts.register("b", len)
    assert parts.get("B") is len and parts.names() == ["a", "b"]
    for name, problem in (("A", "of that name already"), ("  ", "needs a name")):
        with pytest.raises(ConfigError, match=problem):
            parts.register(name, len)
    assert parts.get("a") is print
    with pytest.raises(ConfigError, match="no such part"):
        parts.get("c")


def test_the_formats_of_the_package(tmp_path):
    assert {"coco", "folder", "pascalvoc", "voc"} <= set(format_names())
    with pytest.raises(ConfigError, match="of that name already"):
        register_format("COCO", print)
    with pytest.raises(DataError):
        load_dataset("Folder", tmp_path, "none")
    assert load_config("sniper_mobilenetv2_toy").dataset.dataset in format_names()


@pytest.mark.parametrize(
    "register, part",
    [
        (register_format, "x"),
        (register_protocol, "x"),
        (register_protocol, int),
        (register_protocol, lambda: None),
        (register_backbone, "x"),
        (register_heads, "x"),
        (register_heads, [object()]),
    ],
)
def test_what_can_be_no_part_is_refused_at_once(register, part):
    with pytest.raises(ConfigError, match="can be no|this is no"):
        register("mine", part)
    with pytest.raises(ConfigError):
        register_format(5, print)


def test_a_reader_that_gives_no_data_set_is_named(monkeypatch):
    monkeypatch.setattr(formats, "_FORMATS", formats.new_registry())
    register_format("mine", lambda *args, **kwargs: None)
    with pytest.raises(ConfigError, match="'mine' gives no data set"):
        load_dataset("mine", ".", "x")


@pytest.mark.parametrize("text", ["raise RuntimeError('boom')", "def f(:", "part = 'no function'"])
def test_an_entry_point_that_cannot_be_used_is_named(package, text):
    (package / "site" / "faulty.py").write_text(text)
    info = package / "site" / "own_formats-1.0.dist-info" / "entry_points.txt"
    info.write_text(
        "[sniper.datasets]\nodd = faulty:part\n\n[sniper.protocols]\nodd = faulty:part\n"
    )
    for module, call in (("sniper.data", "load_dataset('odd', '.', 'x')"),
                         ("sniper.evaluation", "protocol_named('odd')")):  # fmt: skip
        done = run(package, f"from {module} import *\nimport {module} as room\nroom.{call}")
        assert done.returncode == 1
        assert "ConfigError" in done.stderr
        assert "entry point faulty:part" in done.stderr


def test_an_entry_point_behind_a_part_of_the_package_is_told_once(monkeypatch, caplog):
    entry = metadata.EntryPoint("A", "other_package:part", "sniper.tests")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry])
    options = {"is_part": callable, "kind": "a function"}
    parts = Registry("part", "there", "sniper.tests", {"a": print, "b": len}, **options)
    assert parts.get("a") is parts.get("A") is print and parts.get("b") is len
    (warning,) = caplog.messages
    assert "other_package:part" in warning and "is not used: give it another one" in warning


def test_a_reader_of_strange_records_is_named(monkeypatch):
    def load(path, image_set, **options):
        classes = {"class_names": ("__background__",), "category_ids": (0,)}
        records = ({"boxes": []},)
        return Dataset(
            "x", "x", **classes, records=records, annotation_path="", has_annotations=True
        )

    monkeypatch.setattr(formats, "_FORMATS", formats.new_registry())
    register_format("mine", load)
    with pytest.raises(ConfigError, match="'mine' gives records of another type") as error:
        load_dataset("mine", ".", "x")
    assert "got: a dict" in str(error.value)

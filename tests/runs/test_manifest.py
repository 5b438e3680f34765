"""What a manifest knows of data, machine, code and settings, and how changes are told."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sniper.config import dump_config, load_config
from sniper.data import Record
from sniper.data.record import flip_record
from sniper.errors import DataError
from sniper.runs import environment as module
from sniper.runs.data_identity import (
    identify_images,
    identity_of,
    image_changes,
    read_images,
    write_images,
)
from sniper.runs.devices import Device
from sniper.runs.environment import code_files, environment
from sniper.runs.manifest import config_changes, read_manifest
from sniper.runs.reproduce import _batch_text
from sniper.training.digests import digest_array
from sniper.training.trace import TraceLine

CPU_INFO = """\
processor : 0
model name : A Processor
flags : fpu sse4_2 avx2 avx512_vnni
processor : 1
model name : A Processor
flags : fpu sse4_2 avx2 avx512_vnni
"""


@pytest.fixture
def records(tmp_path):
    made = []
    for number in range(3):
        path = tmp_path / "data" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * 100)
        boxes = np.float32([[1, 2, 30, 40], [5, 5, 20, 20], [0, 0, 9, 9]])
        made.append(
            Record(
                *(str(path), number, 60, 50, False, boxes),
                classes=np.int32([1, 2, 0]),
                is_gt=np.bool_([1, 1, 0]),
                crowd_boxes=np.float32([[1, 1, 2, 2]]),
            )
        )
    return made


def changes(was, records, root):
    return list(image_changes(was, identify_images(records, root)))


def test_each_kind_of_change_is_told_by_name(records, tmp_path):
    root = tmp_path / "data"
    was = identify_images([*records, *map(flip_record, records)], root)
    assert [image.name for image in was] == ["0.jpg", "1.jpg", "2.jpg"], "mirrored copies are not"
    assert changes(was, records, root) == []
    assert changes(was, records[1:], root) == ["1 image(s) not trained on any more: 0.jpg"]
    assert changes(was[1:], records, root) == ["1 image(s) new: 0.jpg"]
    assert changes(was, records[::-1], root) == ["the images come in another order"]
    boxes = records[1].boxes.copy()
    boxes[0, 2] += 0.5
    for change in ({"boxes": boxes}, {"width": 61}, {"crowd_boxes": None}):
        others = [records[0], replace(records[1], **change), records[2]]
        assert changes(was, others, root) == ["1 image(s) with other annotations: 1.jpg"]
    boxes = records[1].boxes.copy()
    boxes[2, 2] += 0.5
    others = [records[0], replace(records[1], boxes=boxes), records[2]]
    assert changes(was, others, root) == ["1 image(s) with other proposals: 1.jpg"]
    (root / "2.jpg").write_bytes(b"\7" * 100)
    (root / "0.jpg").write_bytes(b"\7" * 99)
    assert changes(was, records, root) == ["2 image(s) with another content: 0.jpg, 2.jpg"]
    (root / "0.jpg").unlink()
    assert "0.jpg" in changes(was, records, root)[0], "reading it will say that it is missing"


def test_the_place_of_the_data_does_not_matter(records, tmp_path):
    was = identify_images(records, tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = [replace(r, image_path=r.image_path.replace("/data/", "/moved/")) for r in records]
    assert identity_of(identify_images(moved, tmp_path / "moved")) == identity_of(was)
    elsewhere = identify_images(moved, tmp_path / "data")
    assert elsewhere[0].name == moved[0].image_path


def test_large_sets_are_not_read_through(records, tmp_path):
    root = tmp_path / "data"
    was = identify_images(records, root, hashed_bytes=250)
    assert [image.content == "-" for image in was] == [False, False, True]
    (root / "2.jpg").write_bytes(b"\7" * 100)
    assert changes(was, records, root) == [], "the same size: its batches will tell"
    (root / "2.jpg").write_bytes(b"\7" * 101)
    assert changes(was, records, root) == ["1 image(s) with another content: 2.jpg"]


def test_images_by_way_of_a_file(records, tmp_path):
    was = identify_images(records, tmp_path / "data")
    write_images(tmp_path / "images.tsv.gz", was)
    assert read_images(tmp_path / "images.tsv.gz") == was
    write_images(tmp_path / "images.tsv.gz", [])
    assert read_images(tmp_path / "images.tsv.gz") == []
    for content in (b"", b"nothing", (tmp_path / "images.tsv.gz").read_bytes()[:9]):
        (tmp_path / "images.tsv.gz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_images(tmp_path / "images.tsv.gz")


def test_the_environment_names_what_can_change_numbers(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(CPU_INFO)
    monkeypatch.setattr(module, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("MXNET_CPU_WORKER_NTHREADS", "1")
    monkeypatch.setenv("SNIPER_DEBUG", "1")
    found = environment([Device("cpu")])
    assert found["processor"] == "A Processor"
    assert found["instructions"] == "sse4_2 avx2 avx512_vnni"
    assert found["threads"] == "2" and found["devices"] == "cpu(0)"
    assert found["variable MXNET_CPU_WORKER_NTHREADS"] == "1"
    assert not [name for name in found if "SNIPER_DEBUG" in name or "OMP_NUM" in name]
    assert found["package numpy"] == np.__version__ and found["package mxnet"]
    monkeypatch.setattr(module, "CPU_INFO", tmp_path / "nothing")
    assert environment([])["processor"], "systems without this file have a name, too"


def test_all_code_is_looked_at():
    files = code_files()
    assert {"native/libsniper_ops.so", "training/sgd.py", "__init__.py"} <= set(files)
    assert not [name for name in files if name.startswith("/")]


def test_keys_are_compared_and_places_are_not(tmp_path):
    one, other = (
        dump_config(load_config("sniper_mobilenetv2_toy", ["gpus", "cpu", *overrides]))
        for overrides in (
            [],
            ["TRAIN.lr", "0.2", "output_path", "x", "dataset.dataset_path", "y", "seed", "4"],
        )
    )
    assert list(config_changes(one, one)) == []
    assert list(config_changes(one, other)) == [
        "key seed: was 0, is 4",
        "key TRAIN.lr: was 0.1, is 0.2",
    ]


SESSION = {
    **dict.fromkeys(("session", "epoch", "batch", "updates", "seed"), 0),
    **{"checkpoint": None, "prefix": "SNIPER", "batch_size": 4, "workers": 1, "config": "a: 1"},
    **{"environment": {"threads": "1"}, "code": {}, "classes": ["a"], "files": {}},
    **{"images": "images-1.tsv.gz", "images_sha256": "0", "parameters": ["w"]},
}


@pytest.mark.parametrize("name", SESSION)
def test_a_manifest_of_other_kinds_is_refused(tmp_path, name):
    path = tmp_path / "reproduce" / "manifest.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"format": 1, "run": 1, "sessions": [SESSION]}))
    assert read_manifest(tmp_path).sessions[0].classes == ["a"]
    for wrong in (1.5, True, [1], {"a": 1}):
        damaged = {"format": 1, "run": 1, "sessions": [{**SESSION, name: wrong}]}
        path.write_text(json.dumps(damaged))
        with pytest.raises(DataError, match=f"manifest of a run cannot be read[^$]*{name} of a s"):
            read_manifest(tmp_path)


def test_a_damaged_list_of_images_is_refused(records, tmp_path):
    path = tmp_path / "images.tsv.gz"
    write_images(path, identify_images(records, tmp_path))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:  # the header's time and system may change
            assert read_images(path) == identify_images(records, tmp_path)
        except DataError as error:
            assert "cannot be read" in str(error)


def test_a_batch_of_another_size_is_told_by_its_shape():
    arrays = {"data": np.zeros((4, 3, 32, 32), np.float32)}
    line = TraceLine(1, 0, 0, 1, {n: digest_array(a) for n, a in arrays.items()}, True, None)
    other = SimpleNamespace(data={"data": arrays["data"][:2]}, label={}, image_paths=["a", "b"])
    assert _batch_text(line, other) == (
        "array data has the shape 2 x 3 x 32 x 32, had 4 x 3 x 32 x 32"
    )

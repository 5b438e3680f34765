"""`sniper reproduce`: a run is repeated bit for bit, and what was changed is found and named."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from sniper.loader import compact
from sniper.runs import manifest
from sniper.runs.manifest import read_manifest, trace_path
from sniper.tools.reproduce import main as reproduce
from sniper.training.trace import read_trace

SETTINGS = ("TRAIN.NUM_PROCESS", "0")


@pytest.fixture(scope="module")
def run(tiny):
    """A run that stopped in its second epoch, after update 8 of 12."""
    return tiny.train("repeated", overrides=(*SETTINGS, "TRAIN.MAX_UPDATES", "8"))


@pytest.fixture
def data(tiny, tmp_path):
    """A copy of the data set in another folder."""
    shutil.copytree(tiny.root / "toy", tmp_path / "moved_data")
    return tmp_path / "moved_data"


@pytest.fixture
def found(capsys):
    """Calls the command; exit code and all that it shows."""

    def call(*arguments):
        capsys.readouterr()
        code = reproduce([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return call


def test_a_run_is_the_same_again(run, found, tmp_path):
    out = tmp_path / "found.json"
    code, text = found(run, "--json", out)
    assert code == 0, text
    assert "the same machine, packages, code, settings and data" in text
    assert "IDENTICAL: updates 1 to 8; compared 8 batches, and the weights 9 times" in text
    values = json.loads(out.read_text())
    assert values["identical"] and values["changes"] == [] and values["digest"] in text
    assert read_trace(trace_path(run))[-1].weights.total == values["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_elsewhere_with_worker_processes(run, data, found, tmp_path, workers):
    moved = tmp_path / "a" / "b" / "run"
    shutil.copytree(run, moved)
    flags = ("--updates", 3, "--data", data, "--set", "TRAIN.NUM_PROCESS", workers)
    code, text = found(moved, *flags)
    assert code == 0, text
    assert f"key TRAIN.NUM_PROCESS: was 0, is {workers}" in text
    assert "IDENTICAL: updates 1 to 3" in text
    told = text.split("before anything is trained:")[1].split("IDENTICAL")[0]
    assert len(told.strip().splitlines()) == 1, "where things are does not count"


def test_one_changed_pixel_is_found_in_its_chip(run, data, found):
    name = next(iter(sorted((data / "images" / "train").iterdir())))
    image = cv2.imread(str(name))
    image[image.shape[0] // 2, image.shape[1] // 2] ^= 64
    cv2.imwrite(str(name), image)
    code, text = found(run, "--data", data)
    assert code == 1, text
    assert f"1 image(s) with another content: images/train/{name.name}" in text
    place = text.split("DIFFERENT at ")[1]
    assert "array data, chip" in place and f"({name.name}), number" in place
    assert "what was told above may be the cause" in place


@pytest.mark.slow
def test_one_changed_annotation_is_found_in_the_labels(run, data, found):
    file = data / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    annotation = content["annotations"][0]
    annotation["bbox"][2] -= 3
    file.write_text(json.dumps(content))
    names = {image["id"]: image["file_name"] for image in content["images"]}
    code, text = found(run, "--data", data)
    assert code == 1, text
    assert "annotations instances_train.json: changed" in text
    assert (
        f"1 image(s) with other annotations: images/train/{names[annotation['image_id']]}" in text
    )
    assert "DIFFERENT at update " in text


@pytest.mark.slow
def test_another_setting_is_found_in_the_weights(run, found):
    code, text = found(run, "--set", "TRAIN.momentum", "0.8")
    assert code == 1, text
    assert "key TRAIN.momentum: was 0.9, is 0.8" in text
    # The first update has no momentum yet.
    place = text.split("DIFFERENT at ")[1]
    assert place.startswith("update 2 (epoch 1, batch 2): the batch is the same, the weights")
    assert "(sum was " in place


def test_other_code_is_named_and_found(run, found, monkeypatch):
    """As if the compiled function that makes the network's input had been built from other code."""
    right, files = compact.image_to_chw, manifest.code_files

    def wrong(pixels, content_hw, means, out):
        right(pixels, content_hw, means, out)
        out[1, 2, 5, 7] += 1

    monkeypatch.setattr(compact, "image_to_chw", wrong)
    monkeypatch.setattr(
        manifest, "code_files", lambda: {**files(), "native/libsniper_ops.so": "another"}
    )
    code, text = found(run)
    assert code == 1, text
    assert "code, 1 file(s): native/libsniper_ops.so (changed)" in text
    place = text.split("DIFFERENT at ")[1]
    assert place.startswith("update 1 (epoch 1, batch 1): array data, chip 1 (")
    was, now = (float(part.split()[0].strip(",")) for part in place.split("number [2, 5, 7]: was ")
                [1].splitlines()[0].split("is "))  # fmt: skip
    assert now == pytest.approx(was + 1, abs=1e-4)


@pytest.mark.slow
def test_another_number_of_threads_is_told(run, found, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MXNET_SOME_LIMIT", "7")
    _, text = found(run, "--updates", 1)
    session = read_manifest(run).sessions[0]
    assert f"threads: was {session.environment['threads']}, is 3" in text
    assert "variable MXNET_SOME_LIMIT: was not set, is 7" in text


@pytest.mark.slow
def test_over_resumes_and_from_a_checkpoint(tiny, run, found):
    """The run goes on within its second epoch; the repetition does not stop there."""
    tiny.train("repeated", "--resume", overrides=(*SETTINGS, "TRAIN.MAX_UPDATES", "11"))
    sessions = read_manifest(run).sessions
    assert [(s.updates, s.epoch, s.batch) for s in sessions] == [(0, 0, 0), (8, 1, 2)]
    assert sessions[1].images == sessions[0].images, "the list of images is kept once"
    assert "checkpoint SNIPER-0002.params" in sessions[1].files
    code, text = found(run)
    assert code == 0, text
    # The start, 11 updates, and the weights that the second session began with.
    assert "IDENTICAL: updates 1 to 11; compared 11 batches, and the weights 13 times" in text
    code, text = found(run, "--from", 1, "--updates", 3)
    assert code == 0, text
    assert "IDENTICAL: updates 7 to 9; compared 3 batches, and the weights 4 times" in text


@pytest.mark.slow
def test_a_damaged_manifest_is_no_reason_not_to_train_on(tiny, found):
    flags = (*SETTINGS, "TRAIN.MAX_UPDATES")
    folder = tiny.train("damaged", overrides=(*flags, "6"))
    (folder / "reproduce" / "manifest.json").write_text("{")
    tiny.train("damaged", "--resume", overrides=(*flags, "8"))
    assert [session.updates for session in read_manifest(folder).sessions] == [6]
    code, text = found(folder)
    assert code == 3 and "begin with a checkpoint: --from 1" in text
    code, text = found(folder, "--from", 1)
    assert code == 0 and "IDENTICAL: updates 7 to 8" in text, text


def test_what_cannot_be_repeated(run, found, tmp_path):
    code, text = found(tmp_path / "nothing")
    assert code == 2 and "RUN is the folder of a run's checkpoints" in text
    code, text = found(tmp_path)
    assert code == 3 and "this is no run with a manifest" in text
    code, text = found(run, "--from", 7)
    assert code == 3 and "no checkpoint of that epoch" in text and "SNIPER-0001" in text
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    file = broken / "reproduce" / "manifest.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "run": 2}))
    code, text = found(broken, "--from", 1)
    assert code == 3 and "the checkpoint is of an earlier run in this folder" in text
    content["sessions"][0]["workers"] = 2
    file.write_text(json.dumps(content))
    code, text = found(broken)
    assert code == 2 and "cannot be repeated by one process" in text
    file.write_text("{")
    code, text = found(broken)
    assert code == 3 and "the manifest of a run cannot be read" in text


def test_digests_cost_little_space_and_are_those_of_the_network(run):
    lines = read_trace(trace_path(run))
    batches = [line for line in lines if not line.is_start]
    assert all(line.weights is not None for line in batches)
    assert batches[0].arrays["data"].shape == (4, 3, 128, 128)
    assert np.isfinite(batches[0].weights.sums).all()

"""The benches of whole detectors: work counted, files asked for, and how they judge."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

from bench import int8, whole_detectors
from bench.case import PeerMissingError
from bench.cases import whole_detectors as case
from bench.random_detectors import RECIPES, random_detector
from sniper.models import int8_support

KEYS = ("network.WIDTH", "0.25", "network.RPN_CHANNELS", "16", "network.FC_CHANNELS", "32")


def ours(**changes):
    arrays = {"roi_map": np.ones((4, 2, 2), np.float32), "rois": 300, "gflop": 12.3}
    return {name: np.array(value) for name, value in {**arrays, **changes}.items()}


def theirs(**changes):
    arrays = {"equal": 0.99, "boxes": 100, "rois": 300, "gflop": 45.6, **changes}
    return {name: np.array(value) for name, value in arrays.items()}


def test_work_is_counted_by_layer():
    data = mx.sym.Variable("data")
    first = mx.sym.Convolution(
        data, kernel=(3, 3), stride=(2, 2), pad=(1, 1), num_filter=8, name="a"
    )
    second = mx.sym.Convolution(
        first, kernel=(3, 3), pad=(1, 1), num_filter=8, num_group=8, name="b"
    )
    head = mx.sym.FullyConnected(mx.sym.relu(second), num_hidden=5, name="c")
    places = 12 * 16
    sums = 8 * places * 27 + 8 * places * 9 + 5 * 8 * places
    assert case.gflop({"data": (1, 3, 24, 32)}, head) == pytest.approx(2 * sums / 1e9)


def test_what_is_compared():
    near = ours(roi_map=np.full((4, 2, 2), 1.00001, np.float32))
    assert "12 GFLOP on both sides" in case.compare(ours(), near, None, "ours-onnxruntime")
    sentence = case.compare(ours(), theirs(), None, "torchvision-openvino")
    assert sentence == "12 GFLOP here, 46 there; 99% of its 100 boxes as in PyTorch"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (ours(roi_map=np.full((4, 2, 2), 1.01, np.float32)), "expected 1e-04"),
        (theirs(equal=0.9), "expected at least 97%"),
        (theirs(boxes=0), "of its 0 boxes"),
        (theirs(rois=1000), "1000 there, expected equal numbers"),
    ],
)
def test_others_are_refused(other, words):
    with pytest.raises(Exception, match=words):
        case.compare(ours(), other, None, "peer")


def test_boxes_of_other_classes_are_not_equal():
    boxes = np.float32([[0, 0, 9, 9], [5, 5, 20, 20]])
    example = {"image": np.zeros((3, 8, 8)), "boxes": boxes, "labels": np.array([1, 2])}
    example |= {"rois": np.array(300), "gflop": np.array(1.0)}
    for labels, share in (([1, 2], 1.0), ([1, 3], 0.5), ([2, 1], 0.0)):
        found = {"boxes": boxes + np.float32(0.05), "labels": np.array(labels)}
        side = case.prepared(lambda image, found=found: found, np.zeros((3, 8, 8)), example)
        assert float(side.outputs(None)["equal"]) == share


def test_missing_files_are_named_and_made_once(monkeypatch, tmp_path):
    monkeypatch.setenv(case.FOLDER, str(tmp_path))
    with pytest.raises(PeerMissingError, match="whole_detectors.py --torch-python PATH makes it"):
        case.exported({"network": "MobileNet", "size": "800x608"})
    commands = []

    def run(command, check):
        commands.append(command)
        (tmp_path / f"{command[2]}_{command[3]}.npz").write_bytes(b"")

    monkeypatch.setattr(subprocess, "run", run)
    for _ in range(2):
        whole_detectors.make_models("some/python")
    assert [command[2] for command in commands] == [name for _, name in case.NETWORKS.values()]


def test_it_is_a_case(capsys):
    assert whole_detectors.main(["--list"]) == 0
    assert "MobileNet, 800x608: ours against ours-onnxruntime" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("has_vnni", "difference", "ratio", "code"),
    [(True, 0.09, 1.5, 0), (True, 0.16, 1.5, 1), (True, 0.09, 1.2, 1), (False, 0.16, 0.9, 0),
     (False, 0.21, 1.5, 1)],
)  # fmt: skip
def test_int8_has_goals_on_processors_with_vnni(
    monkeypatch, capsys, has_vnni, difference, ratio, code
):
    seconds = {"fp32": [1.0], "INT8": [1.0]}
    result = {"difference": difference, "seconds": seconds, "ratio": ratio}
    monkeypatch.setattr(int8, "measure", lambda *_: {**result, "ratio_range": [ratio, ratio]})
    monkeypatch.setattr(int8_support, "has_int8_instructions", lambda: has_vnni)
    assert int8.main(["--only", "mobilenetv2_e2e"]) == code
    printed = capsys.readouterr().out
    assert ("no faster than fp32" in printed) == (not has_vnni)
    assert ("goal 1.3" in printed) == has_vnni


def test_int8_and_graphs_are_of_the_same_network():
    detector = random_detector(
        RECIPES["mobilenetv2_e2e"], np.zeros((1, 3, 64, 64), np.float32), KEYS
    )
    assert detector.inputs[0]["im_info"].tolist() == [[64, 64, 1]]
    assert set(detector.graph.arg) <= set(detector.graph.symbol.list_arguments())
    assert SimpleNamespace(**vars(detector)).model.symbol is detector.graph.symbol

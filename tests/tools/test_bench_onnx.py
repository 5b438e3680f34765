"""The benches of ONNX engines: a network through both, and how they judge."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bench import onnx_agreement, onnx_engines

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def found(boxes, scores, **maps):
    return SimpleNamespace(boxes=np.float32(boxes), scores=np.float32(scores), maps=maps)


def test_boxes_are_found_again_by_place_and_scores():
    ours = found([[0, 0, 9, 9], [5, 5, 20, 20], [7, 7, 30, 30]], [[0.1, 0.9], [0.5, 0.5], [1, 0]])
    theirs = found([[5.01, 5, 20, 20], [7, 7, 30, 30.1], [0, 0, 9, 9]],
                   [[0.5, 0.5], [1, 0], [0.11, 0.89]])  # fmt: skip
    result = onnx_agreement.compare(ours, theirs)
    # The first has other scores, the third another place.
    assert (result["boxes"], result["again"]) == (3, 1)
    assert result["px"] == pytest.approx(0.01, abs=1e-5) and result["score"] == 0
    maps = onnx_agreement.compare(
        *(found(np.zeros((0, 4)), np.zeros((0, 2)), roi=one) for one in np.eye(2))
    )
    assert maps["map"] == 1


def test_a_network_agrees(capsys, tmp_path):
    argv = ["--only", "mobilenetv2_ssh", "--size", "96x64", "--json", str(tmp_path / "a.json")]
    assert onnx_agreement.main(argv) == 0
    assert "mobilenetv2_ssh" in capsys.readouterr().out and (tmp_path / "a.json").is_file()


def test_too_few_boxes_fail(monkeypatch, capsys):
    monkeypatch.setattr(onnx_agreement, "LEAST_SHARE", 1.1)
    assert onnx_agreement.main(["--only", "mobilenetv2_ssh", "--size", "96x64"]) == 1
    assert "TOO FEW" in capsys.readouterr().out


def test_maps_that_differ_fail(monkeypatch, capsys):
    result = {"difference": 0.5, "seconds": [1.0], "ratio": 1.0, "ratio_range": [1.0, 1.0]}
    monkeypatch.setattr(onnx_engines, "measure", lambda *given: {"onnxruntime fp32": result})
    assert onnx_engines.main(["--only", "mobilenetv2_e2e"]) == 1
    assert "TOO MUCH" in capsys.readouterr().out
    result["difference"] = 1e-6
    assert onnx_engines.main(["--only", "mobilenetv2_e2e"]) == 0

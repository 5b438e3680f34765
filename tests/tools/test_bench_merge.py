"""The merge benchmark: its peers' parts that need no peer, hard NMS, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from bench.cases import merge as case

JOBS = {job.name: job for job in case.CASE.jobs}


def small(rows_of_level=40, seed=0):
    """Some rows of the job of softmax scores, distinct."""
    arrays = dict(case.made(np.random.default_rng(seed), dense=False, distinct=True))
    chosen = np.random.default_rng(1).permutation(len(arrays["rows"]))[: 3 * rows_of_level]
    return {**arrays, **{key: arrays[key][chosen] for key in ("rows", "classes", "levels")}}


def result(setup, arrays, **params):
    side = setup(arrays, {"cap": -1, **params}, 1)
    return side.outputs(side.run())


def hard_nms_by_definition(arrays, threshold):
    """Row by row: valid, and no better row of its class that stays overlaps it by more."""
    valid = case.in_range(arrays["rows"], arrays["ranges"][arrays["levels"]])
    rows, classes = arrays["rows"][valid], arrays["classes"][valid]
    kept = []
    for index in np.argsort(-rows[:, 4]):
        own = [other for other in kept if classes[other] == classes[index]]
        if all(case.make.iou(rows[other], rows[index]) <= threshold for other in own):
            kept.append(index)
    return {"rows": rows[kept], "classes": classes[kept]}


def test_every_peer_of_a_job_can_do_it():
    for job in JOBS.values():
        hard = "hard" in job.params
        assert set(case.CASE.peers(job)) <= set(case.HARD_PEERS if hard else case.SOFT_PEERS)
        assert ("hard NMS" in job.name) == hard


@pytest.mark.parametrize("name", ["ours", "openvino", "onnxruntime"])
def test_hard_nms_is_that_of_the_definition(name):
    pytest.importorskip({"ours": "numpy"}.get(name, name))
    arrays = small()
    found = result(case.CASE.sides[name].setup, arrays, hard=0.5)
    expected = hard_nms_by_definition(arrays, 0.5)
    assert 0 < len(expected["rows"]) < len(arrays["rows"])
    sentence = case.compare(found, expected, None, name)
    assert sentence.startswith(f"{len(expected['rows'])} detections on both sides, 0 on one only")


def test_soft_nms_of_all_classes_at_once_by_openvino():
    pytest.importorskip("openvino")
    arrays = small(60)
    ours, theirs = (result(side, arrays, cap=50) for side in (case.ours, case.openvino))
    assert "50 detections on both sides" in case.compare(ours, theirs, None, "openvino")


def test_the_table_holds_every_row_once():
    arrays = small()
    boxes, ranges, scores = case.table_of(arrays)
    assert scores.shape == (arrays["classes"].max(), len(boxes)) and len(ranges) == len(boxes)
    klass, box = np.nonzero(scores)
    rows = {(*boxes[b], scores[k, b], k + 1) for k, b in zip(klass, box)}
    assert rows == {(*row, k) for row, k in zip(arrays["rows"], arrays["classes"])}


def test_other_rows_are_refused():
    arrays = small()
    found = result(case.ours, arrays, hard=0.5)
    best = int(found["rows"][:, 4].argmax())
    fewer = {key: np.delete(value, best, axis=0) for key, value in found.items()}
    with pytest.raises(Exception, match="1 on one only, expected only scores next to the least"):
        case.compare(found, fewer, None, "onnxruntime")
    higher = {**found, "rows": found["rows"] + np.float32([0, 0, 0, 0, 0.01])}
    with pytest.raises(Exception, match="scores to 1e-02, expected"):
        case.compare(found, higher, None, "onnxruntime")

"""The batch benchmark: its plain peers compute what the loader computes, and it can say no."""

from __future__ import annotations

import numpy as np
import pytest

from bench.case import OutputsDifferError, PeerMissingError
from bench.cases import batch


@pytest.fixture
def case(monkeypatch, coco_mini):
    monkeypatch.setattr(batch, "images_folder", lambda: coco_mini)
    monkeypatch.setattr(batch, "BATCHES", 1)
    return batch


def outputs(side, arrays, order="grouped"):
    prepared = side(arrays, {"order": order}, 1)
    return prepared.outputs(prepared.run())


@pytest.mark.parametrize("order", ["grouped", "ungrouped"])
def test_plain_samples_equal_those_of_the_loader(case, order):
    arrays = case.inputs(np.random.default_rng(0), order)
    records = arrays["samples"][:, 0]
    changes = np.count_nonzero(np.diff(records))
    assert changes == len(set(records)) - 1 if order == "grouped" else changes > 12
    mine = outputs(case.ours, arrays, order)
    peer = outputs(case.pool, arrays, order)
    text = case.compare(mine, peer, case.CASE.jobs[0], "pool")
    assert "equal" in text
    assert (mine["label"] == 1).any() and mine["data"].any()


def test_differences_are_found(case):
    arrays = case.inputs(np.random.default_rng(0), "grouped")
    mine = outputs(case.ours, arrays)
    peer = outputs(case.pool, arrays)
    positive = tuple(np.argwhere(mine["bbox_weight"] == 1)[0])
    for name, place, words in [
        ("data", (0, 0, 0, 0), "pixels"),
        ("gt_boxes", (0, 0, 0), "gt_boxes"),
        ("im_info", (0, 0), "im_info"),
        ("bbox_weight", positive, "weights"),
        ("bbox_target", positive, "targets"),
        ("label", (0, int(np.flatnonzero(mine["label"][0] == -1)[0])), "labels"),
    ]:
        changed = {**mine, name: mine[name].copy()}
        changed[name][place] += 1
        with pytest.raises(OutputsDifferError, match=words):
            case.compare(changed, peer, case.CASE.jobs[0], "pool")


def test_without_images_all_sides_are_skipped_with_a_sentence(case, monkeypatch):
    monkeypatch.setattr(case, "images_folder", lambda: None)
    arrays = case.inputs(np.random.default_rng(0), "grouped")
    for side in case.CASE.sides.values():
        with pytest.raises(PeerMissingError, match="data/coco_mini"):
            side.setup(arrays, {"order": "grouped"}, 2)

"""Proposal files of unknown origin: compared with their set, then put in place."""

import dataclasses
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sniper.data.legacy_proposals import python2_dict_order
from sniper.data.proposals import ProposalSet, load_proposals, save_proposals
from sniper.runs.datasets import open_dataset
from sniper.runs.resolve import data_source
from sniper.tools.place_proposals import main
from tests.data.test_legacy_proposals import python2_pickle

HERE = Path(__file__).resolve()


@pytest.fixture
def proposals(tiny_set):
    dataset = open_dataset(data_source(tiny_set.config()), "herbst")
    ids = np.array([record.image_id for record in dataset.records], np.int64)
    boxes = np.tile(np.array([[5, 6, 70, 80]], np.float32), (len(ids), 1))
    offsets = np.arange(len(ids) + 1)
    return ProposalSet(dataset.name, ids, offsets, boxes, np.ones(len(ids), np.float32))


def place(tiny_set, path, *flags):
    return main([str(path), *flags, "--cfg", str(tiny_set.recipe)])


def test_a_fitting_file_is_placed(tiny_set, proposals, tmp_path):
    path = tmp_path / f"{proposals.set_name}_rpn.npz"
    save_proposals(path, proposals)
    with tarfile.open(tmp_path / "release.tar.gz", "w:gz") as archive:
        archive.add(path, f"proposals/{path.name}")
    for source in (path, tmp_path / "release.tar.gz"):
        target = tiny_set.root / "proposals" / path.name
        target.unlink(missing_ok=True)
        assert place(tiny_set, source) == 0
        np.testing.assert_array_equal(load_proposals(target).boxes, proposals.boxes)


def test_other_proposals_are_replaced_on_demand_only(tiny_set, proposals, tmp_path, capsys):
    path = tmp_path / f"{proposals.set_name}_rpn.npz"
    target = tiny_set.root / "proposals" / path.name
    save_proposals(path, proposals)
    assert place(tiny_set, path) == place(tiny_set, path) == 0
    before = target.read_bytes()
    boxes = proposals.boxes + 1
    save_proposals(path, dataclasses.replace(proposals, boxes=boxes))
    assert place(tiny_set, path) == 3
    assert target.read_bytes() == before and "--overwrite" in capsys.readouterr().err
    assert place(tiny_set, path, "--overwrite") == 0
    np.testing.assert_array_equal(load_proposals(target).boxes, boxes)


def test_files_of_other_sets_are_refused(tiny_set, proposals, tmp_path, capsys):
    path = tmp_path / "COCO_other_rpn.npz"
    save_proposals(path, proposals)
    assert place(tiny_set, path) == 3
    assert "COCO_other_rpn.npz" in capsys.readouterr().err
    path = tmp_path / f"{proposals.set_name}_rpn.npz"
    save_proposals(path, dataclasses.replace(proposals, image_ids=proposals.image_ids + 1000))
    assert place(tiny_set, path) == 3
    assert "0 of 4 image ids match" in capsys.readouterr().err
    assert place(tiny_set, tmp_path / "none.npz") == 3
    assert not (tiny_set.root / "proposals").exists()


@pytest.mark.parametrize("ending", ["_rpn.pkl", "_rpn_after_nms.pkl"])
def test_a_2018_pickle_becomes_npz(tiny_set, tmp_path, ending):
    dataset = open_dataset(data_source(tiny_set.config()), "herbst")
    order = python2_dict_order([record.image_id for record in dataset.records])
    rows = [
        np.concatenate([record.boxes, np.full((len(record.boxes), 1), 0.5, np.float32)], axis=1)
        for record in (dataset.records[i] for i in order)
    ]
    content = python2_pickle(rows, after_nms="after" in ending)
    (tmp_path / f"COCO_herbst{ending}").write_bytes(content)
    assert place(tiny_set, tmp_path / f"COCO_herbst{ending}") == 0
    placed = load_proposals(tiny_set.root / "proposals" / "COCO_herbst_rpn.npz")
    for record in dataset.records:
        boxes, scores = placed.for_image(record.image_id)
        np.testing.assert_array_equal(boxes, record.boxes)
        assert (scores == 0.5).all()


def test_a_pickle_with_code_is_refused(tiny_set, tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trapped",)

    path = tmp_path / "COCO_herbst_rpn.pkl"
    path.write_bytes(pickle.dumps([Trap()], protocol=2))
    assert place(tiny_set, path) == 3
    assert not (tmp_path / "trapped").exists() and "herbst" in capsys.readouterr().err

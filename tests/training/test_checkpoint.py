"""Checkpoint folders: which one is newest, what is kept, what is refused, what a full disk does."""

import errno
import json
import os
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest

from sniper import files
from sniper.data.class_names import read_class_names, write_class_names
from sniper.errors import DataError, TrainingError
from sniper.models.weights import read_params
from sniper.training.checkpoint import CheckpointFolder, Snapshot
from sniper.training.run_state import BestModel, RunState, read_run_state

BEST = BestModel(2, 20, "COCO_val", "ap", 0.25)


def _snapshot(value=1.0, averaged=None):
    symbol = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="bbox_pred")
    arg = {
        "bbox_pred_weight": mx.nd.full((4, 3), value),
        "bbox_pred_bias": mx.nd.full((4,), value),
    }
    aux = {"bn_moving_mean": mx.nd.full((2,), value)}
    momenta = {f"0:{name}:0": array * 2 for name, array in arg.items()}
    if averaged is not None:
        averaged = ({name: mx.nd.full(a.shape, averaged) for name, a in arg.items()}, aux)
    return Snapshot(symbol, arg, aux, momenta, averaged)


def _state(epoch=0, updates=0, **others):
    return RunState(epoch, updates or epoch * 10, 100, 8, 3, **others)


def _assert_holds(checkpoint, value):
    arg, aux = checkpoint.read_params()
    assert sorted(arg) == ["bbox_pred_bias", "bbox_pred_weight"], "no _test pair"
    for array in (*arg.values(), *aux.values()):
        assert (array.asnumpy() == value).all()
    for array in checkpoint.read_optimizer().values():
        assert (array.asnumpy() == 2 * value).all()


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    assert folder.newest() is None
    sums = {"RPNAcc": (0.1, 3.0), "RPNLogLoss": (1 / 3, 0.0)}
    state = _state(1, batch=4, skipped=2, window=sums, sums=sums, best=BEST)
    folder.save_epoch(_snapshot(), state)
    newest = folder.newest()
    assert replace(newest.state, saved_at_s=0.0) == state
    assert newest.path(".params") == tmp_path / "SNIPER-0002.params"
    _assert_holds(newest, 1)
    assert _names(tmp_path) == [
        "SNIPER-0002.json",
        "SNIPER-0002.params",
        "SNIPER-0002.states",
        "SNIPER-symbol.json",
    ]
    arg, _ = read_params(tmp_path / "SNIPER-0002.params")
    np.testing.assert_allclose(arg["bbox_pred_weight_test"][:, 0].asnumpy(), [0.1, 0.1, 0.2, 0.2])


def test_the_newest_complete_checkpoint_is_found(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    for epoch in (1, 2, 3):
        folder.save_epoch(_snapshot(epoch), _state(epoch))
    (tmp_path / "SNIPER-0003.states").unlink()
    assert folder.newest().state.epoch == 2


def test_a_new_run_in_the_folder_of_an_old_one_is_the_newest(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    folder.save_epoch(_snapshot(7), _state(7))
    folder.save_update(_snapshot(1), _state(0, 3, batch=3, run=1))
    assert folder.newest().state.updates == 3
    folder.save_epoch(_snapshot(2), _state(1, run=1))
    _assert_holds(folder.newest(), 2)


def test_a_clock_that_goes_back_changes_nothing(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    for epoch in (1, 2):
        path = folder.save_epoch(_snapshot(epoch), _state(epoch)).path(".json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "saved_at_s": 9e9 / epoch}))
        os.utime(path, (9e8 / epoch, 9e8 / epoch))
    assert folder.newest().state.epoch == 2


def test_checkpoints_within_an_epoch_make_room(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    folder.save_epoch(_snapshot(1), _state(1))
    for update in (12, 14):
        folder.save_update(_snapshot(update), _state(1, update, batch=update - 10))
    assert [name for name in _names(tmp_path) if "update" in name] == [
        "SNIPER-update-0014.json",
        "SNIPER-update-0014.params",
        "SNIPER-update-0014.states",
    ]
    _assert_holds(folder.newest(), 14)
    folder.save_epoch(_snapshot(2), _state(2))
    assert not [name for name in _names(tmp_path) if "update" in name]


def test_files_of_older_versions_resume(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    for epoch in (1, 2):
        path = folder.save_epoch(_snapshot(epoch), _state(epoch)).path(".json")
        old = {"epoch": epoch, "updates": 6 * epoch, "samples": 24, "batch_size": 4, "seed": 0}
        path.write_text(json.dumps(old))
    assert folder.newest().state == RunState(2, 12, 24, 4, 0)
    # The first checkpoint of this version is newer than all of them.
    folder.save_update(_snapshot(3), _state(0, 1, batch=1, run=1))
    assert folder.newest().state.updates == 1


def test_only_the_newest_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER", keep=2)
    for epoch in (1, 2, 3, 4):
        folder.save_epoch(_snapshot(epoch, averaged=epoch), _state(epoch))
        if epoch == 1:
            folder.save_best(*_best())
    assert [name for name in _names(tmp_path) if name.endswith(".params")] == [
        "SNIPER-0003.params",
        "SNIPER-0004.params",
        "SNIPER-best.params",
        "SNIPER-ema-0003.params",
        "SNIPER-ema-0004.params",
    ]
    assert folder.newest().state.epoch == 4


def _best():
    snapshot = _snapshot(5)
    return snapshot.arg, snapshot.aux, BEST


def test_averaged_and_best_weights_have_their_own_files(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    folder.save_epoch(_snapshot(1, averaged=2), _state(2))
    folder.save_best(*_best())
    _assert_holds(folder.newest(), 1)
    for name, value in (("SNIPER-ema-0002", 2), ("SNIPER-best", 5)):
        arg, _ = read_params(tmp_path / f"{name}.params")
        assert (arg["bbox_pred_weight"].asnumpy() == value).all()
        assert "bbox_pred_weight_test" in arg
    about = json.loads((tmp_path / "SNIPER-best.json").read_text())
    assert (about["epoch"], about["metric"], about["value"]) == (2, "ap", 0.25)


class _FullDisk:
    """Lets some calls through, then fails as a full disk does."""

    def __init__(self, function, room):
        self.function, self.room = function, room

    def __call__(self, *args):
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.function(*args)


# Calls of each save: one for every file.
@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("kind", "calls"), [("epoch", 5), ("again", 5), ("update", 4), ("best", 2)]
)
def test_a_full_disk_at_any_file_keeps_what_was_there(tmp_path, monkeypatch, function, kind, calls):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    folder.save_epoch(_snapshot(1, averaged=1), _state(1))
    folder.save_best(_snapshot(1).arg, _snapshot(1).aux, BEST)

    def save():
        if kind == "update":
            folder.save_update(_snapshot(2), _state(1, 15, batch=5))
        elif kind == "best":
            folder.save_best(*_best())
        else:
            epoch = 1 if kind == "again" else 2
            folder.save_epoch(_snapshot(2, averaged=2), _state(epoch))

    # Every file is moved twice: within the folder of files in the making, and to its place. There
    # it may replace a file of the same name, which takes no room on the disk.
    moves = calls if kind == "again" else 2 * calls
    for room in range(moves if function == "replace" else calls):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, function, _FullDisk(getattr(os, function), room))
            with pytest.raises(TrainingError, match="No space left"):
                save()
        _assert_holds(folder.newest(), 1)
        assert not list(tmp_path.glob(".*")), "nothing is left lying about"
    save()
    if kind != "best":
        _assert_holds(folder.newest(), 2)


def test_left_overs_of_a_killed_run_go_away(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    (tmp_path / ".SNIPER-saving.tmp").mkdir()
    (tmp_path / ".SNIPER-saving.tmp" / "SNIPER-0001.params").write_bytes(b"half")
    folder.save_epoch(_snapshot(1), _state(1))
    assert not list(tmp_path.glob(".*"))


def test_a_new_state_for_an_old_checkpoint(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    saved = folder.save_epoch(_snapshot(1), _state(1))
    folder.save_state(saved, _state(1, validated=10, best=BEST))
    assert folder.newest().state.best == BEST
    assert folder.newest().state.validated == 10


def test_broken_state_files_are_named(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    saved = folder.save_epoch(_snapshot(1), _state(1))
    saved.path(".states").write_bytes(b"no arrays")
    with pytest.raises(TrainingError, match=r"SNIPER-0001\.states"):
        saved.read_optimizer()
    for text in ("{", "[]", '{"epoch": 1}', '{"sums": 3}'):
        saved.path(".json").write_text(text)
        with pytest.raises(TrainingError, match=r"SNIPER-0001\.json"):
            folder.newest()


def test_other_json_files_are_no_checkpoints(tmp_path):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    folder.save_best(*_best())
    for name in ("SNIPER-symbol.json", "SNIPER-ema-0001.json", "SNIPER2-0001.json"):
        (tmp_path / name).write_text("no state")
    assert folder.newest() is None


def test_run_state_knows_the_number_of_its_files(tmp_path):
    assert [_state(2, batch=0).file_epoch, _state(2, batch=5).file_epoch] == [2, 3]
    path = tmp_path / "state.json"
    path.write_text(_state(2).to_json())
    assert read_run_state(path).saved_at_s > 1e9


def test_class_names_round_trip(tmp_path):
    assert read_class_names(tmp_path) is None
    write_class_names(tmp_path, ("__background__", "café"))
    assert read_class_names(tmp_path) == ("__background__", "café")
    (tmp_path / "classes.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(DataError, match="list of strings"):
        read_class_names(tmp_path)

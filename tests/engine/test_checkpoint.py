"""Checkpoint folders: which one is newest, what is kept, what is refused."""

import json

import mxnet as mx
import numpy as np
import pytest

from sniper.engine.checkpoint import CheckpointFolder, RunState
from sniper.engine.classes import read_class_names, write_class_names
from sniper.errors import DataError, TrainingError


def _module(params=None, **options):
    data = mx.sym.Variable("data")
    net = mx.sym.FullyConnected(data, num_hidden=4, name="bbox_pred")
    net = mx.sym.LinearRegressionOutput(net, mx.sym.Variable("label"))
    module = mx.mod.Module(net, ["data"], ["label"], **options)
    module.bind([("data", (4, 5))], [("label", (4, 4))])
    module.init_params(mx.init.Normal(0.1))
    if params:
        module.set_params(*params)
    module.init_optimizer("device", "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    return module


def _step(module, seed=0):
    rng = np.random.RandomState(seed)
    data, label = mx.nd.array(rng.randn(4, 5)), mx.nd.array(rng.randn(4, 4))
    module.forward_backward(mx.io.DataBatch([data], [label]))
    module.update()


def _state(epoch):
    return RunState(epoch, epoch * 10, 100, 8, 3)


@pytest.fixture
def module():
    made = _module()
    _step(made)
    return made


def test_newest_complete_checkpoint_is_found(tmp_path, module):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    assert folder.newest() is None
    for epoch in (1, 2, 3):
        folder.save(module, _state(epoch))
    folder.path(3, ".states").unlink()
    assert folder.newest() == _state(2)


@pytest.mark.parametrize("contexts", [1, 2])
def test_optimizer_state_comes_back(tmp_path, contexts):
    devices = [mx.cpu(i) for i in range(contexts)]
    module = _module(context=devices)
    _step(module)
    folder = CheckpointFolder(tmp_path, "SNIPER")
    folder.save(module, _state(1))
    again = _module(folder.load_params(1), context=devices)
    folder.load_optimizer(again, 1)
    for one in (module, again):
        _step(one, seed=1)
    for name, value in module.get_params()[0].items():
        np.testing.assert_array_equal(value.asnumpy(), again.get_params()[0][name].asnumpy())


def test_only_the_newest_are_kept(tmp_path, module):
    folder = CheckpointFolder(tmp_path, "SNIPER", keep=2)
    for epoch in (1, 2, 3, 4):
        folder.save(module, _state(epoch))
    assert sorted(path.name for path in tmp_path.glob("*.params")) == [
        "SNIPER-0003.params",
        "SNIPER-0004.params",
    ]
    assert folder.newest() == _state(4)


def test_params_for_training_have_no_test_pair(tmp_path, module):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    folder.save(module, _state(1))
    arg, _ = folder.load_params(1)
    assert sorted(arg) == ["bbox_pred_bias", "bbox_pred_weight"]


def test_broken_state_files_are_named(tmp_path, module):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    folder.save(module, _state(1))
    folder.path(1, ".states").write_bytes(b"no arrays")
    with pytest.raises(TrainingError, match=r"SNIPER-0001\.states"):
        folder.load_optimizer(module, 1)
    folder.path(1, ".json").write_text("{")
    with pytest.raises(TrainingError, match=r"SNIPER-0001\.json"):
        folder.newest()


def test_optimizer_state_of_another_network_is_refused(tmp_path, module):
    folder = CheckpointFolder(tmp_path, "SNIPER")
    folder.save(module, _state(1))
    mx.nd.save(str(folder.path(1, ".states")), {"0:bbox_pred_weight:0": mx.nd.zeros((2, 2))})
    with pytest.raises(TrainingError, match="does not fit"):
        folder.load_optimizer(module, 1)


def test_class_names_round_trip(tmp_path):
    assert read_class_names(tmp_path) is None
    write_class_names(tmp_path, ("__background__", "café"))
    assert read_class_names(tmp_path) == ("__background__", "café")
    (tmp_path / "classes.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(DataError, match="list of strings"):
        read_class_names(tmp_path)
